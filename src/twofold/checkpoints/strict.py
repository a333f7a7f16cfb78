"""Strict reading of weights: every tensor accounted for, or one line that names the one that is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn


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


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of one component: a single file, or the shards its index lists.

    Raises:
        ModelError: there are none, or a listed shard is missing.
    """
    for stem in ("diffusion_pytorch_model", "model"):
        index = folder / f"{stem}.safetensors.index.json"
        if index.exists():
            names = sorted(set(read_json(index).get("weight_map", {}).values()))
            files = [folder / Path(name).name for name in names]
            absent = [f.name for f in files if not f.exists()]
            if absent:
                raise ModelError(f"{folder} lacks the shard {absent[0]} that its index lists; fetch it again")
            return files
        if (folder / f"{stem}.safetensors").exists():
            return [folder / f"{stem}.safetensors"]
    raise ModelError(
        f"{folder} has no .safetensors weights; fetch the checkpoint again, with its safetensors files"
    )


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of one component by key."""
    tensors: dict[str, Tensor] = {}
    for path in weight_files(folder):
        try:
            with safe_open(path, framework="pt") as file:
                tensors.update({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{path} is damaged or not safetensors ({error}); fetch it again") from error
    return tensors


def load_strictly(module: nn.Module, tensors: dict[str, Tensor], where: Path, dtype: torch.dtype) -> None:
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
