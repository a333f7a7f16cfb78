"""Diffusion models for dense prediction (depth, normals, masks, ...) and for the generation of labelled images.

    import twofold
    twofold.load("embedded")("photo.jpg").show()

The names below are imported when they are first used, so that `import twofold` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from twofold.checkpoints import Model, ModelError, load, open_model, open_network
    from twofold.data.folder import Folder
    from twofold.data.writer import FolderWriter
    from twofold.geometry import Camera
    from twofold.image import ImageError, read_image, read_map
    from twofold.predict.diffusion import DiffusionPredictor
    from twofold.predict.prediction import Prediction
    from twofold.sample import Provenance, Sample
    from twofold.tasks import TASKS, Task

_HOMES = {
    "Camera": "twofold.geometry",
    "Folder": "twofold.data.folder",
    "FolderWriter": "twofold.data.writer",
    "ImageError": "twofold.image",
    "Model": "twofold.checkpoints",
    "ModelError": "twofold.checkpoints",
    "Provenance": "twofold.sample",
    "Prediction": "twofold.predict.prediction",
    "DiffusionPredictor": "twofold.predict.diffusion",
    "Sample": "twofold.sample",
    "TASKS": "twofold.tasks",
    "Task": "twofold.tasks",
    "load": "twofold.checkpoints",
    "open_model": "twofold.checkpoints",
    "open_network": "twofold.checkpoints",
    "read_image": "twofold.image",
    "read_map": "twofold.image",
}

__all__ = [
    "Camera",
    "Folder",
    "FolderWriter",
    "ImageError",
    "Model",
    "ModelError",
    "Provenance",
    "Prediction",
    "DiffusionPredictor",
    "Sample",
    "TASKS",
    "Task",
    "__version__",
    "load",
    "open_model",
    "open_network",
    "read_image",
    "read_map",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'twofold' has no attribute {name!r}")
    from importlib import import_module

    from twofold.environment import require_sound_torchvision

    require_sound_torchvision()
    value = getattr(import_module(home), name)
    globals()[name] = value  # found at once from now on
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
