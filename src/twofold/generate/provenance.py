"""What the row of a generated sample records: enough to generate it again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from ..environment import installed
from ..io import sha256_text
from ..predict.base import BasePredictor
from ..predict.diffusion import DiffusionPredictor
from .config import GenerationConfig
from .labels import label_module


def sample_id(source: str, start: int, index: int) -> str:
    """The id of a generated sample: its source's, restricted to characters of file names, time step and index."""
    plain = "/".join(
        "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in p)
        for p in source.split("/")
    )
    plain = "/".join(p.lstrip("._-") or "x" for p in plain.split("/"))
    if plain != source or len(plain) > 150:  # two sources must not get one id
        plain = f"{plain[:150].rstrip('/')}-{sha256_text(source)[:8]}"
    return f"{plain}-T{start:03d}-{index}"


def pixels_digest(image: Tensor) -> str:
    """sha256 of an image's size and its pixels in 256 levels, whatever file it was read from."""
    levels = (image.clamp(0, 1) * 255).round().byte().contiguous().numpy()
    return hashlib.sha256(f"{tuple(image.shape)}".encode() + levels.tobytes()).hexdigest()


def weights_digest(module: nn.Module) -> str:
    """sha256 of a network's state: names and bytes."""
    sha = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        sha.update(name.encode())
        sha.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def network_digests(backbone: nn.Module, predictors: Mapping[str, BasePredictor]) -> dict[str, Any]:
    """`weights_digest` of the backbone, and by task of what else computes the labels."""
    heads = {name: weights_digest(label_module(p)) for name, p in predictors.items()}
    return {"backbone": weights_digest(backbone), "heads": heads}


def predictor_record(predictor: BasePredictor) -> dict[str, Any]:
    """The settings that a task is predicted with, as JSON values."""
    common = {"target": predictor.task.target, "space": predictor.space, "size": predictor.size}
    if not isinstance(predictor, DiffusionPredictor):
        return {**common, **predictor.metadata}
    return {
        **common,
        "prompt": predictor.prompt,
        "protocol": asdict(predictor.protocol),
        "head": type(predictor.head).__name__,
    }


def versions(module: nn.Module) -> dict[str, str]:
    """What the last digits of the numbers may depend on: libraries, kind of device, and dtype of the weights."""
    weights = next(module.parameters())
    libraries = {name: installed(name) or "source" for name in ("twofold", "torch", "diffusers")}
    return {**libraries, "device": weights.device.type, "dtype": str(weights.dtype).removeprefix("torch.")}


def generator_record(config: GenerationConfig, **facts: Any) -> dict[str, Any]:
    """``Provenance.generator`` of a sample: the configuration, and the facts of this sample."""
    return {"tool": "twofold create", **config.record, **facts}
