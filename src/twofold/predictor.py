"""Predictor: image in, dense map out. One backbone, one task, one protocol, one head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import torch
from torch import Tensor, nn

from .backbones.backbone import Backbone
from .diffusion import to_x0
from .image import longest_edge_size, pad_to_multiple, read_image, resize, write_image, write_map
from .protocol import Answer, OneStep, Query
from .show import side_by_side
from .tasks import Task

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image as PILImage


@dataclass(frozen=True)
class Prediction:
    """One map of one image.

    Attributes:
        task: what the map means.
        map: ``c h w`` float32 on the CPU at the size of the input; units in ``task.unit``.
        image: ``3 h w`` sRGB in [0, 1], the input.
        settings: model, protocol, size and seed that made it.
    """

    task: Task
    map: Tensor
    image: Tensor
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def array(self) -> np.ndarray:
        """The map as numpy: ``h w``, or ``h w c`` where it has several channels."""
        return self.map.permute(1, 2, 0).squeeze(-1).contiguous().numpy()

    @property
    def color(self) -> Tensor:
        """The map as a picture ``3 h w`` in [0, 1], for eyes only."""
        return self.task.show(self.map)

    def show(self) -> None:
        """Open image and map side by side in the system's picture viewer."""
        from PIL import Image

        both = side_by_side([self.image, self.color])
        Image.fromarray((both * 255).round().byte().permute(1, 2, 0).numpy()).show()

    def save(self, folder: str | Path, stem: str) -> dict[str, Path]:
        """Write ``<stem>_<task>.npy`` (exact), ``.png`` (lossless) and ``_color.png`` (for eyes) into ``folder``.

        The PNG of a one-channel map is 16-bit grey, 0 to 65535 for 0 to 1; that of vectors is 8-bit, (n + 1) / 2.
        """
        base = Path(folder)
        base.mkdir(parents=True, exist_ok=True)
        name = f"{stem}_{self.task.name}"
        paths = {
            "npy": base / f"{name}.npy",
            "png": base / f"{name}.png",
            "color": base / f"{name}_color.png",
        }
        write_map(paths["npy"], self.map)
        if self.task.channels == 1:
            write_map(paths["png"], (self.map * 65535).round())
        else:
            write_image(paths["png"], (self.map + 1) / 2)
        write_image(paths["color"], self.color)
        return paths


class Predictor(nn.Module):
    """A diffusion model asked one dense task.

    Args:
        backbone: the networks.
        task: what is asked.
        protocol: how the answer is reached.
        head: what reads it out, called as ``head(x0, features, backbone)``.
        prompt: the text the network is told; the task's own by default.
        size: longest edge images are brought to before they are shown; 0 leaves them as they are.
        about: facts to carry in every prediction's settings.
    """

    def __init__(
        self,
        backbone: Backbone,
        task: Task,
        protocol: OneStep,
        head: nn.Module,
        prompt: str | None = None,
        size: int = 0,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.backbone, self.task, self.protocol, self.head = backbone, task, protocol, head
        self.prompt = task.prompt if prompt is None else prompt
        self.size, self.about = size, dict(about or {})

    def look(self, query: Query) -> Answer:
        """Show the network a query and read its word as a clean latent."""
        text = self.backbone.embed([self.prompt] * len(query.x))
        taps = bool(getattr(self.head, "reads_features", True))
        said = self.backbone(query.x, query.t, text, features=taps)
        x0 = to_x0(said.prediction, query.x, query.alpha, query.sigma, self.backbone.schedule.predicts)
        return Answer(x0, said.features)

    @overload
    def __call__(
        self, images: str | Path | PILImage | Tensor, size: int | None = ..., seed: int = ...
    ) -> Prediction: ...
    @overload
    def __call__(
        self, images: Sequence[Any], size: int | None = ..., seed: int = ...
    ) -> list[Prediction]: ...
    def __call__(self, images: Any, size: int | None = None, seed: int = 0) -> Any:
        """Predict one image, or a list of images of any sizes.

        Args:
            images: a path, PIL image, tensor ``3 h w`` in [0, 1], or a list of those; a tensor ``b 3 h w`` is a list.
            size: longest edge to work at; the model's own by default, 0 for the image's.
            seed: of whatever is random in the protocol; an image's answer does not depend on the others.

        Returns:
            A `Prediction`, or a list of them for a list.
        """
        if isinstance(images, Tensor) and images.ndim == 4:
            images = list(images)
        if not isinstance(images, list | tuple):
            return self._predict([images], size, seed)[0]
        return self._predict(list(images), size, seed)

    @torch.no_grad()
    def _predict(self, images: list[Any], size: int | None, seed: int) -> list[Prediction]:
        loaded = [_picture(image) for image in images]
        longest = self.size if size is None else size
        shown = [_shown(image, longest) for image in loaded]
        # Images of one size go through together; the answer to each is its own.
        answers: dict[int, Tensor] = {}
        for shape in dict.fromkeys(x.shape for x in shown):
            group = [i for i, x in enumerate(shown) if x.shape == shape]
            for i, canvas in zip(
                group, self.canvases(torch.stack([shown[i] for i in group]), seed), strict=True
            ):
                answers[i] = canvas
        settings = {**self.about, "size": longest, "seed": seed}
        return [
            Prediction(self.task, self._map(answers[i], image), image, settings)
            for i, image in enumerate(loaded)
        ]

    def canvases(self, images: Tensor, seed: int = 0) -> Tensor:
        """Images ``b 3 h w`` in [0, 1] to canvases of the same size; padded to the stride inside, not stretched."""
        padded, (h, w) = pad_to_multiple(images, self.backbone.stride)
        rng = torch.Generator().manual_seed(seed)
        weights = next(self.backbone.parameters())
        latent = self.backbone.encode((padded * 2 - 1).to(weights))
        answer = self.protocol.solve(self.look, latent, rng)
        return self.head(answer.x0, answer.features, self.backbone)[..., :h, :w].float().cpu()

    def _map(self, canvas: Tensor, image: Tensor) -> Tensor:
        """Canvas to map at the input's size; resized as a canvas, so that vectors are made unit after it."""
        return self.task.decode(resize(canvas[None], (image.shape[-2], image.shape[-1])))[0]


def _picture(image: Any) -> Tensor:
    if isinstance(image, Tensor):
        if image.ndim != 3 or image.shape[0] != 3:
            raise ValueError(f"an image tensor is 3 h w in [0, 1], not {tuple(image.shape)}")
        return image.float().cpu()
    return read_image(image)


def _shown(image: Tensor, longest: int) -> Tensor:
    if not longest:
        return image
    return resize(image, longest_edge_size(image.shape[-2], image.shape[-1], longest)).clamp(0, 1)
