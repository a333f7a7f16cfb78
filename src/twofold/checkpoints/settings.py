"""``twofold.json``: the settings that are stored with a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from ..heads import HEADS
from ..image.resize import OutputResize
from ..io import check_name
from ..named_code import names_code
from ..predict.batching import Edge
from ..predict.config import Line, OutputConfig
from ..protocols import MultiStep, OneStep, Protocol
from ..suggest import unknown
from ..tasks import get_task

# An edge of an image in pixels; 0 keeps the image's size.
ImageSize = Annotated[int, Field(ge=0, le=8192)]


class TaskSettings(OutputConfig):
    """How one task is predicted: an `OutputConfig` with a protocol and a head.

    Attributes:
        task: name of the task if it is not the key in `ModelSettings.tasks`; two keys may predict one task in two ways.
        protocol: how the prediction is computed.
        head: one of `heads.HEADS` or ``package.module:Name``; its weights, if it has any, are in ``heads/<key>``.
        prompt: of the text encoder.
    """

    task: Line = ""
    protocol: Protocol = OneStep()
    head: Line = "latent"
    prompt: Line = ""

    @field_validator("head")
    @classmethod
    def _known_head(cls, value: str) -> str:
        if value not in HEADS and not names_code(value):
            raise ValueError(unknown("head", value, HEADS))
        return value


class ModelSettings(BaseModel):
    """The whole of ``twofold.json``.

    Attributes:
        schema_: version of this file's layout.
        name: of the model.
        size: edge in pixels that images are resized to; 0 keeps their size.
        edge: which edge: the longest, the shortest, or both, which resizes images to a square.
        image_encoder: name of the image encoder, in the folder ``image_encoder``; empty without one.
        headless: whether the network has no output layer, because heads read its features.
        generates: whether the network denoises images from captions; None if it is not recorded.
        tasks: by name, in the order they are listed to users. A name is also that of files and folders, and is checked.
        licence: of the weights.
        trained_on: data sets and their licences, as text.
        recipes: names of the runs that made the weights, first to last.
        code_version: of twofold when saved.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)
    schema_: Literal["twofold-model/1"] = Field(default="twofold-model/1", alias="schema")
    name: Line = "unnamed"
    size: ImageSize = 256
    edge: Edge = "longest"
    headless: bool = False
    image_encoder: Line = ""
    generates: bool | None = None
    tasks: Annotated[dict[str, TaskSettings], Field(max_length=256)] = Field(default_factory=dict)
    licence: str = "unstated"
    trained_on: tuple[str, ...] = ()
    recipes: tuple[str, ...] = ()
    code_version: str = ""

    @field_validator("tasks")
    @classmethod
    def _checked_names(cls, value: dict[str, TaskSettings]) -> dict[str, TaskSettings]:
        for name in value:
            check_name(name, "the task")
        return value

    def with_tasks(
        self,
        names: Sequence[str],
        protocol: OneStep | MultiStep,
        recipe: str,
        head: str = "latent",
        prompts: Mapping[str, str] | None = None,
        pad: bool = False,
        clip: Literal["mean", "channels"] = "mean",
        image_features: bool = False,
        resize: OutputResize = "bilinear",
    ) -> ModelSettings:
        """The settings after a run that trained ``names`` with ``protocol`` and ``head``.

        ``prompts`` are those that differ from the tasks' defaults, by name; ``pad`` is whether they were padded;
        ``clip`` how vectors are clipped; ``image_features`` whether the image encoder's maps were passed to the
        network; ``resize`` how maps are resized to the input's size.
        """
        tasks = dict(self.tasks)
        for name in names:
            task = get_task(name)
            tasks[task.name] = TaskSettings(
                task="" if task.name == name else name,
                protocol=protocol,
                head=head,
                prompt=(prompts or {}).get(name, task.prompt),
                pad=pad,
                space=task.space,
                frame=task.frame,
                clip=clip if task.frame else "mean",
                image_features=image_features,
                resize=resize,
            )
        return self.model_copy(update={"tasks": tasks, "recipes": (*self.recipes, recipe)})
