"""Files of heads: one folder per task, and one for each module that several of them share.

``heads/<task>/`` holds the arguments in ``config.json`` and the weights. A shared module is stored once, in
``heads/<task>+<task>/``; ``shared.json`` in the folders of these tasks maps its name to that folder, such as
``{"fusion": "depth+normals"}``. When it is read it is one module again.
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
    """Write ``heads``, by task, into new folders below ``folder``.

    Raises:
        UnsafeNameError: a task's name is not a valid folder name.
    """
    shared: dict[str, dict[str, str]] = {task: {} for task in heads}
    for part, module, tasks in find_shared(heads):
        name = "+".join(tasks)
        shared |= {task: {**shared[task], part: name} for task in tasks}
        found = {f"{part}.{k}": v for k, v in module.state_dict().items()}
        _save(found, safe_output_path(folder, name, "the tasks"), dtype)
    for task, head in heads.items():
        own = {
            k: v
            for k, v in head.state_dict().items()
            if not k.startswith(tuple(f"{p}." for p in shared[task]))
        }
        own_folder = safe_output_path(folder, task, "the task")
        _save(own, own_folder, dtype)
        (own_folder / "config.json").write_text(json.dumps(head.config, indent=2) + "\n")
        if shared[task]:
            (own_folder / SHARED).write_text(json.dumps(shared[task], indent=2) + "\n")


def _save(tensors: Tensors, folder: Path, dtype: torch.dtype) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_file({k: v.to(dtype).contiguous() for k, v in tensors.items()}, folder / "model.safetensors")


def open_heads(folder: Path, kinds: Mapping[str, str], options: LoadOptions) -> dict[str, Head]:
    """Read heads that `save_heads` wrote, by task and kind; shared modules are one module.

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


# Upper bounds of options that are not bounded by the shape of a weight: pooling grids, upsampling factors.
_LARGEST = {"pools": 64, "stride": 64}
_MOST = 1 << 16


def _described(folder: Path, kind: str) -> Head:
    """A head with the arguments in its ``config.json``, on the meta device."""
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
    """ModelError for numbers out of range, and for long lists and strings."""
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
    """The shared modules of a head, and the sibling folders that hold them."""
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
