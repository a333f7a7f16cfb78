"""How an answer is reached: what the network is shown in training and in use, side by side in one class."""

from typing import Annotated

from pydantic import Field, ValidationError

from .model_input import DenoiseFn, DenoiserOutput, ModelInput, collate
from .multi_step import MultiStep
from .noise import Noise, multi_resolution
from .one_step import OneStep


def reason(error: ValueError) -> str:
    """What is wrong with a protocol's settings, in one line, without pydantic's frame around it."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        where = ".".join(str(x) for x in first["loc"])
        said = str(first["msg"]).removeprefix("Value error, ")
        return f"{where}: {said}" if where else said
    return str(error)


# Told apart in files by their ``kind``.
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
    "multi_resolution",
    "reason",
]
