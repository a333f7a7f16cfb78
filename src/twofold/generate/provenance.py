"""What the row of a created sample says: enough to make it again."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from ..environment import installed
from ..predict.base import Painter
from ..predict.diffusion import Predictor
from .config import Settings


def sample_id(source: str, start: int, index: int) -> str:
    """The id of a created sample: that of its source with what a file name cannot hold replaced, time step, index."""
    plain = "/".join(
        "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in p)
        for p in source.split("/")
    )
    plain = "/".join(p.lstrip("._-") or "x" for p in plain.split("/"))
    if plain != source or len(plain) > 150:  # two sources must not become one
        plain = f"{plain[:150].rstrip('/')}-{hashlib.sha256(source.encode()).hexdigest()[:8]}"
    return f"{plain}-T{start:03d}-{index}"


def pixels_digest(image: Tensor) -> str:
    """sha256 of a picture's pixels in 256 levels and its size, whatever file they came from."""
    levels = (image.clamp(0, 1) * 255).round().byte().contiguous().numpy()
    return hashlib.sha256(f"{tuple(image.shape)}".encode() + levels.tobytes()).hexdigest()


def weights_digest(module: nn.Module) -> str:
    """sha256 of what a network holds now, names and bytes."""
    sha = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        sha.update(name.encode())
        sha.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def asked(predictor: Painter) -> dict[str, Any]:
    """How a task is asked, as JSON values."""
    common = {"target": predictor.task.target, "space": predictor.space, "size": predictor.size}
    if not isinstance(predictor, Predictor):
        return {**common, **predictor.about}
    return {
        **common,
        "prompt": predictor.prompt,
        "protocol": asdict(predictor.protocol),
        "head": type(predictor.head).__name__,
    }


def versions(module: nn.Module) -> dict[str, str]:
    """Of what the numbers may depend on in their last digits: libraries, kind of device, and type of the weights."""
    weights = next(module.parameters())
    libraries = {name: installed(name) or "source" for name in ("twofold", "torch", "diffusers")}
    return {**libraries, "device": weights.device.type, "dtype": str(weights.dtype).removeprefix("torch.")}


def record(settings: Settings, **facts: Any) -> dict[str, Any]:
    """The generator of a sample's origin: all settings, and the facts of this sample."""
    return {"maker": "twofold create", **settings.record, **facts}
