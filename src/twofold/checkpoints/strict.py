"""Strict reading of weights: every tensor accounted for, or one line that names the one that is not."""

from __future__ import annotations

import json
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ..io import UnsafeNameError, check_name

Tensors = dict[str, Tensor]


class ModelError(ValueError):
    """A model that cannot be used; the message says which file or tensor and what to do."""


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a checkpoint file, or ModelError."""
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError:
        raise ModelError(f"{path} is missing; the checkpoint folder is incomplete, fetch it again") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelError(f"{path} is not readable JSON ({error}); fetch the checkpoint again") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} does not hold a JSON object; fetch the checkpoint again")
    return value


def checked_name(name: Any, where: Path, what: str) -> str:
    """A name out of the file or folder ``where``, if it may be that of one file or folder.

    Raises:
        ModelError: it is no such name.
    """
    try:
        return check_name(name, what)
    except UnsafeNameError as error:
        raise ModelError(f"{where}: {error}") from error


STEMS = ("diffusion_pytorch_model", "model")
OLD = ("diffusion_pytorch_model.bin", "pytorch_model.bin")


def weight_files(folder: Path, variant: str = "") -> list[Path]:
    """The weight files of one component: a safetensors file, the shards its index lists, or an old pickle.

    Args:
        folder: of the component.
        variant: of the files, such as ``fp16``; no other is taken in its place.

    Raises:
        ModelError: there are none, or a listed shard is missing.
    """
    dot = f".{variant}" if variant else ""
    for stem in STEMS:
        for index in (
            folder / f"{stem}.safetensors.index{dot}.json",
            folder / f"{stem}{dot}.safetensors.index.json",
        ):
            if index.exists():
                return _shards(folder, index)
        if (folder / f"{stem}{dot}.safetensors").exists():
            return [folder / f"{stem}{dot}.safetensors"]
    for name in OLD:
        path = folder / (name.removesuffix(".bin") + f"{dot}.bin")
        if path.exists():
            return [path]
    raise ModelError(f"{folder} has no .safetensors weights{_others(folder, variant)}")


def _shards(folder: Path, index: Path) -> list[Path]:
    listed = read_json(index).get("weight_map")
    if not isinstance(listed, dict):
        raise ModelError(f"{index} has no weight_map that lists its shards; fetch it again")
    names = dict.fromkeys(checked_name(name, index, "the shard") for name in listed.values())
    files = [folder / name for name in sorted(names)]
    absent = [f.name for f in files if not f.exists()]
    if absent or not files:
        lost = absent[0] if absent else "every shard"
        raise ModelError(f"{folder} lacks the shard {lost} that its index lists; fetch it again")
    return files


def _others(folder: Path, variant: str) -> str:
    there = sorted({p.name.split(".")[1] for p in folder.glob("*.*.safetensors") if p.name.count(".") == 2})
    if variant:
        return f" of the variant {variant!r}" + (f"; it has {', '.join(there)}" if there else "")
    if there:
        return f" of the plain variant, but {', '.join(there)}; ask for it with --variant {there[0]}"
    return "; fetch the checkpoint again, with its safetensors files"


def read_tensors(folder: Path, variant: str = "", **how: Any) -> Tensors:
    """All tensors of one component by key; see `read_file`."""
    tensors: Tensors = {}
    for path in weight_files(folder, variant):
        tensors.update(read_file(path, **how))
    return tensors


def read_file(path: Path, dtype: torch.dtype | None = None, meta: bool = False) -> Tensors:
    """All tensors of one file by key.

    Args:
        path: ``.safetensors``, or an old pickle (``.bin``, ``.ckpt``, ``.pt``, ``.pth``), of which only tensors are
            read: whatever else a pickle may hold is refused unread.
        dtype: of floating-point tensors, which are cast as they are read; as they are stored when None.
        meta: shapes only: nothing is read but the file's header.

    Raises:
        ModelError: the file is damaged, or holds code.
    """
    tensors = _safe(path, dtype, meta) if path.suffix == ".safetensors" else _pickled(path)
    cast = {k: v if dtype is None or not v.is_floating_point() else v.to(dtype) for k, v in tensors.items()}
    return {k: v.to("meta") for k, v in cast.items()} if meta else cast


def _safe(path: Path, dtype: torch.dtype | None, meta: bool) -> Tensors:
    try:
        with safe_open(path, framework="pt") as file:
            out = {}
            for key in file.keys():  # noqa: SIM118
                if meta:
                    out[key] = torch.empty(file.get_slice(key).get_shape(), device="meta")
                else:
                    # Cast one by one: the file as it is and the model need not be in memory together.
                    value = file.get_tensor(key)
                    out[key] = value if dtype is None or not value.is_floating_point() else value.to(dtype)
            return out
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is damaged or not safetensors ({error}); fetch it again") from error


class _Unread:
    """Stands for the training callback that the first Stable Diffusion files carry along; nothing of it is run."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def _harmless() -> list[Any]:
    """What may stand in an old pickle beside tensors: that callback, and numpy's numbers."""
    import _codecs

    import numpy as np
    from numpy._core import multiarray

    kinds = [type(np.dtype(k)) for k in ("float64", "float32", "int64", "int32")]
    lightning = "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint"
    return [
        (_Unread, lightning),
        multiarray.scalar,
        (multiarray.scalar, "numpy.core.multiarray.scalar"),
        np.dtype,
        _codecs.encode,
        *kinds,
    ]


def _pickled(path: Path) -> Tensors:
    if not path.stat().st_size:
        raise ModelError(f"{path} is empty; fetch it again")
    try:
        with torch.serialization.safe_globals(_harmless()):
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path} is a pickle that holds more than tensors{_named_code(error)}, and was not run; ask its author for "
            "safetensors"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise ModelError(
            f"{path} is damaged or no checkpoint ({str(error).splitlines()[0]}); fetch it again"
        ) from error
    for name in ("state_dict", "model"):  # Lightning's files, and Bae's
        if isinstance(found, dict) and isinstance(found.get(name), dict):
            found = found[name]
    if not isinstance(found, dict):
        raise ModelError(f"{path} holds a {type(found).__name__}, not a table of tensors")
    return {str(k): v for k, v in found.items() if isinstance(v, Tensor)}


def _named_code(error: pickle.UnpicklingError) -> str:
    """What a refused pickle would have called; nothing else of torch's message, which explains how to run it anyway."""
    found = re.search(r"GLOBAL ([\w.]+)", str(error))
    return f" ({found[1]})" if found else ""


def load_strictly(module: nn.Module, tensors: Tensors, where: Path, dtype: torch.dtype) -> None:
    """Put ``tensors`` into ``module``, cast to ``dtype``; no key may be missing, left over or misshapen.

    Raises:
        ModelError: names the first tensor that does not fit, and counts the rest.
    """
    wanted = module.state_dict()
    missing = sorted(set(wanted) - set(tensors))
    surplus = sorted(set(tensors) - set(wanted))
    misshapen = [k for k in sorted(set(wanted) & set(tensors)) if wanted[k].shape != tensors[k].shape]
    if missing:
        raise ModelError(
            f"{where} lacks the tensor {missing[0]}{_more(missing)}; is it the right checkpoint?"
        )
    if misshapen:
        key = misshapen[0]
        found, expected = tuple(tensors[key].shape), tuple(wanted[key].shape)
        raise ModelError(
            f"{where}: tensor {key} has shape {found}, config.json asks for {expected}{_more(misshapen)}; "
            "weights and config.json belong to different models"
        )
    if surplus:
        raise ModelError(
            f"{where} has the unexpected tensor {surplus[0]}{_more(surplus)}; is config.json the right one?"
        )
    cast = {k: v.to(dtype) if v.is_floating_point() else v for k, v in tensors.items()}
    module.load_state_dict(cast, assign=True)


def _more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""
