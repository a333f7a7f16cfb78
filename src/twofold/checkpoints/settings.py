"""The settings of a model that ``twofold.json`` stores with a checkpoint."""

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
    """Settings of one task: an `OutputConfig` with a protocol and a head.

    Attributes:
        task: name of the task, if it is not the key in `ModelSettings.tasks`; several keys may be of the same task.
        protocol: inference protocol.
        head: one of `heads.HEADS` or ``package.module:Name``; its weights, if it has any, are in ``heads/<key>``.
        prompt: prompt that the text encoder encodes.
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
    """The contents of ``twofold.json``.

    Attributes:
        schema_: name and version of the format.
        name: name of the model.
        size: length in pixels that ``edge`` of an image is resized to; 0 keeps the size of images.
        edge: the resized edge: the longest, the shortest, or both, which resizes images to a square.
        image_encoder: name of the image encoder in the folder ``image_encoder``; empty without one.
        headless: whether the network has no output layer, because heads read its features.
        generates: whether the network generates images from captions; None if it is not recorded.
        tasks: settings by task, in the order of lists for users; names have to be safe names of files and folders.
        licence: licence of the weights.
        trained_on: data sets and their licences, as text.
        recipes: names of the training runs, first to last.
        code_version: version of twofold that saved the checkpoint.
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
        """The settings after a run that trained more tasks.

        Args:
            names: names of the trained tasks.
            protocol: protocol of these tasks.
            recipe: name of the run.
            head: name of the head.
            prompts: prompts by task, if they are not the tasks' defaults.
            pad: whether prompts were padded to the maximum length.
            clip: how vectors are clipped.
            image_features: whether the maps of the image encoder were passed to the network.
            resize: how maps are resized to the size of the image.
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
