"""Protocols: how a prediction is computed; each class prepares training inputs and runs inference."""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Annotated, Any

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


def with_settings(protocol: OneStep | MultiStep, changes: Mapping[str, Any]) -> OneStep | MultiStep:
    """A protocol with other settings; other ``steps`` replace explicit ``timesteps``.

    Raises:
        ValueError: the protocol has no such setting or does not allow the value.
    """
    known = {f.name for f in fields(protocol)}
    for name in changes:
        if name not in known:
            raise ValueError(f"the protocol {protocol.kind} of this model has no setting {name!r}")
    if "steps" in changes and isinstance(protocol, MultiStep) and protocol.timesteps is not None:
        changes = {"timesteps": None, **changes}
    try:
        return replace(protocol, **changes)
    except ValidationError as error:
        raise ValueError(f"this model does not allow these settings: {reason(error)}") from None


# Files distinguish them by their ``kind``.
Protocol = Annotated[OneStep | MultiStep, Field(discriminator="kind")]
