"""Heads in files: a folder a task, and one more for each part that several of them have together.

``heads/<task>/`` holds the arguments in ``config.json`` and the weights. A part that heads share is kept once, in
``heads/<task>+<task>/``, and ``shared.json`` beside each of these tasks' own weights says which part is to be found
where, such as ``{"fusion": "depth+normals"}``. It is one module again when it is read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_type_hints

import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError
from safetensors.torch import save_file
from torch import nn

from ..heads import Head, find_shared, get_head
from ..io import safe_output_path
from .components import LoadOptions
from .strict import ModelError, Tensors, checked_name, damaged, load_strictly, read_json, wrong_value

_STRICT = ConfigDict(strict=True, allow_inf_nan=False)
SHARED = "shared.json"


def save_heads(heads: Mapping[str, Head], folder: Path, dtype: torch.dtype) -> None:
    """Write ``heads``, by task, below ``folder``, which has none of them yet.

    Raises:
        UnsafeNameError: a task's name is no name of a folder.
    """
    elsewhere: dict[str, dict[str, str]] = {task: {} for task in heads}
    for part, module, tasks in find_shared(heads):
        name = "+".join(tasks)
        elsewhere |= {task: {**elsewhere[task], part: name} for task in tasks}
        found = {f"{part}.{k}": v for k, v in module.state_dict().items()}
        _save(found, safe_output_path(folder, name, "the tasks"), dtype)
    for task, head in heads.items():
        own = {
            k: v
            for k, v in head.state_dict().items()
            if not k.startswith(tuple(f"{p}." for p in elsewhere[task]))
        }
        place = safe_output_path(folder, task, "the task")
        _save(own, place, dtype)
        (place / "config.json").write_text(json.dumps(head.config, indent=2) + "\n")
        if elsewhere[task]:
            (place / SHARED).write_text(json.dumps(elsewhere[task], indent=2) + "\n")


def _save(tensors: Tensors, folder: Path, dtype: torch.dtype) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_file({k: v.to(dtype).contiguous() for k, v in tensors.items()}, folder / "model.safetensors")


def open_heads(folder: Path, kinds: Mapping[str, str], options: LoadOptions) -> dict[str, Head]:
    """Heads by task, of the ``kinds`` told, from what `save_heads` wrote; parts that are shared are one module.

    Raises:
        ModelError: something is missing or does not fit.
    """
    heads: dict[str, Head] = {}
    parts: dict[tuple[str, str], nn.Module] = {}
    for task, kind in kinds.items():
        checked_name(task, folder, "the task")
        head = _described(folder / task, kind)
        tensors = options.tensors(folder / task)
        shared = _shared(folder / task, head)
        for part, name in shared.items():
            if (part, name) not in parts:
                tensors |= options.tensors(folder / name)
            else:
                tensors |= {f"{part}.{k}": v for k, v in parts[part, name].state_dict().items()}
        load_strictly(head, tensors, folder / task, options.dtype)
        for part, name in shared.items():
            setattr(head, part, parts.setdefault((part, name), head.get_submodule(part)))
        heads[task] = head
    return heads


# Upper bounds of options that no weight's shape bounds: edges of pooling grids, upsampling factors.
_LARGEST = {"pools": 64, "stride": 64}
_MOST = 1 << 16


def _described(folder: Path, kind: str) -> Head:
    """A head as its ``config.json`` says, on the meta device."""
    path = folder / "config.json"
    config = read_json(path)
    try:
        head = get_head(kind, trusted=False)
    except ValueError as error:
        raise ModelError(f"{path}: {error}") from error
    known = {k: v for k, v in get_type_hints(head.__init__).items() if k != "return"}
    for name, value in config.items():
        if name not in known:
            raise ModelError(
                f"{path}: a {kind} head has no {name!r}; its options: {', '.join(known) or 'none'}"
            )
        try:
            TypeAdapter(known[name], config=_STRICT).validate_python(value)
        except ValidationError as error:
            raise ModelError(f"{path}: {name}: {wrong_value(error)}") from error
        _check_range(value, _LARGEST.get(name, _MOST), f"{path}: {name}")
    with damaged(path, f"config of a {kind} head"), torch.device("meta"):
        return head(**config)


def _check_range(value: Any, most: int, where: str) -> None:
    """Refuse numbers from which absurd sizes would follow, and long lists and texts."""
    if isinstance(value, list):
        if len(value) > 512:
            raise ModelError(f"{where} has {len(value)} entries; expected at most 512")
        for part in value:
            _check_range(part, most, where)
    elif isinstance(value, str):
        if len(value) > 1000:
            raise ModelError(f"{where} has {len(value)} characters; expected at most 1000")
    elif isinstance(value, int | float) and not 0 <= value <= most:
        raise ModelError(f"{where} is {value!r}; expected 0 to {most}")


def _shared(folder: Path, head: Head) -> dict[str, str]:
    """Which parts of a head are kept elsewhere, and the folders beside its own that they are in."""
    path = folder / SHARED
    if not path.exists():
        return {}
    found: dict[str, Any] = read_json(path)
    for part, name in found.items():
        known = head.shared_modules
        if part not in known:
            raise ModelError(
                f"{path} has the part {part!r}; this head shares {', '.join(known) or 'nothing'}"
            )
        checked_name(name, path, f"the folder of {part}")
    return found
