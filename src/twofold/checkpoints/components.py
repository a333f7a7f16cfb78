"""One network out of one folder, by the class its config names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..backbones.new import sd_unet_config
from ..environment import quiet_libraries
from .names import as_embedding, merged, modern_text, modern_vae, with_old_lora
from .strict import ModelError, Tensors, load_strictly, read_file, read_json, read_tensors


@dataclass(frozen=True)
class How:
    """How weights are read.

    Attributes:
        dtype: of the weights.
        variant: of the files.
        meta: shapes only: every key and shape is checked, and no weight is read.
    """

    dtype: torch.dtype = torch.float32
    variant: str = ""
    meta: bool = False

    def tensors(self, folder: Path) -> Tensors:
        """A component's tensors."""
        return read_tensors(folder, self.variant, dtype=self.dtype, meta=self.meta)


CLASSES = {"unet": ("UNet2DConditionModel",), "vae": ("AutoencoderKL", "AutoencoderTiny")}


def diffusers_module(folder: Path, kind: str, config: dict[str, Any] | None = None) -> nn.Module:
    """The network that ``config.json`` describes, on the meta device; ``kind`` is ``unet`` or ``vae``.

    ``config``: to be used in place of that file.

    Raises:
        ModelError: its class is not one that twofold reads.
    """
    import diffusers

    if config is None:
        config = read_json(folder / "config.json")
    # GenPercept's training code saves a subclass of its own under that name, with nothing added.
    name = str(config.get("_class_name", "")).removeprefix("Custom")
    if name not in CLASSES[kind]:
        raise ModelError(
            f"{folder / 'config.json'} names the class {name!r}, which twofold does not read as a {kind}; it reads "
            f"{', '.join(CLASSES[kind])}"
        )
    # AutoencoderTiny writes a key that its own reader warns about.
    known = {k: v for k, v in config.items() if (name, k) != ("AutoencoderTiny", "block_out_channels")}
    try:
        with torch.device("meta"):
            return getattr(diffusers, name).from_config(known)
    except (ValueError, TypeError, KeyError) as error:
        raise ModelError(f"{folder / 'config.json'} describes no {name} ({error})") from error


def unet(
    folder: Path, how: How, headless: bool = False, extra: Path | None = None, bare: bool = False
) -> Any:
    """A denoising network.

    Args:
        folder: with ``config.json`` and weights.
        how: they are read.
        headless: its last normalisation and convolution were deleted, because a head reads its features.
        extra: a file of low-rank weights in the old format of attention processors, to be added.
        bare: a missing ``config.json`` means Stable Diffusion 2.1's, as the runs of GenPercept's trainer lack one.
    """
    tensors = merged(how.tensors(folder), folder)
    assumed = _sd21(tensors) if bare and not (folder / "config.json").exists() else None
    module: Any = diffusers_module(folder, "unet", assumed)
    if extra is not None:
        tensors = with_old_lora(tensors, read_file(extra, meta=how.meta), extra)
    if headless:
        module.conv_norm_out, module.conv_out = None, nn.Identity()
        tensors = {k: v for k, v in tensors.items() if not k.startswith(("conv_norm_out.", "conv_out."))}
    load_strictly(module, tensors, folder, how.dtype)
    return module


def _sd21(tensors: Tensors) -> dict[str, Any]:
    """The config of a run that saved none: Stable Diffusion 2.1, with as many inputs as the first layer has."""
    first = tensors.get("conv_in.weight")
    channels = int(first.shape[1]) if first is not None else 4
    return {"_class_name": CLASSES["unet"][0], **sd_unet_config(channels)}


def vae(folder: Path, how: How, decoder: Path | None = None) -> Any:
    """An autoencoder; ``decoder``: a run whose ``vae_decoder`` and ``vae_post_quant_conv`` replace its own."""
    module: Any = diffusers_module(folder, "vae")
    tensors = modern_vae(how.tensors(folder))
    if decoder is not None:
        for part, prefix in (("vae_decoder", "decoder."), ("vae_post_quant_conv", "post_quant_conv.")):
            trained = {prefix + k: v for k, v in how.tensors(decoder / part).items()}
            trained = modern_vae(trained)
            base = {k for k in tensors if k.startswith(prefix)}
            if base != set(trained):
                odd = sorted(base ^ set(trained))[0]
                what = "lacks the tensor" if odd in base else "has the unexpected tensor"
                raise ModelError(
                    f"{decoder / part} {what} {odd}; a trained part is taken whole or not at all"
                )
            tensors.update(trained)
    load_strictly(module, tensors, folder, how.dtype)
    return module


def text_encoder(folder: Path, how: How) -> Any:
    """A CLIP text encoder."""
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig.from_dict(read_json(folder / "config.json"))
    if how.meta:
        with torch.device("meta"):
            module = CLIPTextModel(config)
    else:
        # Not on the meta device: it has buffers that are computed, not stored.
        module = CLIPTextModel(config).to(how.dtype)
    tensors = modern_text(how.tensors(folder), set(module.state_dict()))
    load_strictly(module, tensors, folder, how.dtype)
    return module


def tokenizer(folder: Path) -> Any:
    """A CLIP tokenizer."""
    from transformers import CLIPTokenizer

    if not folder.is_dir():
        raise ModelError(f"{folder} is missing; the checkpoint folder is incomplete, fetch it again")
    try:
        with quiet_libraries():
            return CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder} holds no readable tokenizer ({str(error).splitlines()[0]})") from error


# What GenPercept v1 calls its stored embedding of the empty prompt, and what twofold writes.
EMPTY_TEXT = ("empty_text_embed.npy", "empty_text_embed.safetensors")


def empty_text(folder: Path) -> Tensor | None:
    """The stored embedding ``n d`` of the empty prompt, if ``folder`` has one."""
    for name in EMPTY_TEXT:
        path = folder / name
        if path.suffix == ".npy" and path.exists():
            try:
                return as_embedding(torch.from_numpy(np.load(path, allow_pickle=False).astype(np.float32)))
            except ValueError as error:
                raise ModelError(f"{path} is no array of numbers ({error})") from error
        if path.exists():
            return as_embedding(next(iter(read_file(path).values())))
    return None
