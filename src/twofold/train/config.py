"""The parts of a recipe that are the same for every kind of run: data, optimizer, EMA, loop, validation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from .random_crop import RandomCrop
from .source import Size, Source

# The task of `DataConfig.task_weights` that trains diffusion of images under captions.
IMAGE = "image"

Beta = Annotated[float, Field(ge=0, lt=1)]


class RecipeSection(BaseModel):
    """A frozen record; unknown keys and non-finite numbers are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DataConfig(RecipeSection):
    """The training examples and how they are drawn.

    Attributes:
        sources: labelled or unlabelled data folders; a folder without a task's target is used for the other tasks.
        task_weights: relative frequency of each task in the examples: ``image`` (text-to-image diffusion) and names of
            perception tasks. Exact, like the sources' shares.
        tasks_per_image: ``one``: an example is an image with one task. ``all``: it is an image with every task that it
            has a target of, its loss is the sum over them, and tasks of one prompt share one forward pass. Batch sizes
            and ``ema.update_every`` then count images; tasks of equal weight are drawn together, each image once before
            any is drawn twice. A user-defined network is always trained this way.
        block_size: number of consecutive examples from one source for one task. 1 mixes example by example,
            ``batch_size`` batch by batch; GenPercept mixes micro-batch by micro-batch.
        size: height and width of a training example, pixels; images are scaled to cover it and cropped.
        resample: how images are resized to ``size``: ``bilinear`` with antialiasing, ``nearest``, or ``genpercept``: as
            its released loader does, see `compat.genpercept_loader`.
        compat: ``genpercept`` trains tasks with the quirks of that release (`twofold.compat.genpercept`); with
            ``resample="genpercept"`` the examples are those of its loader.
        hflip: mirror half of the examples.
        augment: draw a new zoomed crop and color distortion each time and encode it then, instead of crops of encoded
            images.
        random_crop: with ``augment``, crops as in semantic segmentation (`random_crop.RandomCrop`).
        cache_latents: cache latents on disk; otherwise images are encoded when they are drawn, with equal results.
        num_workers: worker processes of each training process, which load examples ahead and prepare samples for
            encoding; 0 loads them when they are needed, null is up to 4 with a GPU and 0 on a CPU. Results do not
            depend on it, so a run can be resumed with another number.
        label_limit: number of labelled samples used for each task; 0 is all.
        skip_bad: skip samples that cannot be read and list them, instead of stopping at the first.
    """

    sources: tuple[Source, ...]
    task_weights: dict[str, float] = Field(default_factory=lambda: {IMAGE: 1.0})
    tasks_per_image: Literal["one", "all"] = "one"
    block_size: int = Field(1, ge=1)
    size: Size = (192, 256)
    resample: Literal["bilinear", "nearest", "genpercept"] = "bilinear"
    compat: Literal["", "genpercept"] = ""
    hflip: bool = True
    augment: bool = False
    random_crop: RandomCrop | None = None
    cache_latents: bool = True
    num_workers: int | None = Field(None, ge=0)
    label_limit: int = Field(0, ge=0)
    skip_bad: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> DataConfig:
        if not any(s.share for s in self.sources):
            raise ValueError("a recipe needs a source with a share above 0")
        weights = self.task_weights.values()
        if not any(weights) or min(weights) < 0:
            raise ValueError("task_weights needs weights of 0 or more, one of them above 0")
        if self.resample == "genpercept" and self.augment:
            raise ValueError("GenPercept's loader draws no crops: resample='genpercept' needs augment=false")
        if self.random_crop and not (self.augment and self.tasks):
            raise ValueError(
                "random_crop is for perception tasks with augment=true, and this recipe has "
                + (
                    "no tasks; leave it out"
                    if self.augment
                    else "augment=false; set augment=true, or leave it out"
                )
            )
        return self

    @property
    def tasks(self) -> tuple[str, ...]:
        """The perception tasks, sorted."""
        return tuple(sorted(k for k in self.task_weights if k != IMAGE))

    @property
    def has_teacher_labels(self) -> bool:
        """Whether a source that is drawn from is labelled by the EMA teacher."""
        return any(s.labels == "teacher" and s.share for s in self.sources)


class OptimizerConfig(RecipeSection):
    """The optimizer and its learning rate schedule; see `optimizer.learning_rate`.

    Attributes:
        name: ``adamw`` or ``adam``.
        lr: peak learning rate.
        betas, eps, weight_decay: see `torch.optim.AdamW`.
        max_grad_norm: gradients are clipped to this norm; 0 does not clip.
        schedule: of the learning rate. ``onecycle`` has its own warm-up, and also sets the first of ``betas``.
        warmup_steps: of the schedule.
        decay_steps: number of steps after which the schedule ends; 0 is all.
        final_lr_ratio: learning rate at the end, relative to ``lr``.
    """

    name: Literal["adamw", "adam"] = "adamw"
    lr: float = Field(1e-3, ge=0)
    betas: tuple[Beta, Beta] = (0.9, 0.99)
    eps: float = Field(1e-8, ge=0)
    weight_decay: float = Field(0.01, ge=0)
    max_grad_norm: float = Field(1.0, ge=0)
    schedule: Literal["cosine", "exponential", "linear", "poly", "constant", "onecycle"] = "cosine"
    warmup_steps: int = Field(100, ge=0)
    decay_steps: int = Field(0, ge=0)
    final_lr_ratio: float = Field(0.05, ge=0)

    @model_validator(mode="after")
    def _one_warmup(self) -> OptimizerConfig:
        if self.schedule == "onecycle" and self.warmup_steps:
            raise ValueError(
                f"schedule='onecycle' warms up over its first 30 % of the steps, and the recipe has "
                f"warmup_steps={self.warmup_steps}; set warmup_steps=0"
            )
        return self


class EmaConfig(RecipeSection):
    """The exponential moving average of the weights, which is validated and saved.

    Attributes:
        decay: weight of the old average in an update; 0 disables averaging.
        update_every: examples between two updates of the average; 0 updates it with every step, and faster at first.
            Diff-2-in-1's teacher has a decay of 0.998 every 40 examples.
    """

    decay: float = Field(0.999, ge=0, lt=1)
    update_every: int = Field(0, ge=0)


class LoopConfig(RecipeSection):
    """The training loop.

    Attributes:
        steps: updates of the weights.
        batch_size: examples of an update, over all processes.
        micro_batch_size: examples of a forward pass in each process; 0 is all of the process's share. Gradients of the
            rest are accumulated before the update.
        precision: of the network's arithmetic; weights, losses and optimizer stay fp32.
        save_every: steps between two saved states; 0 saves the last one only.
        seed: of all randomness.
    """

    steps: int = Field(1000, ge=1)
    batch_size: int = Field(16, ge=1)
    micro_batch_size: int = Field(0, ge=0)
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    save_every: int = Field(250, ge=0)
    seed: int = 0


class ValidationConfig(RecipeSection):
    """Scores on held-out data during the run.

    Attributes:
        data: folder of the samples; None disables validation.
        every: steps between two validations; 0 validates after the last step only.
        num_samples: number of samples scored.
        best_metric: the score, such as ``normals/mean``, by which the best averaged weights are selected, including
            those before the first step; empty selects the last.
        patience: validations in a row without a better score after which the run ends; 0 trains all steps.
    """

    data: str | None = None
    every: int = Field(500, ge=0)
    num_samples: int = Field(64, ge=1)
    best_metric: str = ""
    patience: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _check_patience(self) -> ValidationConfig:
        if self.patience and not self.best_metric:
            raise ValueError("patience needs a score, such as best_metric='normals/mean'")
        return self
