"""Reads one component of a checkpoint: U-Net, autoencoder, text encoder or scheduler."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..backbones.new import sd_unet_config
from ..backbones.stable_diffusion import StableDiffusion
from ..diffusion import Schedule
from .configs import KLConfig, SchedulerConfig, TextConfig, TinyConfig, UNetConfig, validated
from .lora import DefaultAlpha, merge_file, merge_peft
from .names import as_embedding, modern_text, modern_vae
from .strict import ModelError, Tensors, check_tensors, damaged, load_strictly, read_json
from .tokenizer import read_tokenizer
from .weights import read_file, read_tensors


@dataclass(frozen=True)
class LoadOptions:
    """Options of reading weights.

    Attributes:
        dtype: dtype of the weights.
        variant: variant of the files, such as ``fp16``.
        meta: whether to check keys and shapes only, without reading weights.
        lora_alpha: alpha of LoRA weights whose files do not contain it; see `lora`.
    """

    dtype: torch.dtype = torch.float32
    variant: str = ""
    meta: bool = False
    lora_alpha: float | None = None

    def tensors(self, folder: Path) -> Tensors:
        """Read the tensors of the component in ``folder``."""
        return read_tensors(folder, self.variant, dtype=self.dtype, meta=self.meta)


_CONFIGS = {"UNet2DConditionModel": UNetConfig, "AutoencoderKL": KLConfig, "AutoencoderTiny": TinyConfig}
CLASSES: dict[str, tuple[str, ...]] = {
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL", "AutoencoderTiny"),
}


def diffusers_module(folder: Path, kind: str, config: dict[str, Any] | None = None) -> nn.Module:
    """Build a network without weights, on the meta device.

    Args:
        folder: folder with ``config.json``.
        kind: ``unet`` or ``vae``.
        config: a config to use instead of ``config.json``.

    Raises:
        ModelError: the config is invalid, or twofold does not support its class.
    """
    import diffusers

    assumed = config is not None
    if config is None:
        config = read_json(folder / "config.json")
    # GenPercept's training code saves an equivalent subclass with this prefix.
    name = str(config.get("_class_name", "")).removeprefix("Custom")
    if name not in CLASSES[kind]:
        raise ModelError(
            f"{folder / 'config.json'} names the class {name!r}, which twofold does not read as a {kind}; it reads "
            f"{', '.join(CLASSES[kind])}"
        )
    known = config if assumed else validated(_CONFIGS[name], config, folder / "config.json")
    # Values that are valid separately may be inconsistent, and diffusers then raises many kinds of errors.
    with damaged(folder / "config.json", f"config of a {name}"), torch.device("meta"):
        return getattr(diffusers, name).from_config(known)


def unet(
    folder: Path,
    options: LoadOptions,
    headless: bool = False,
    lora: Path | None = None,
    genpercept: bool = False,
) -> Any:
    """Read a U-Net.

    Args:
        folder: folder with ``config.json`` and weights.
        options: options of reading weights.
        headless: whether to remove the last normalisation and convolution, because a head reads the features.
        lora: a file of LoRA weights to merge.
        genpercept: whether GenPercept's trainer may have written the folder: then a missing ``config.json`` is that of
            Stable Diffusion 2.1, and LoRA weights have alpha = rank.
    """
    default = DefaultAlpha(options.lora_alpha, equals_rank=genpercept)
    tensors = merge_peft(options.tensors(folder), folder, default)
    assumed = _sd21_config(tensors) if genpercept and not (folder / "config.json").exists() else None
    module: Any = diffusers_module(folder, "unet", assumed)
    if lora is not None:
        weights = read_file(lora, meta=options.meta)
        tensors = merge_file(tensors, weights, lora, DefaultAlpha(options.lora_alpha))
    if headless:
        module.conv_norm_out, module.conv_out = None, nn.Identity()
        tensors = {k: v for k, v in tensors.items() if not k.startswith(("conv_norm_out.", "conv_out."))}
    load_strictly(module, tensors, folder, options.dtype)
    return module


def _sd21_config(tensors: Tensors) -> dict[str, Any]:
    """The config of the U-Net of Stable Diffusion 2.1, with the input channels of the first layer."""
    first = tensors.get("conv_in.weight")
    channels = int(first.shape[1]) if first is not None and first.ndim == 4 else 4
    return {"_class_name": CLASSES["unet"][0], **sd_unet_config(channels)}


def vae(folder: Path, options: LoadOptions, decoder: Path | None = None) -> Any:
    """Read an autoencoder.

    Args:
        folder: folder with ``config.json`` and weights.
        options: options of reading weights.
        decoder: folder whose ``vae_decoder`` and ``vae_post_quant_conv`` replace those of the autoencoder.
    """
    module: Any = diffusers_module(folder, "vae")
    tensors = modern_vae(options.tensors(folder))
    if decoder is not None:
        for subfolder, prefix in (("vae_decoder", "decoder."), ("vae_post_quant_conv", "post_quant_conv.")):
            trained = {prefix + k: v for k, v in options.tensors(decoder / subfolder).items()}
            trained = modern_vae(trained)
            base = {k for k in tensors if k.startswith(prefix)}
            if base != set(trained):
                key = sorted(base ^ set(trained))[0]
                problem = "lacks the tensor" if key in base else "has the unexpected tensor"
                raise ModelError(
                    f"{decoder / subfolder} {problem} {key}; expected all tensors of the decoder"
                )
            tensors.update(trained)
    load_strictly(module, tensors, folder, options.dtype)
    return module


def text_encoder(folder: Path, options: LoadOptions) -> Any:
    """Read a CLIP text encoder."""
    from transformers import CLIPTextConfig

    path = folder / "config.json"
    # Known entries only: a config of transformers may also refer to code on the hub.
    known = validated(TextConfig, read_json(path), path)
    with damaged(path, "config of a CLIPTextModel"):
        config = CLIPTextConfig(**known)
    return build_text_encoder(config, options.tensors(folder), folder, options)


def build_text_encoder(config: Any, tensors: Tensors, where: Path, options: LoadOptions) -> Any:
    """Build a ``CLIPTextModel`` with the weights ``tensors``, which are checked before its memory is allocated.

    Raises:
        ModelError: the weights do not match the config.
    """
    from transformers import CLIPTextModel

    with damaged(where, "config of a CLIPTextModel"), torch.device("meta"):
        module: Any = CLIPTextModel(config)
    tensors = modern_text(tensors, set(module.state_dict()))
    check_tensors(module, tensors, where)
    if not options.meta:
        # Not on the meta device: it has buffers that are computed, not stored.
        module = CLIPTextModel(config).to(options.dtype)
    load_strictly(module, tensors, where, options.dtype)
    return module


def scheduler(folder: Path) -> dict[str, Any]:
    """Read and check the entries of ``scheduler_config.json`` that twofold uses."""
    path = folder / "scheduler_config.json"
    known = validated(SchedulerConfig, read_json(path), path)
    try:
        Schedule.from_config(known)
    except ValueError as error:
        raise ModelError(f"{path}: {error}") from error
    return known


# Files with the embedding of the empty prompt, of GenPercept v1 and of twofold.
EMPTY_TEXT = ("empty_text_embed.npy", "empty_text_embed.safetensors")


def empty_text(folder: Path) -> Tensor | None:
    """The stored embedding ``n d`` of the empty prompt, if ``folder`` has one."""
    for name in EMPTY_TEXT:
        path = folder / name
        if path.suffix == ".npy" and path.exists():
            # Memory-mapped, so that a header with a wrong size allocates no memory.
            with damaged(path, "array of numbers"):
                stored = np.load(path, allow_pickle=False, mmap_mode="r")
                value = torch.from_numpy(stored.astype(np.float32)) if stored.dtype.kind == "f" else None
            return _embedding(value, path)
        if path.exists():
            return _embedding(next(iter(read_file(path).values()), None), path)
    return None


def _embedding(value: Tensor | None, path: Path) -> Tensor:
    if value is None or value.ndim not in (2, 3) or not value.numel() or value.shape[:-2] not in ((), (1,)):
        found = "no floating-point numbers" if value is None else f"numbers of shape {tuple(value.shape)}"
        raise ModelError(f"{path} has {found}; expected the embedding of a prompt, (1, tokens, width)")
    return as_embedding(value)


def stable_diffusion(folder: Path, options: LoadOptions) -> StableDiffusion:
    """Read a Stable Diffusion pipeline that diffusers wrote, as a backbone without heads."""
    return StableDiffusion(
        unet(folder / "unet", options),
        vae(folder / "vae", options),
        encoder := text_encoder(folder / "text_encoder", options),
        read_tokenizer(folder / "tokenizer", encoder),
        scheduler(folder / "scheduler"),
    )
