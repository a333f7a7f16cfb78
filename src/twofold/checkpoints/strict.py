"""Reads files of untrusted checkpoints and loads weights strictly: a missing or unexpected tensor is a ModelError."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from ..io import UnsafeNameError, check_name, first_line, quoted

Tensors = dict[str, Tensor]


class ModelError(ValueError):
    """A model cannot be used. The message names the file or tensor and what to do."""


# The largest JSON file of Stable Diffusion, the tokenizer's, has 2 MB. Parsed, JSON takes about ten times its size.
MAX_JSON_BYTES = 16 << 20


def read_json(path: Path) -> dict[str, Any]:
    """Read the JSON object in a file of a checkpoint. ModelError if there is none."""
    text = read_text(path)
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not readable JSON ({error}); fetch the checkpoint again") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} is not a JSON object; fetch the checkpoint again")
    return value


def read_text(path: Path) -> str:
    """Read the text in a small file of a checkpoint. ModelError if it cannot be read."""
    if not path.exists():
        raise ModelError(f"{path} is missing; the checkpoint folder is incomplete, fetch it again")
    if not path.is_file():
        raise ModelError(f"{path} is not a regular file; fetch the checkpoint again")
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise ModelError(
                f"{path} has {path.stat().st_size} bytes; no such file has more than {MAX_JSON_BYTES}, fetch it again"
            )
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} is not readable text ({error}); fetch the checkpoint again") from error


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not a number in JSON")


def wrong_value(error: ValidationError) -> str:
    """A line about the first error of a validation: where it is, what was found, and what was expected."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(x) for x in first["loc"])
    message = str(first["msg"]).removeprefix("Value error, ")
    found = first.get("input")
    shown = (
        f" is {quoted(repr(found), 60)[1:-1]}" if isinstance(found, str | int | float | bool | None) else ""
    )
    return f"{where}{shown}: {message}" if where else message


@contextmanager
def damaged(path: Path, kind: str) -> Generator[None]:
    """Context that converts errors of another library's parser to a ModelError about a damaged file.

    Parsers of damaged files raise many types of errors: KeyError, struct.error, AssertionError, RuntimeError, and
    tokenizers raise a plain Exception. So every error is attributed to the file.

    Args:
        path: path of the file.
        kind: what the file should be, for the message.

    Raises:
        ModelError: the body raised an error; a ModelError is not changed.
    """
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {first_line(error)[:200]}"
        raise ModelError(f"{path} is not a readable {kind} ({reason}); fetch it again") from error


def checked_name(name: Any, where: Path, noun: str) -> str:
    """Check that a name from the file ``where`` is a safe name of a file or folder, and return it.

    Raises:
        ModelError: the name is not safe; the message calls it ``noun``.
    """
    try:
        return check_name(name, noun)
    except UnsafeNameError as error:
        raise ModelError(f"{where}: {error}") from error


def load_strictly(module: nn.Module, tensors: Tensors, where: Path, dtype: torch.dtype) -> None:
    """Load ``tensors`` into ``module``, cast to ``dtype``; keys and shapes have to match exactly.

    Raises:
        ModelError: a tensor does not fit; the message has the first one and the number of others.
    """
    check_tensors(module, tensors, where)
    cast = {k: v.to(dtype) if v.is_floating_point() else v for k, v in tensors.items()}
    module.load_state_dict(cast, assign=True)


def check_tensors(module: nn.Module, tensors: Tensors, where: Path) -> None:
    """Check that ``tensors`` have the keys and shapes of ``module``, and are floating-point where it is.

    Raises:
        ModelError: a tensor does not fit; the message has the first one and the number of others.
    """
    needed = module.state_dict()
    missing = sorted(set(needed) - set(tensors))
    surplus = sorted(set(tensors) - set(needed))
    misshapen = [k for k in sorted(set(needed) & set(tensors)) if needed[k].shape != tensors[k].shape]
    if missing:
        raise ModelError(
            f"{where} lacks the tensor {missing[0]}{_more(missing)}; is it the right checkpoint?"
        )
    if misshapen:
        key = misshapen[0]
        found, expected = tuple(tensors[key].shape), tuple(needed[key].shape)
        raise ModelError(
            f"{where}: tensor {key} has shape {found}, config.json gives {expected}{_more(misshapen)}; "
            "weights and config.json belong to different models"
        )
    if surplus:
        raise ModelError(
            f"{where} has the unexpected tensor {surplus[0]}{_more(surplus)}; is config.json the right one?"
        )
    for key, value in tensors.items():
        if value.is_floating_point() != needed[key].is_floating_point() or value.is_complex():
            kind = "floating-point numbers" if needed[key].is_floating_point() else "integers"
            raise ModelError(f"{where}: tensor {key} has the dtype {value.dtype}; expected {kind}")


def _more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""
