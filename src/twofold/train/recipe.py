"""Everything a training run depends on, as one frozen record that is saved beside the weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from ..io import check_name
from ..suggest import nearest
from ..tasks import get_task
from .code import check_code
from .config import IMAGE, DataConfig, EmaConfig, LoopConfig, OptimizerConfig, RecipeSection, ValidationConfig
from .model_config import AutoencoderConfig, DenoiserConfig, ModelConfig, NetworkConfig
from .override import by_name, check_keys, field_paths, merge, put_value, read_value, unknown_key
from .source import Source


class Recipe(RecipeSection):
    """The settings of a training run. Unknown keys are errors.

    Attributes:
        name: of the run, and of its folder by default.
        model: the model, its initial weights and trained parts; its type is the kind of the run (`AutoencoderConfig`,
            `DenoiserConfig`, `NetworkConfig`).
        data: training examples.
        loss: by task, weights of its losses in place of the task's own.
        optimizer: and its schedule.
        ema: averaged weights.
        loop: steps, batches, precision, seed.
        validation: scores during the run.
    """

    name: str
    model: ModelConfig
    data: DataConfig
    loss: dict[str, dict[str, float]] = Field(default_factory=dict)
    optimizer: OptimizerConfig = OptimizerConfig()
    ema: EmaConfig = EmaConfig()
    loop: LoopConfig = LoopConfig()
    validation: ValidationConfig = ValidationConfig()

    @property
    def tasks(self) -> tuple[str, ...]:
        """The perception tasks, sorted."""
        return self.data.tasks

    @property
    def clipping(self) -> Literal["mean", "channels"]:
        """How predicted vectors are clipped: GenPercept's release clips each channel."""
        return "channels" if self.data.compat == "genpercept" else "mean"

    @property
    def joint_tasks(self) -> bool:
        """Whether an image is trained for all its tasks at once."""
        return self.model.kind == "network" or self.data.tasks_per_image == "all"

    @property
    def pixel_loss_weight(self) -> float:
        """Weight of the tasks' own losses; 1 for a user-defined network, which has no other losses."""
        return self.model.pixel_loss_weight if isinstance(self.model, DenoiserConfig) else 1.0

    @property
    def denoiser(self) -> DenoiserConfig:
        """The settings of the denoising network.

        Raises:
            TypeError: the run is of another kind.
        """
        if not isinstance(self.model, DenoiserConfig):
            raise TypeError(f"{self.name} is of kind {self.model.kind!r}, not 'denoiser'")
        return self.model

    @property
    def reset(self) -> tuple[str, ...]:
        """Parts of the initial model to reinitialize."""
        return () if isinstance(self.model, NetworkConfig) else self.model.reset

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, name: str) -> str:
        return check_name(name, "the recipe's name")

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        for name in self.tasks:
            if ":" not in name:  # a user-defined task is imported when it is needed
                get_task(name)
        prompts = self.model.prompts if isinstance(self.model, DenoiserConfig) else {}
        for name in {*self.loss, *prompts} - {*self.tasks}:
            raise ValueError(f"loss or prompts name {name!r}, which is not in task_weights")
        self._check_validation()
        self._check_teacher()
        if isinstance(self.model, AutoencoderConfig):
            self._check_autoencoder()
        elif isinstance(self.model, NetworkConfig):
            if IMAGE in self.data.task_weights:
                raise ValueError(
                    "a user-defined network generates no images: task_weights has its tasks, as in {'depth': 1}"
                )
        else:
            self._check_denoiser(self.model)
        return self

    def _check_validation(self) -> None:
        validation = self.validation
        if validation.best_metric and not (validation.data and validation.every and self.tasks):
            raise ValueError(
                f"best_metric={validation.best_metric!r} needs a task, validation.data, and validation.every above 0"
            )

    def _check_teacher(self) -> None:
        teacher = any(s.labels == "teacher" for s in self.data.sources)
        if teacher and self.model.kind != "autoencoder" and not self.ema.decay:
            raise ValueError("labels='teacher' needs averaged weights: ema.decay must be above 0")
        if self.reset and self.data.has_teacher_labels:
            raise ValueError(
                f"labels='teacher' takes labels from the average of a trained model, and reset={list(self.reset)} "
                "would make that random; leave reset out, or use the labels stored with the images (labels='stored')"
            )

    def _check_autoencoder(self) -> None:
        for key in ("random_crop", "tasks_per_image"):
            if getattr(self.data, key) not in (None, "one"):
                raise ValueError(f"{key} is for perception tasks, and an autoencoder has none; leave it out")

    def _check_denoiser(self, model: DenoiserConfig) -> None:
        if model.head.lr and not self.optimizer.lr:
            raise ValueError(
                "head.lr is above 0 and optimizer.lr is 0: nothing would be trained; use unet='frozen' instead"
            )
        if self.data.tasks_per_image == "all" and not self.tasks:
            raise ValueError(
                "tasks_per_image='all' is for perception tasks, and this recipe trains none; leave it out"
            )
        if self.tasks:
            model.check_tasks()
        if IMAGE in self.data.task_weights:
            model.check_image_task()
            if self.tasks and model.protocol.channels(1) != 1:
                raise ValueError(
                    f"the image task has one latent as input, and this protocol {model.protocol.channels(1)} "
                    f"(condition={model.protocol.condition!r}); remove it from task_weights, or use condition='replace'"
                )

    def replace(self, **changes: Any) -> Recipe:
        """A validated copy with other values: ``replace(name="x", optimizer={"lr": 1e-4})``.

        A mapping for a nested part changes some of its fields; other values replace the field.

        Raises:
            ValueError: a value does not fit, or a key is unknown; one line.
        """
        try:
            return Recipe.model_validate(merge(self, changes))
        except ValidationError as error:
            raise ValueError(error_text(error)) from None

    def equals(self, other: Recipe) -> bool:
        """Whether both give the same weights: ``data.num_workers`` may differ."""
        return self == other.replace(data={"num_workers": self.data.num_workers})

    def override(self, settings: Sequence[str]) -> Recipe:
        """Apply ``path=value`` strings; values are JSON, JSON values between commas, or plain text.

        Paths go through parts, mappings and lists: ``optimizer.lr=1e-4``, ``data.size=384,512``,
        ``loss.depth.ssi=1``, ``data.sources.0.share=2``.

        Raises:
            ValueError: a string without ``=``, an unknown key, or a value that does not fit.
        """
        changes = self.model_dump(mode="json")
        for setting in settings:
            path, found, value = setting.partition("=")
            keys = path.split(".")
            try:
                if not found:
                    raise ValueError("expected KEY=VALUE, such as optimizer.lr=1e-4")
                if keys[0] not in Recipe.model_fields:
                    raise ValueError(unknown_key(keys[0], Recipe, field_paths(Recipe)))
                check_keys(self, keys)
                put_value(changes, keys, read_value(value))
            except ValueError as error:
                raise ValueError(f"--set {setting}: {error}") from None
        try:
            return Recipe.model_validate(changes)
        except ValidationError as error:
            raise ValueError(f"--set {' '.join(settings)}: {error_text(error)}") from None

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
            raise ValueError(f"{path}: {error_text(error)}") from None
        if not allow_code:
            check_code(recipe, path)
        return recipe


def error_text(error: ValidationError) -> str:
    """The first problem of a validation error in one line, without pydantic's wrapping."""
    first = error.errors()[0]
    where = _dotted(first["loc"])
    if first["type"] == "extra_forbidden":
        name = str(first["loc"][-1])
        paths = list(field_paths(Recipe)) + [f"data.sources.{key}" for key in Source.model_fields]
        leaves = by_name(path for path in paths if path != where)
        near = nearest(name, leaves)
        return f"a recipe has no {where}" + (f" (did you mean {leaves[near]!r}?)" if near else "")
    message = str(first["msg"]).removeprefix("Value error, ")
    if not where or first["type"] == "value_error":
        return message
    found = first.get("input")
    return f"{where}: {message}" + (f", not {found!r}" if isinstance(found, str | int | float) else "")


def _dotted(location: tuple[int | str, ...]) -> str:
    """A location of a pydantic error as a dotted path, without the tags of unions."""
    tagged = {"model": ("autoencoder", "denoiser", "network"), "protocol": ("one_step", "multi_step")}
    before = ("", *location)
    return ".".join(
        str(key) for last, key in zip(before, location, strict=False) if key not in tagged.get(str(last), ())
    )
