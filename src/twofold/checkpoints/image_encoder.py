"""Reads and writes the image adapter in the folder ``image_encoder`` of a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from ..backbones.encoders import IMAGE_ENCODERS
from ..backbones.image_encoder import ImageAdapter
from .components import LoadOptions
from .strict import ModelError, load_strictly, read_json

FOLDER = "image_encoder"
_MAX_CHANNELS = 1 << 16


def save_image_adapter(adapter: ImageAdapter, folder: Path, dtype: torch.dtype) -> None:
    """Write ``config.json`` and the weights into ``folder``, which does not exist yet."""
    folder.mkdir(parents=True)
    config = {
        "name": adapter.encoder.name,
        "first": adapter.first,
        "unet_channels": adapter.unet_channels,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    tensors = {k: v.to(dtype).contiguous() for k, v in adapter.state_dict().items()}
    save_file(tensors, folder / "model.safetensors")


def open_image_adapter(folder: Path, options: LoadOptions) -> ImageAdapter:
    """Read an image adapter that `save_image_adapter` wrote.

    Raises:
        ModelError: a file is missing or damaged, or its image encoder is unknown.
    """
    path = folder / "config.json"
    config = read_json(path)
    name, first, channels = (config.get(k) for k in ("name", "first", "unet_channels"))
    if not isinstance(name, str) or name not in IMAGE_ENCODERS:
        raise ModelError(
            f"{path} names the image encoder {name!r}; this version of twofold has {', '.join(IMAGE_ENCODERS)}"
        )
    count = len(IMAGE_ENCODERS[name].channels)
    if not isinstance(first, int) or isinstance(first, bool) or not 0 <= first < count:
        raise ModelError(f"{path}: first is {first!r}; expected the index of one of {count} feature maps")
    if (
        not isinstance(channels, list)
        or not 0 < len(channels) <= count - first
        or not all(type(c) is int and 0 < c <= _MAX_CHANNELS for c in channels)
    ):
        raise ModelError(
            f"{path}: unet_channels is {channels!r}; expected 1 to {count - first} numbers of channels"
        )
    with torch.device("meta"):
        adapter = ImageAdapter(IMAGE_ENCODERS[name](), channels, first)
    load_strictly(adapter, options.tensors(folder), folder, options.dtype)
    return adapter
