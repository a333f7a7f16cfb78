"""Protocols: how a prediction is computed; each class prepares training inputs and runs inference."""

from typing import Annotated

from pydantic import Field, ValidationError

from .model_input import (
    DenoiseFn as DenoiseFn,
    DenoiserOutput as DenoiserOutput,
    ModelInput as ModelInput,
    collate as collate,
    expand_class_labels as expand_class_labels,
)
from .multi_step import MultiStep as MultiStep
from .noise import Noise as Noise, multi_resolution as multi_resolution
from .one_step import OneStep as OneStep


def reason(error: ValueError) -> str:
    """One-line message of a protocol's validation error, without pydantic's header."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        where = ".".join(str(x) for x in first["loc"])
        message = str(first["msg"]).removeprefix("Value error, ")
        return f"{where}: {message}" if where else message
    return str(error)


# Files distinguish them by their ``kind``.
Protocol = Annotated[OneStep | MultiStep, Field(discriminator="kind")]
