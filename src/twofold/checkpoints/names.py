"""Renames tensors of checkpoints from older versions of diffusers and transformers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .strict import Tensors

# Layers of AutoencoderKL's attention before diffusers 0.12; files of GenPercept, Marigold and SD 1.x have old or new
# names.
_OLD_ATTENTION = {
    "query": "to_q",
    "key": "to_k",
    "value": "to_v",
    "proj_attn": "to_out.0",
}


def modern_vae(tensors: Tensors) -> Tensors:
    """Rename an autoencoder's attention to current names; its 1x1 convolutions become matrices."""
    out: Tensors = {}
    for key, value in tensors.items():
        prefix, attention, name = key.partition("mid_block.attentions.0.")
        if attention:
            layer, dot, kind = name.rpartition(".")
            key = f"{prefix}{attention}{_OLD_ATTENTION.get(layer, layer)}{dot}{kind}"
            if value.ndim == 4 and value.shape[-2:] == (1, 1):
                value = value[..., 0, 0]
        out[key] = value
    return out


def modern_text(tensors: Tensors, expected: set[str]) -> Tensors:
    """Rename the tensors of a CLIP text encoder to the names in the installed transformers, ``expected``.

    Version 5 dropped the prefix ``text_model.``; older versions stored position ids, which are now computed.
    """
    prefixed = any(k.startswith("text_model.") for k in expected)
    out: Tensors = {}
    for key, value in tensors.items():
        name = key.removeprefix("text_model.")
        if name == "embeddings.position_ids":
            continue
        in_text_model = name.startswith(("embeddings.", "encoder.", "final_layer_norm."))
        out[f"text_model.{name}" if prefixed and in_text_model else name] = value
    return out


def without(tensors: Tensors, excluded: Callable[[str], bool]) -> Tensors:
    """The tensors except those for whose name ``excluded`` is true."""
    return {k: v for k, v in tensors.items() if not excluded(k)}


def as_embedding(value: Tensor) -> Tensor:
    """A stored prompt embedding ``n d`` or ``1 n d`` as ``n d`` float32."""
    return torch.as_tensor(value).float().reshape(-1, value.shape[-1])
