"""Protocols: how a prediction is computed; each class prepares training inputs and runs inference."""

from typing import Annotated

from pydantic import Field, ValidationError

from .model_input import DenoiseFn, DenoiserOutput, ModelInput, collate, expand_class_labels
from .multi_step import MultiStep
from .noise import Noise, multi_resolution
from .one_step import OneStep


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

__all__ = [
    "DenoiserOutput",
    "DenoiseFn",
    "MultiStep",
    "Noise",
    "OneStep",
    "Protocol",
    "ModelInput",
    "collate",
    "expand_class_labels",
    "multi_resolution",
    "reason",
]
