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
        ModelError: one half of a pair is missing, or does not fit the other.
    """
    if not any(".base_layer." in k or ".lora_A." in k or ".lora_B." in k for k in tensors):
        return tensors
    out = {
        k.replace(".base_layer.", "."): v
        for k, v in tensors.items()
        if ".lora_A." not in k and ".lora_B." not in k
    }
    downs = {k for k in tensors if ".lora_A." in k}
    _paired(downs, {k for k in tensors if ".lora_B." in k}, (".lora_A.", ".lora_B."), where)
    for key in sorted(downs):
        target = re.sub(r"\.lora_A(\.\w+)?\.weight$", ".weight", key)
        if target not in out:
            raise ModelError(f"{where} lacks the tensor {target}, which belongs to {key}")
        out[target] = _added(
            out[target], tensors[key.replace(".lora_A.", ".lora_B.")], tensors[key], key, where
        )
    return out


def _paired(downs: set[str], ups: set[str], names: tuple[str, str], where: Path) -> None:
    """Every low-rank pair whole, and at least one: else the base alone would be taken for the model."""
    if not downs and not ups:
        raise ModelError(f"{where} holds no low-rank weights; it would be nothing but its base")
    lost = {k.replace(*names) for k in downs} - ups | {k.replace(names[1], names[0]) for k in ups} - downs
    if lost:
        raise ModelError(f"{where} lacks the tensor {sorted(lost)[0]}, the other half of a low-rank pair")


def _added(base: Tensor, up: Tensor, down: Tensor, key: str, where: Path) -> Tensor:
    """``base + up @ down``, summed in float32; ModelError where the shapes do not fit."""
    made = (up.shape[0], down.shape[1])
    if up.ndim != 2 or down.ndim != 2 or up.shape[1] != down.shape[0] or made != tuple(base.shape):
        raise ModelError(
            f"{where}: {key} {tuple(down.shape)} and its other half {tuple(up.shape)} cannot be added to the base's "
            f"{tuple(base.shape)}; is the base right?"
        )
    return (base.float() + up.float() @ down.float()).to(base.dtype)


_OLD_LORA = re.compile(r"(?:unet\.)?(.+)\.processor\.to_(q|k|v|out)_lora\.(down|up)\.weight")


def with_old_lora(tensors: Tensors, lora: Tensors, where: Path) -> Tensors:
    """A U-Net with the low-rank weights of diffusers' old attention processors added (DMP).

    Their names are ``<attention>.processor.to_{q,k,v,out}_lora.{down,up}.weight``.

    Raises:
        ModelError: a tensor is none of these, lacks its other half, or has nothing to be added to.
    """
    out = dict(tensors)
    found = {key: _OLD_LORA.fullmatch(key) for key in lora}
    strange = [k for k, m in found.items() if m is None]
    if strange:
        raise ModelError(
            f"{where} has the unexpected tensor {strange[0]}; it is not LoRA of an attention processor"
        )
    downs = {k for k in lora if k.endswith("_lora.down.weight")}
    _paired(downs, set(lora) - downs, ("_lora.down.", "_lora.up."), where)
    for key in sorted(downs):
        match = found[key]
        assert match is not None
        target = f"{match[1]}.to_out.0.weight" if match[2] == "out" else f"{match[1]}.to_{match[2]}.weight"
        if target not in out:
            raise ModelError(f"{where} has {key}, but the base model has no {target}; is the base right?")
        out[target] = _added(
            out[target], lora[key.replace("_lora.down.", "_lora.up.")], lora[key], key, where
        )
    return out


def without(tensors: Tensors, unwanted: Callable[[str], bool]) -> Tensors:
    """The tensors whose names are wanted."""
    return {k: v for k, v in tensors.items() if not unwanted(k)}


def as_embedding(value: Tensor) -> Tensor:
    """A stored prompt embedding ``n d`` or ``1 n d`` as ``n d`` float32."""
    return torch.as_tensor(value).float().reshape(-1, value.shape[-1])
