"""Everything a training run depends on, as one frozen record that is saved beside the weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ..backbones.encoders import IMAGE_ENCODERS
from ..heads import HEADS
from ..io import check_name
from ..named_code import names_code
from ..protocols import OneStep, Protocol
from ..suggest import did_you_mean, unknown
from ..tasks import get_task
from .code import check_code
from .override import put_value, read_value
from .random_crop import RandomCrop
from .source import Size, Source

# One example of a batch may teach one of these: a task's name, or
IMAGE = "image"  # the denoising of images under their captions: what keeps the model able to generate

Share = Annotated[float, Field(ge=0, lt=1)]


# What says nothing to a network of one's own, and must not be said in vain.
_OF_DIFFUSION = (
    "reset", "latent_weight", "image_weight", "head", "head_options", "protocol", "prompts", "pad", "unet", "rank",
    "alpha", "targets", "text", "decoder", "drop_caption", "head_lr", "checkpointing",
    "image_encoder", "encoder", "encoder_lr",
)  # fmt: skip


class Recipe(BaseModel):
    """What is trained, from what, on what, and how. Unknown keys are errors.

    Attributes:
        name: of the run; the folder is named after it unless told otherwise.
        stage: ``autoencoder`` trains the image codec; ``denoiser`` trains U-Net and text encoder, for the image
            task (diffusion under captions), for perception tasks, or for several at once; ``network`` trains a network
            of one's own on tasks.
        network: of that stage, the code that makes it, ``package.module:make`` or ``file.py:make``, which is run: a
            class, or a function that says ``-> nn.Module``; see `predict.module`. What learns, its parameters say.
        network_options: that ``make`` is called with.
        start: folder, published name or hub id of the model to start from, or ``new`` for random weights; for a network
            of one's own the folder of a checkpoint, or ``new`` for the weights that it is made with.
        reset: parts of ``start`` to replace by random weights again; ``text`` is the text encoder with its words,
            ``decoder`` the autoencoder's, ``heads`` the small trained heads.
        sources: labelled or unlabelled data folders; a folder without a task's target serves the others.
        validation: data folder scored every ``validate_every`` steps.
        mix: what an example teaches, by relative frequency: ``image`` and task names. Kept exactly, as shares are. To a
            network of one's own, a picture that is drawn for one task teaches all that it has labels for.
        tasks_per_image: ``one``: an example is an image under one task. ``all``: it is an image under every task of
            ``mix`` that it has a target of, its loss is the sum over them, and tasks of one prompt share one forward
            pass of the network, as multi-task training does. ``batch``, ``micro`` and ``ema_every`` then count images;
            tasks of one frequency are drawn together, each image once before any is drawn twice. A network of one's own
            is always trained so.
        together: how many examples in a row come from one source and teach one thing. 1 mixes example by example,
            ``batch`` batch by batch; GenPercept mixes micro-batch by micro-batch.
        size: height and width of a training example, pixels; pictures are scaled to cover it and cropped.
        resample: how images are brought to ``size``: scaled to cover it and cropped, ``bilinear`` with antialiasing or
            by the ``nearest`` pixel; or ``genpercept``: as its released loader does, see `train.released`.
        latent_weight: weight of the masked squared error between latents.
        image_weight: weight of each task's own losses on what the head paints; 0 spares the decoder.
        losses: by task, weights of its losses in place of the task's own.
        compat: ``genpercept`` teaches tasks with the quirks of that release (`twofold.compat.genpercept`); with
            ``resample="genpercept"`` the examples are those of its loader.
        head: what reads perception out: the autoencoder's decoder (``latent``), or one of `twofold.heads` that is
            trained here, which needs ``image_weight`` > 0.
        head_options: of the head's class, such as ``{"width": 128}``.
        mirror: show half of the examples mirrored.
        augment: draw new crops, zooms and colours each step and encode them then, instead of windows.
        random_crop: with ``augment``, crops as semantic segmentation draws them (`random_crop.RandomCrop`): zoomed in
            and out, not of almost one class, with its color distortion.
        cache: keep the latents of windows on disk; without, they are encoded when drawn, to the same numbers. A network
            of one's own has none to keep.
        protocol: what the network is shown of an image, and how the answer is reached (`twofold.protocols`). A network
            that takes fewer channels is widened as Marigold widens it. Latents that are learned from are always the
            mean of their posterior; ``encode`` is about use.
        prompts: by task, the words it is asked with in place of its own.
        pad: whether these words are filled up to the tokenizer's length (77), as some networks were taught.
        unet: what of the denoising network learns: all of it (``full``), nothing (``frozen``, for a head that reads its
            features), or low-rank additions (``lora``), which are merged when the run is saved.
        rank, alpha, targets: of the low-rank additions; alpha 0 is the rank, so that their scale is 1. Targets are
            ends of the names of the layers they are added to.
        text: whether the text encoder learns too; it stays ``frozen`` where pretrained words are to keep their meaning.
        decoder: whether the autoencoder's decoder learns as a latent head's last part.
        image_encoder: name of a pretrained image encoder to put beside the latent of a start that has none
            (`twofold.backbones.encoders`).
        encoder: what of the start's image encoder is used by tasks: nothing (``off``), its features as they are
            (``frozen``), or trained with the rest (``full``). Its adapters are trained where the U-Net is.
        drop_caption: how often the caption is empty, so that guidance has its unconditional half.
        labels: how many labelled samples may be used, 0 for all: the "few labels" setting.
        skip_bad: leave out samples that cannot be read and list them, instead of stopping at the first.
        steps: updates of the weights.
        batch: examples an update is made from, over all processes.
        micro: examples shown to the network at once in each process; 0 is all of the process's share. The rest of the
            share follows before the update (gradient accumulation).
        optimizer: ``adamw`` or ``adam``, with ``betas``, ``eps`` and ``weight_decay``.
        lr, head_lr, encoder_lr: learning rates; heads and decoder have their own where ``head_lr`` is not 0, the image
            encoder where ``encoder_lr`` is not 0.
        schedule, warmup, decay, final_lr: of the learning rate, see `optimizer.learning_rate`. ``onecycle`` has its own
            warm-up, and sets the first of ``betas`` too.
        clip: of the gradient's norm; 0 does not clip.
        ema: decay of the averaged weights, which are what is validated and saved; 0 averages nothing.
        best: the score on ``validation``, such as ``normals/mean``, by which the best averaged weights are kept, those
            before the first step included; empty keeps the last.
        patience: validations in a row without a better one after which the run ends; 0 goes to the last step.
        ema_every: examples between two steps of the average; 0 steps it with every update, and faster at first.
            Diff-2-in-1's teacher has a decay of 0.998 every 40 examples.
        precision: of the network's arithmetic; weights, losses and optimizer stay fp32.
        checkpointing: recompute activations of the U-Net in the backward pass instead of keeping them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    name: str
    stage: Literal["autoencoder", "denoiser", "network"]
    network: str = ""
    network_options: dict[str, Any] = Field(default_factory=dict)
    start: str = "new"
    reset: tuple[Literal["unet", "text", "decoder", "heads"], ...] = ()
    sources: tuple[Source, ...]
    validation: str | None = None
    mix: dict[str, float] = Field(default_factory=lambda: {IMAGE: 1.0})
    tasks_per_image: Literal["one", "all"] = "one"
    together: int = Field(1, ge=1)
    size: Size = (192, 256)
    resample: Literal["bilinear", "nearest", "genpercept"] = "bilinear"
    latent_weight: float = Field(1.0, ge=0)
    image_weight: float = Field(0.0, ge=0)
    losses: dict[str, dict[str, float]] = Field(default_factory=dict)
    compat: Literal["", "genpercept"] = ""
    head: str = "latent"
    head_options: dict[str, Any] = Field(default_factory=dict)
    mirror: bool = True
    augment: bool = False
    random_crop: RandomCrop | None = None
    cache: bool = True
    protocol: Protocol = OneStep()
    prompts: dict[str, str] = Field(default_factory=dict)
    pad: bool = False
    unet: Literal["full", "frozen", "lora"] = "full"
    rank: int = Field(16, ge=1)
    alpha: int = Field(0, ge=0)
    targets: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out.0")
    text: Literal["full", "frozen"] = "full"
    decoder: Literal["frozen", "full"] = "frozen"
    image_encoder: str = ""
    encoder: Literal["off", "frozen", "full"] = "frozen"
    drop_caption: float = Field(0.1, ge=0, le=1)
    labels: int = Field(0, ge=0)
    skip_bad: bool = False
    steps: int = Field(1000, ge=1)
    batch: int = Field(16, ge=1)
    micro: int = Field(0, ge=0)
    optimizer: Literal["adamw", "adam"] = "adamw"
    lr: float = Field(1e-3, ge=0)
    head_lr: float = Field(0.0, ge=0)
    encoder_lr: float = Field(0.0, ge=0)
    betas: tuple[Share, Share] = (0.9, 0.99)
    eps: float = Field(1e-8, ge=0)
    weight_decay: float = Field(0.01, ge=0)
    schedule: Literal["cosine", "exponential", "linear", "poly", "constant", "onecycle"] = "cosine"
    warmup: int = Field(100, ge=0)
    decay: int = Field(0, ge=0)
    final_lr: float = Field(0.05, ge=0)
    clip: float = Field(1.0, ge=0)
    ema: float = Field(0.999, ge=0, lt=1)
    ema_every: int = Field(0, ge=0)
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    checkpointing: bool = False
    seed: int = 0
    validate_every: int = Field(500, ge=0)
    validate_count: int = Field(64, ge=1)
    best: str = ""
    patience: int = Field(0, ge=0)
    save_every: int = Field(250, ge=0)

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that are taught, sorted."""
        return tuple(sorted(k for k in self.mix if k != IMAGE))

    @property
    def clipping(self) -> Literal["mean", "channels"]:
        """How predicted vectors are held in range: GenPercept's release clips each channel (`OutputConfig`)."""
        return "channels" if self.compat == "genpercept" else "mean"

    @property
    def joint_tasks(self) -> bool:
        """Whether an image is trained under all its tasks at once."""
        return self.stage == "network" or self.tasks_per_image == "all"

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, name: str) -> str:
        return check_name(name, "the recipe's name")

    @field_validator("head_options", "network_options")
    @classmethod
    def _as_read_again(cls, options: dict[str, Any]) -> dict[str, Any]:
        """Options as they are in the file of the recipe, whose tuples are lists."""
        return json.loads(json.dumps(options))

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if not any(s.share for s in self.sources):
            raise ValueError("a recipe needs a source with a share above 0")
        if not any(self.mix.values()) or min(self.mix.values()) < 0:
            raise ValueError("mix needs frequencies of 0 or more, one of them above 0")
        for name in self.tasks:
            if ":" not in name:  # one's own is looked for when it is needed
                get_task(name)
        for name in {*self.losses, *self.prompts} - {*self.tasks}:
            raise ValueError(f"losses or prompts name {name!r}, which mix does not teach")
        if self.head not in HEADS and not names_code(self.head):
            raise ValueError(unknown("head", self.head, HEADS))
        if self.head_lr and not self.lr:
            raise ValueError(
                "head_lr is told beside lr, which is 0: nothing would be learned; unet='frozen' spares it"
            )
        if self.resample == "genpercept" and self.augment:
            raise ValueError("GenPercept's loader draws no crops: resample='genpercept' needs augment=false")
        if self.schedule == "onecycle" and self.warmup:
            raise ValueError(
                f"schedule='onecycle' warms up over its first 30 % of the steps, and the recipe has "
                f"warmup={self.warmup}; set warmup=0"
            )
        if self.random_crop and not (self.augment and self.tasks and self.stage != "autoencoder"):
            raise ValueError(
                "random_crop is about the crops of perception tasks that are drawn anew each step, and this recipe "
                f"has {'no tasks' if self.augment else 'augment=false'}; "
                + ("leave it out" if self.augment else "set augment=true, or leave it out")
            )
        if self.patience and not self.best:
            raise ValueError(
                "patience waits for a better score; best says which, such as best='normals/mean'"
            )
        if self.best and not (self.validation and self.validate_every and self.tasks):
            raise ValueError(f"best={self.best!r} needs a task, validation data, and validate_every above 0")
        if bool(self.network) != (self.stage == "network"):
            raise ValueError(
                "stage='network' and network='file.py:make' belong together; give both or neither"
            )
        if self.stage != "autoencoder" and any(s.labels == "teacher" for s in self.sources) and not self.ema:
            raise ValueError("labels='teacher' needs averaged weights: ema must be above 0")
        if self.reset and any(s.labels == "teacher" and s.share for s in self.sources):
            raise ValueError(
                f"labels='teacher' takes labels from the average of a trained model, and reset={list(self.reset)} "
                "would make that random; leave reset out, or label the created images beforehand (labels='stored')"
            )
        if self.image_encoder and self.image_encoder not in IMAGE_ENCODERS:
            raise ValueError(
                f"unknown image encoder {self.image_encoder!r}; known: {', '.join(IMAGE_ENCODERS)}"
            )
        if self.tasks_per_image == "all" and not (self.tasks and self.stage != "autoencoder"):
            raise ValueError(
                "tasks_per_image='all' is about the perception tasks of a denoiser, and this recipe trains none; "
                "leave it out"
            )
        if self.stage == "network":
            self._check_network()
        if self.stage == "denoiser" and self.tasks:
            self._check_perception()
        if self.stage == "denoiser":
            self._check_denoiser()
        return self

    def _check_network(self) -> None:
        if IMAGE in self.mix:
            raise ValueError(
                "a network of one's own draws no pictures: mix names its tasks, such as {'depth': 1}"
            )
        fields = type(self).model_fields
        for name in _OF_DIFFUSION:
            if getattr(self, name) != fields[name].get_default(call_default_factory=True):
                raise ValueError(
                    f"{name} is about diffusion models, and this is a network of one's own; leave it out"
                )

    def _check_denoiser(self) -> None:
        if IMAGE in self.mix and self.unet == self.text == "frozen":
            raise ValueError(
                "the image task teaches nothing where unet and text are frozen; take it out of mix"
            )
        if IMAGE in self.mix and self.tasks and self.protocol.channels(1) != 1:
            raise ValueError(
                f"the image task is shown one latent, and this protocol shows {self.protocol.channels(1)} "
                f"(condition={self.protocol.condition!r}); take it out of mix, or use condition='replace'"
            )

    def _check_perception(self) -> None:
        if self.head != "latent" and self.image_weight <= 0:
            raise ValueError(
                f"a {self.head} head learns from pixels alone: the recipe needs image_weight > 0"
            )
        if self.latent_weight <= 0 and self.image_weight <= 0:
            raise ValueError("nothing is asked of the tasks: latent_weight or image_weight must be above 0")
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

    def replace(self, **changes: Any) -> Recipe:
        """The same recipe with some values changed, checked again.

        Raises:
            ValueError: a value does not fit, or a key is none; one line.
        """
        try:
            return Recipe.model_validate({**self.model_dump(), **changes})
        except ValidationError as error:
            raise ValueError(wrong(error)) from None

    def override(self, settings: list[str]) -> Recipe:
        """Apply ``key=value`` strings; values are JSON, or plain text where they are not.

        A dot goes into a value: ``losses.depth.ssi=1``, ``protocol.timestep=500``, ``sources.0.share=2``.

        Raises:
            ValueError: a string without ``=``, a key that the recipe does not have, or a value that does not fit.
        """
        changes = self.model_dump(mode="json")
        for setting in settings:
            path, found, value = setting.partition("=")
            key, *inner = path.split(".")
            if not found or key not in type(self).model_fields:
                known = sorted(type(self).model_fields)
                hint = did_you_mean(key, known) if found else ""
                raise ValueError(
                    f"--set {setting}{hint}: expected KEY=VALUE with a key among {', '.join(known)}"
                )
            try:
                put_value(changes, [key, *inner], read_value(value))
            except ValueError as error:
                raise ValueError(f"--set {setting}: {error}") from None
        try:
            return Recipe.model_validate(changes)
        except ValidationError as error:
            raise ValueError(f"--set {' '.join(settings)}: {wrong(error)}") from None

    def save(self, path: Path) -> None:
        """Write as JSON."""
        path.write_text(self.model_dump_json(indent=2) + "\n")

    @classmethod
    def read(cls, path: Path, allow_code: bool = False) -> Recipe:
        """Read what `save` wrote.

        Args:
            path: of the JSON file.
            allow_code: accept names of code in it, for a caller who trusts the file or does not run the recipe.

        Raises:
            ValueError: the file is not JSON, a value does not fit, or it names code that is not allowed; one line.
        """
        try:
            recipe = cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise ValueError(f"{path}: {wrong(error)}") from None
        if not allow_code:
            check_code(recipe, path)
        return recipe


def wrong(error: ValidationError) -> str:
    """What is wrong with a recipe in one line, without pydantic's frame around it."""
    first = error.errors()[0]
    where = ".".join(str(x) for x in first["loc"])
    if first["type"] == "extra_forbidden":
        key = str(first["loc"][-1])
        hint = did_you_mean(key, {f for model in (Recipe, Source) for f in model.model_fields} - {key})
        return f"a recipe has no {where}{hint}"
    said = str(first["msg"]).removeprefix("Value error, ")
    if not where or first["type"] == "value_error":
        return said
    found = first.get("input")
    return f"{where}: {said}" + (f", not {found!r}" if isinstance(found, str | int | float) else "")
