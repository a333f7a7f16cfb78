"""Reads weight files as tensors by key: safetensors, shards, and pickles, of which only tensors are read."""

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
PICKLES = ("diffusion_pytorch_model.bin", "pytorch_model.bin")


def weight_files(folder: Path, variant: str = "") -> list[Path]:
    """The weight files of one component: a safetensors file, the shards that its index lists, or a pickle.

    Args:
        folder: folder of the component.
        variant: variant of the files, such as ``fp16``; files of other variants are ignored.

    Raises:
        ModelError: there are no such files, or a listed shard is missing.
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
    for name in PICKLES:
        path = folder / (name.removesuffix(".bin") + f"{dot}.bin")
        if path.exists():
            return [path]
    raise ModelError(f"{folder} has no .safetensors weights{_other_variants(folder, variant)}")


def _shards(folder: Path, index: Path) -> list[Path]:
    """The shards that an index lists, by name."""
    listed = read_json(index).get("weight_map")
    if not isinstance(listed, dict):
        raise ModelError(f"{index} has no weight_map that lists its shards; fetch it again")
    names = dict.fromkeys(checked_name(name, index, "the shard") for name in listed.values())
    files = [folder / name for name in sorted(names)]
    if not files:
        raise ModelError(f"{index} lists no shard; fetch it again")
    missing = [f.name for f in files if not f.exists()]
    if missing:
        raise ModelError(f"{folder} lacks the shard {missing[0]} that its index lists; fetch it again")
    return files


def _other_variants(folder: Path, variant: str) -> str:
    """The end of a message about missing weights: which variants there are, and what to do."""
    found = sorted({p.name.split(".")[1] for p in folder.glob("*.*.safetensors") if p.name.count(".") == 2})
    if variant:
        return f" of the variant {variant!r}" + (f"; it has {', '.join(found)}" if found else "")
    if found:
        return f" without a variant, but {', '.join(found)}; pass --variant {found[0]}"
    return "; fetch the checkpoint again, with its safetensors files"


def read_tensors(folder: Path, variant: str = "", **options: Any) -> Tensors:
    """Read all tensors of one component by key; ``options`` are those of `read_file`."""
    tensors: Tensors = {}
    for path in weight_files(folder, variant):
        shard = read_file(path, **options)
        repeated = sorted(tensors.keys() & shard.keys())
        if repeated:
            raise ModelError(
                f"{path} has the tensor {repeated[0]}, which another shard also has; fetch it again"
            )
        tensors.update(shard)
    return tensors


def read_file(path: Path, dtype: torch.dtype | None = None, meta: bool = False) -> Tensors:
    """Read all tensors of one file by key.

    Args:
        path: ``.safetensors``, or a pickle (``.bin``, ``.ckpt``, ``.pt``, ``.pth``), whose code is not run.
        dtype: dtype that floating-point tensors are cast to while they are read; None for no cast.
        meta: whether to return tensors on the meta device, which have shapes and no values.

    Raises:
        ModelError: the file is damaged, or contains code.
    """
    if path.suffix == ".safetensors":
        tensors = _read_safetensors(path, dtype, meta)
    else:
        tensors = _read_pickle(path, meta)
    cast = {k: v if dtype is None or not v.is_floating_point() else v.to(dtype) for k, v in tensors.items()}
    return {k: v.to("meta") for k, v in cast.items()} if meta else cast


def _read_safetensors(path: Path, dtype: torch.dtype | None, meta: bool) -> Tensors:
    with damaged(path, "file of safetensors"), safe_open(path, framework="pt") as file:
        out = {}
        for key in file.keys():  # noqa: SIM118
            if meta:
                out[key] = _meta_tensor(file.get_slice(key))
            else:
                # Cast one by one, so that the tensors of both dtypes are not in memory at once.
                value = file.get_tensor(key)
                out[key] = value if dtype is None or not value.is_floating_point() else value.to(dtype)
        return out


def _meta_tensor(entry: Any) -> Tensor:
    """A tensor of a file on the meta device, as float32 or int64."""
    integer = not entry.get_dtype().startswith(("F", "BF"))
    return torch.empty(entry.get_shape(), device="meta", dtype=torch.int64 if integer else None)


class _IgnoredCallback:
    """Replaces the training callback in the first Stable Diffusion files; does nothing."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def _allowed_globals() -> list[Any]:
    """Globals that a pickle may use besides tensors: the training callback, and numpy's numbers."""
    import _codecs

    import numpy as np
    from numpy._core import multiarray

    kinds = [type(np.dtype(k)) for k in ("float64", "float32", "int64", "int32")]
    lightning = "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint"
    return [
        (_IgnoredCallback, lightning),
        multiarray.scalar,
        (multiarray.scalar, "numpy.core.multiarray.scalar"),
        np.dtype,
        _codecs.encode,
        *kinds,
    ]


def _read_pickle(path: Path, meta: bool) -> Tensors:
    if not path.stat().st_size:
        raise ModelError(f"{path} is empty; fetch it again")
    with (
        damaged(path, "checkpoint"),
        torch.serialization.safe_globals(_allowed_globals()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # torch warns about its old formats
        zipped = zipfile.is_zipfile(path)
        if zipped:
            _check_zip(path)
        try:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
        except pickle.UnpicklingError as error:
            # Without torch's message, which recommends loading it anyway.
            raise ModelError(
                f"{path} is damaged, or a pickle that contains more than tensors, and was not run; ask its author for "
                f"safetensors{_refused_global(error)}"
            ) from error
    for name in ("state_dict", "model"):  # keys of Lightning and of Bae et al.
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
    if not isinstance(content, dict):
        raise ModelError(f"{path} contains a {type(content).__name__}, not a state dict")
    tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
    # A view may repeat one number a billion times, which needs memory only when it is copied.
    size = sum(v.numel() * v.element_size() for v in tensors.values())
    if not meta and size > 2 * path.stat().st_size + (1 << 20):
        raise ModelError(
            f"{path} describes {size} bytes of tensors, many times its own size; it was not read"
        )
    return tensors


def _check_zip(path: Path) -> None:
    """ModelError if a file has compressed entries, which torch never writes and which may expand to any size."""
    with zipfile.ZipFile(path) as file:
        for entry in file.infolist():
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > path.stat().st_size:
                raise ModelError(f"{path} has compressed entries, which torch never writes; it was not read")


def _refused_global(error: pickle.UnpicklingError) -> str:
    """The callable that a refused pickle names, from torch's message, which also explains how to run it anyway."""
    found = re.search(r"GLOBAL ([\w.]+)", str(error))
    return f" (it names {found[1]})" if found else ""
