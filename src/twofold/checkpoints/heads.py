"""Reads and writes heads: one folder for each task, and one for each module that several heads share.

``heads/<task>/`` has the arguments in ``config.json`` and the weights. A shared module is stored once, in
``heads/<task>+<task>/``; ``shared.json`` in the folders of these tasks maps the name of the module to that folder, such
as ``{"fusion": "depth+normals"}``. The heads that `open_heads` returns share the module again.
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
    for name, module, tasks in find_shared(heads):
        shared_folder = "+".join(tasks)
        shared |= {task: {**shared[task], name: shared_folder} for task in tasks}
        tensors = {f"{name}.{k}": v for k, v in module.state_dict().items()}
        _save(tensors, safe_output_path(folder, shared_folder, "the tasks"), dtype)
    for task, head in heads.items():
        prefixes = tuple(f"{name}." for name in shared[task])
        unshared = {k: v for k, v in head.state_dict().items() if not k.startswith(prefixes)}
        head_folder = safe_output_path(folder, task, "the task")
        _save(unshared, head_folder, dtype)
        (head_folder / "config.json").write_text(json.dumps(head.config, indent=2) + "\n")
        if shared[task]:
            (head_folder / SHARED).write_text(json.dumps(shared[task], indent=2) + "\n")


def _save(tensors: Tensors, folder: Path, dtype: torch.dtype) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_file({k: v.to(dtype).contiguous() for k, v in tensors.items()}, folder / "model.safetensors")


def open_heads(folder: Path, kinds: Mapping[str, str], options: LoadOptions) -> dict[str, Head]:
    """Read heads that `save_heads` wrote; a shared module is the same object in several heads.

    Args:
        folder: folder of the heads.
        kinds: name or class of the head of each task, see `heads.get_head`.
        options: options of reading weights.

    Raises:
        ModelError: a file is missing or damaged, or a tensor does not fit.
    """
    heads: dict[str, Head] = {}
    modules: dict[tuple[str, str], nn.Module] = {}
    for task, kind in kinds.items():
        checked_name(task, folder, "the task")
        head = _empty_head(folder / task, kind)
        tensors = options.tensors(folder / task)
        shared = _shared(folder / task, head)
        for name, shared_folder in shared.items():
            if (name, shared_folder) not in modules:
                tensors |= options.tensors(folder / shared_folder)
            else:
                tensors |= {f"{name}.{k}": v for k, v in modules[name, shared_folder].state_dict().items()}
        load_strictly(head, tensors, folder / task, options.dtype)
        for name, shared_folder in shared.items():
            setattr(head, name, modules.setdefault((name, shared_folder), head.get_submodule(name)))
        heads[task] = head
    return heads


# Upper bounds of options that no shape of a weight bounds (pooling grids, upsampling factors), and of all others.
_MAX_BY_OPTION = {"pools": 64, "stride": 64}
_MAX = 1 << 16


def _empty_head(folder: Path, kind: str) -> Head:
    """Build a head with the arguments in its ``config.json``, on the meta device."""
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
        _check_range(value, _MAX_BY_OPTION.get(name, _MAX), f"{path}: {name}")
    with damaged(path, f"config of a {kind} head"), torch.device("meta"):
        return head(**config)


def _check_range(value: Any, maximum: int, where: str) -> None:
    """ModelError if a number is out of range, or a list or string is too long."""
    if isinstance(value, list):
        if len(value) > 512:
            raise ModelError(f"{where} has {len(value)} entries; expected at most 512")
        for item in value:
            _check_range(item, maximum, where)
    elif isinstance(value, str):
        if len(value) > 1000:
            raise ModelError(f"{where} has {len(value)} characters; expected at most 1000")
    elif isinstance(value, int | float) and not 0 <= value <= maximum:
        raise ModelError(f"{where} is {value!r}; expected 0 to {maximum}")


def _shared(folder: Path, head: Head) -> dict[str, str]:
    """The folder of each shared module of a head, by name of the module."""
    path = folder / SHARED
    if not path.exists():
        return {}
    folders: dict[str, Any] = read_json(path)
    for name, shared_folder in folders.items():
        if name not in head.shared_modules:
            known = ", ".join(head.shared_modules) or "nothing"
            raise ModelError(f"{path} has the module {name!r}; this head shares {known}")
        checked_name(shared_folder, path, f"the folder of {name}")
    return folders
