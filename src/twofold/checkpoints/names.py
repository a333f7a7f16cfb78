"""Old and foreign names of the same tensors, and small weights merged into the large ones they belong to."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from .strict import ModelError, Tensors

# AutoencoderKL's attention before diffusers 0.12; GenPercept's, Marigold's and SD 1.x's files have either.
_OLD_ATTENTION = {
    "query": "to_q",
    "key": "to_k",
    "value": "to_v",
    "proj_attn": "to_out.0",
}


def modern_vae(tensors: Tensors) -> Tensors:
    """An autoencoder's attention under its present names; 1x1 convolutions there become matrices."""
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
    """A CLIP text encoder's tensors under the names the installed transformers gives them.

    Version 5 dropped the prefix ``text_model.``; positions were once stored and are now computed.
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


def merged(tensors: Tensors, where: Path) -> Tensors:
    """A U-Net saved with peft's names as a plain one: ``base + B A`` (GenPercept's LoRA runs: alpha = rank).

    Raises:
        ModelError: one half of a pair is missing.
    """
    if not any(".base_layer." in k for k in tensors):
        return tensors
    out: Tensors = {}
    for key, value in tensors.items():
        if ".lora_A." in key or ".lora_B." in key:
            continue
        out[key.replace(".base_layer.", ".")] = value
    for key in [k for k in tensors if ".lora_A." in k]:
        other = key.replace(".lora_A.", ".lora_B.")
        target = re.sub(r"\.lora_A(\.\w+)?\.weight$", ".weight", key)
        if other not in tensors or target not in out:
            lost = other if other not in tensors else target
            raise ModelError(f"{where} lacks the tensor {lost}, which belongs to {key}")
        out[target] = add_product(out[target], tensors[other], tensors[key])
    return out


def add_product(base: Tensor, up: Tensor, down: Tensor, scale: float = 1.0) -> Tensor:
    """``base + scale * up @ down``, summed in float32."""
    return (base.float() + scale * up.float() @ down.float()).to(base.dtype)


def with_old_lora(tensors: Tensors, lora: Tensors, where: Path) -> Tensors:
    """A U-Net with the low-rank weights of diffusers' old attention processors added (DMP).

    Their names are ``<attention>.processor.to_{q,k,v,out}_lora.{down,up}.weight``.

    Raises:
        ModelError: a tensor is none of these, lacks its other half, or has nothing to be added to.
    """
    out = dict(tensors)
    pattern = re.compile(r"(?:unet\.)?(.+)\.processor\.to_(q|k|v|out)_lora\.(down|up)\.weight")
    for key, value in lora.items():
        found = pattern.fullmatch(key)
        if found is None:
            raise ModelError(
                f"{where} has the unexpected tensor {key}; it is not LoRA of an attention processor"
            )
        if found[3] == "up":
            continue
        other = key.replace("_lora.down.", "_lora.up.")
        target = f"{found[1]}.to_out.0.weight" if found[2] == "out" else f"{found[1]}.to_{found[2]}.weight"
        if other not in lora:
            raise ModelError(f"{where} lacks the tensor {other}")
        if target not in out:
            raise ModelError(f"{where} has {key}, but the base model has no {target}; is the base right?")
        up, base = lora[other], out[target]
        if (up.shape[0], value.shape[1]) != tuple(base.shape[:2]):
            raise ModelError(
                f"{where}: {key} and its other half make {up.shape[0]}x{value.shape[1]}, the base's {target} is "
                f"{tuple(base.shape)}; is the base right?"
            )
        out[target] = add_product(base, up, value)
    return out


def without(tensors: Tensors, unwanted: Callable[[str], bool]) -> Tensors:
    """The tensors whose names are wanted."""
    return {k: v for k, v in tensors.items() if not unwanted(k)}


def has_lora(tensors: Tensors) -> bool:
    """Whether any tensor is a low-rank one."""
    return any("lora" in k for k in tensors)


def as_embedding(value: Tensor) -> Tensor:
    """A stored prompt embedding ``n d`` or ``1 n d`` as ``n d`` float32."""
    return torch.as_tensor(value).float().reshape(-1, value.shape[-1])
