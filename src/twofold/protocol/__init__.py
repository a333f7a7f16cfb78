"""How an answer is reached: what the network is shown in training and in use, side by side in one class."""

from typing import Annotated

from pydantic import Field

from .multi_step import MultiStep
from .noise import Noise, multi_resolution
from .one_step import OneStep
from .query import Answer, Look, Query

# Told apart in files by their ``kind``.
Protocol = Annotated[OneStep | MultiStep, Field(discriminator="kind")]

__all__ = [
    "Answer",
    "Look",
    "MultiStep",
    "Noise",
    "OneStep",
    "Protocol",
    "Query",
    "multi_resolution",
]
