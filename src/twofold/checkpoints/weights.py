"""Reading of weight files as tensors by key: safetensors, shards, and old pickles, of which only tensors are read."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from .strict import ModelError, Tensors, checked_name, damaged, read_json

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
        return f" of the plain variant, but {', '.join(there)}; pass --variant {there[0]}"
    return "; fetch the checkpoint again, with its safetensors files"


def read_tensors(folder: Path, variant: str = "", **how: Any) -> Tensors:
    """All tensors of one component by key; see `read_file`."""
    tensors: Tensors = {}
    for path in weight_files(folder, variant):
        found = read_file(path, **how)
        twice = sorted(tensors.keys() & found.keys())
        if twice:
            raise ModelError(f"{path} has the tensor {twice[0]}, which another shard has too; fetch it again")
        tensors.update(found)
    return tensors


def read_file(path: Path, dtype: torch.dtype | None = None, meta: bool = False) -> Tensors:
    """All tensors of one file by key.

    Args:
        path: ``.safetensors``, or an old pickle (``.bin``, ``.ckpt``, ``.pt``, ``.pth``), of which only tensors are
            read: any other content of a pickle is refused.
        dtype: of floating-point tensors, which are cast as they are read; as they are stored when None.
        meta: shapes only: nothing is read but the file's header.

    Raises:
        ModelError: the file is damaged, or holds code.
    """
    tensors = _safe(path, dtype, meta) if path.suffix == ".safetensors" else _pickled(path, meta)
    cast = {k: v if dtype is None or not v.is_floating_point() else v.to(dtype) for k, v in tensors.items()}
    return {k: v.to("meta") for k, v in cast.items()} if meta else cast


def _safe(path: Path, dtype: torch.dtype | None, meta: bool) -> Tensors:
    with damaged(path, "file of safetensors"), safe_open(path, framework="pt") as file:
        out = {}
        for key in file.keys():  # noqa: SIM118
            if meta:
                out[key] = _described(file.get_slice(key))
            else:
                # Cast one by one, so that file and model are not in memory together.
                value = file.get_tensor(key)
                out[key] = value if dtype is None or not value.is_floating_point() else value.to(dtype)
        return out


def _described(entry: Any) -> Tensor:
    """A tensor of a file on the meta device: its shape, and whether it has floating-point numbers."""
    whole = not entry.get_dtype().startswith(("F", "BF"))
    return torch.empty(entry.get_shape(), device="meta", dtype=torch.int64 if whole else None)


class _Ignored:
    """Stand-in for the training callback in the first Stable Diffusion files; does nothing."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def _allowed_globals() -> list[Any]:
    """Globals that an old pickle may use besides tensors: that callback, and numpy's numbers."""
    import _codecs

    import numpy as np
    from numpy._core import multiarray

    kinds = [type(np.dtype(k)) for k in ("float64", "float32", "int64", "int32")]
    lightning = "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint"
    return [
        (_Ignored, lightning),
        multiarray.scalar,
        (multiarray.scalar, "numpy.core.multiarray.scalar"),
        np.dtype,
        _codecs.encode,
        *kinds,
    ]


def _pickled(path: Path, meta: bool) -> Tensors:
    if not path.stat().st_size:
        raise ModelError(f"{path} is empty; fetch it again")
    with (
        damaged(path, "checkpoint"),
        torch.serialization.safe_globals(_allowed_globals()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # torch on its own formats
        zipped = zipfile.is_zipfile(path)
        if zipped:
            _check_zip(path)
        try:
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
        except pickle.UnpicklingError as error:
            # Without torch's message, which recommends loading it anyway.
            raise ModelError(
                f"{path} is damaged, or a pickle that holds more than tensors, and was not run; ask its author for "
                f"safetensors{_named_code(error)}"
            ) from error
    for name in ("state_dict", "model"):  # Lightning's files, and Bae's
        if isinstance(found, dict) and isinstance(found.get(name), dict):
            found = found[name]
    if not isinstance(found, dict):
        raise ModelError(f"{path} holds a {type(found).__name__}, not a table of tensors")
    tensors = {str(k): v for k, v in found.items() if isinstance(v, Tensor)}
    # A view may repeat one number a billion times, which takes memory only when it is copied.
    size = sum(v.numel() * v.element_size() for v in tensors.values())
    if not meta and size > 2 * path.stat().st_size + (1 << 20):
        raise ModelError(
            f"{path} describes {size} bytes of tensors, many times its own size; it was not read"
        )
    return tensors


def _check_zip(path: Path) -> None:
    """ModelError for compressed entries, which torch never writes and which may expand to any size."""
    with zipfile.ZipFile(path) as file:
        for entry in file.infolist():
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > path.stat().st_size:
                raise ModelError(
                    f"{path} has compressed entries, which no checkpoint of torch has; it was not read"
                )


def _named_code(error: pickle.UnpicklingError) -> str:
    """The callable that a refused pickle names, from torch's message, which otherwise explains how to run it anyway."""
    found = re.search(r"GLOBAL ([\w.]+)", str(error))
    return f" (it names {found[1]})" if found else ""
