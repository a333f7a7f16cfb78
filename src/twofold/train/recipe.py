"""Everything a training run depends on, as one frozen record that is saved beside the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..heads import HEADS
from ..protocol import OneStep, Protocol

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
        head: what reads perception out: the autoencoder's decoder (``latent``), or one of `twofold.heads` that is
            trained here, which needs ``image_weight`` > 0.
        augment: draw new crops, zooms and colours each step and encode them then, instead of windows from a cache.
        protocol: what the network is shown of an image, and how the answer is reached (`twofold.protocol`). A network
            that takes fewer channels is widened as Marigold widens it.
        unet: what of the denoising network learns: all of it (``full``), nothing (``frozen``, for a head that reads its
            features), or low-rank additions to its attention (``lora``), which are merged when the run is saved.
        rank: of the low-rank additions; their scale is 1 (alpha = rank).
        text: whether the text encoder learns too; it stays ``frozen`` where pretrained words are to keep their meaning.
        decoder: whether the autoencoder's decoder learns as a latent head's last part.
        losses: by task, weights of its losses in place of the task's own.
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
    head: str = "latent"
    augment: bool = False
    protocol: Protocol = OneStep()
    unet: Literal["full", "frozen", "lora"] = "full"
    rank: int = 16
    text: Literal["full", "frozen"] = "full"
    decoder: Literal["frozen", "full"] = "frozen"
    losses: dict[str, dict[str, float]] = Field(default_factory=dict)
    drop_caption: float = 0.1
    labels: int = 0
    seed: int = 0
    validate_every: int = 500
    validate_count: int = 64
    save_every: int = 250

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that are taught, sorted."""
        return tuple(sorted(k for k in self.mix if k != IMAGE))

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if self.head not in HEADS:
            raise ValueError(f"unknown head {self.head!r}; known: {', '.join(HEADS)}")
        if self.stage != "denoiser" or not self.tasks:
            return self
        if self.head != "latent" and self.image_weight <= 0:
            raise ValueError(
                f"a {self.head} head learns from pixels alone: the recipe needs image_weight > 0"
            )
        if self.decoder == "full" and (self.head != "latent" or self.image_weight <= 0):
            raise ValueError(
                "a decoder learns from pixels through a latent head: head='latent', image_weight > 0"
            )
        if self.unet == "frozen" and self.head == "latent" and self.decoder == "frozen":
            raise ValueError(
                "nothing of the network would learn: unet='frozen' needs a head or a decoder that does"
            )
        if self.protocol.kind == "multi_step" and self.image_weight > 0 and self.protocol.start != "zeros":
            raise ValueError(
                "losses on pixels need an answer in one look: a one-step protocol, or a walk that starts from zeros"
            )
        return self

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
