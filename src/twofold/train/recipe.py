"""Everything a training run depends on, as one frozen record that is saved beside the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

# One example of a batch may teach one of these: a task's name, or
IMAGE = "image"  # the denoising of images under their captions: what keeps the model able to generate


class Source(BaseModel):
    """A data folder, its share of the examples drawn (relative to the others'), and how many of its samples to use.

    ``limit`` 0 is all; otherwise the samples are taken evenly from the whole folder.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    path: str
    share: float = 1.0
    limit: int = 0

    def indices(self, count: int) -> list[int]:
        """Which of ``count`` samples to use."""
        if not self.limit or self.limit >= count:
            return list(range(count))
        return [i * count // self.limit for i in range(self.limit)]


class Recipe(BaseModel):
    """What is trained, from what, on what, and how. Unknown keys are errors.

    Attributes:
        name: of the run; the folder is named after it unless told otherwise.
        stage: ``autoencoder`` trains the image codec; ``denoiser`` trains U-Net and text encoder, for the image
            task (diffusion under captions), for perception tasks (one step), or for several at once.
        start: folder of the model to start from, or ``new`` for random weights.
        reset: parts of ``start`` to replace by random weights again; ``text`` is the text encoder with its words,
            ``heads`` the small trained heads.
        sources: labelled or unlabelled data folders; a folder without a task's target serves the others.
        validation: data folder scored every ``validate_every`` steps.
        mix: what an example teaches, by relative frequency: ``image`` and task names.
        size: height and width of a training example, pixels; pictures are scaled to cover it and cropped.
        latent_weight: weight of the masked squared error between latents.
        image_weight: weight of each task's own loss on the decoded image; 0 spares the decoder.
        head: what reads perception out: the frozen decoder (``latent``), or a small trained one (``light``), which
            needs ``image_weight`` > 0.
        augment: draw new crops, zooms and colours each step and encode them then, instead of windows from a cache.
        timestep: what the network is told in one-step perception (GenPercept: 1).
        drop_caption: how often the caption is empty, so that guidance has its unconditional half.
        labels: how many labelled samples may be used, 0 for all: the "few labels" setting.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    stage: Literal["autoencoder", "denoiser"]
    start: str = "new"
    reset: tuple[Literal["unet", "text", "heads"], ...] = ()
    sources: tuple[Source, ...]
    validation: str | None = None
    mix: dict[str, float] = Field(default_factory=lambda: {IMAGE: 1.0})
    size: tuple[int, int] = (192, 256)
    steps: int = 1000
    batch: int = 16
    lr: float = 1e-3
    warmup: int = 100
    final_lr: float = 0.05
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.999
    latent_weight: float = 1.0
    image_weight: float = 0.0
    head: Literal["latent", "light"] = "latent"
    augment: bool = False
    timestep: int = 1
    drop_caption: float = 0.1
    labels: int = 0
    seed: int = 0
    validate_every: int = 500
    validate_count: int = 64
    save_every: int = 250

    def replace(self, **changes: Any) -> Recipe:
        """The same recipe with some values changed, checked again."""
        return Recipe.model_validate({**self.model_dump(), **changes})

    def override(self, settings: list[str]) -> Recipe:
        """Apply ``key=value`` strings; values are JSON, or plain text where they are not.

        Raises:
            ValueError: a string without ``=``, or a key that the recipe does not have.
        """
        import json

        changes: dict[str, Any] = {}
        for setting in settings:
            key, found, value = setting.partition("=")
            if not found or key not in type(self).model_fields:
                known = ", ".join(sorted(type(self).model_fields))
                raise ValueError(f"--set {setting}: expected KEY=VALUE with a key among {known}")
            try:
                changes[key] = json.loads(value)
            except json.JSONDecodeError:
                changes[key] = value
        return self.replace(**changes)

    def save(self, path: Path) -> None:
        """Write as JSON."""
        path.write_text(self.model_dump_json(indent=2) + "\n")

    @classmethod
    def read(cls, path: Path) -> Recipe:
        """Read what `save` wrote."""
        return cls.model_validate_json(path.read_text())
