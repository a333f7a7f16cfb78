"""Renaming of tensors from older versions of diffusers and transformers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .strict import Tensors

# AutoencoderKL's attention before diffusers 0.12; GenPercept's, Marigold's and SD 1.x's files have either.
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
        head, found, tail = key.partition("mid_block.attentions.0.")
        if found:
            layer, dot, kind = tail.rpartition(".")
            key = f"{head}{found}{_OLD_ATTENTION.get(layer, layer)}{dot}{kind}"
            if value.ndim == 4 and value.shape[-2:] == (1, 1):
                value = value[..., 0, 0]
        out[key] = value
    return out


def modern_text(tensors: Tensors, wanted: set[str]) -> Tensors:
    """Rename a CLIP text encoder's tensors to those of the installed transformers.

    Version 5 dropped the prefix ``text_model.``; older versions stored positions, which are now computed.
    """
    prefixed = any(k.startswith("text_model.") for k in wanted)
    out: Tensors = {}
    for key, value in tensors.items():
        bare = key.removeprefix("text_model.")
        if bare == "embeddings.position_ids":
            continue
        own = bare.startswith(("embeddings.", "encoder.", "final_layer_norm."))
        out[f"text_model.{bare}" if prefixed and own else bare] = value
    return out


def without(tensors: Tensors, unwanted: Callable[[str], bool]) -> Tensors:
    """The tensors without those whose name is ``unwanted``."""
    return {k: v for k, v in tensors.items() if not unwanted(k)}


def as_embedding(value: Tensor) -> Tensor:
    """A stored prompt embedding ``n d`` or ``1 n d`` as ``n d`` float32."""
    return torch.as_tensor(value).float().reshape(-1, value.shape[-1])
