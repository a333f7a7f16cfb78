"""Single-file checkpoints of Stable Diffusion 1.x and 2.x in the format of CompVis and Stability."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..backbones.new import SD21_SCHEDULER, sd_autoencoder, sd_unet_config
from .components import LoadOptions, filled_text_encoder
from .names import modern_vae, without
from .strict import ModelError, Tensors, damaged, load_strictly
from .weights import read_file

_UNET, _VAE = "model.diffusion_model.", "first_stage_model."
_CLIP, _OPEN_CLIP = "cond_stage_model.transformer.", "cond_stage_model.model."
# OpenCLIP's last layer is not used by SD 2.x, nor is its projection.
_UNUSED = ("transformer.resblocks.23.", "text_projection", "logit_scale")


def read_ldm(path: Path, options: LoadOptions, ema: bool = True) -> dict[str, Any]:
    """U-Net, autoencoder, text encoder and scheduler settings of one file, by the names of `StableDiffusion`.

    The version follows from the width of the U-Net's text input (768: 1.x, 1024: 2.x). The prediction type of a 2.x
    network is not in its file; v is assumed, which 768-pixel models predict.

    Args:
        path: the file.
        options: see `LoadOptions`.
        ema: use the EMA weights of the U-Net if the file has them, with a warning.

    Raises:
        ModelError: the file is not such a checkpoint, or does not fit.
    """
    tensors = _known(read_file(path, options.dtype, options.meta), path, ema)
    probe = f"{_UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
    if probe not in tensors:
        raise ModelError(f"{path} is not a Stable Diffusion 1.x or 2.x checkpoint: it lacks {probe}")
    width = tensors[probe].shape[-1] if tensors[probe].ndim else 0
    if width not in (768, 1024):
        raise ModelError(
            f"{path}: its U-Net reads text of width {width}; Stable Diffusion 1.x has 768, 2.x 1024"
        )
    first = tensors.get(f"{_UNET}input_blocks.0.0.weight")
    if first is None or first.ndim != 4 or not 1 <= first.shape[1] <= 512:
        raise ModelError(
            f"{path} is not a Stable Diffusion 1.x or 2.x checkpoint: its U-Net has no first convolution"
        )
    second = width == 1024
    with damaged(path, "Stable Diffusion 1.x or 2.x checkpoint"):  # diffusers' converters raise KeyError
        parts = {
            "unet": _unet(tensors, int(first.shape[1]), second, path, options),
            "vae": _vae(tensors, path, options),
            "text_encoder": _text(tensors, second, path, options),
        }
    kind = "v_prediction" if second else "epsilon"
    return {**parts, "tokenizer": None, "scheduler_config": {**SD21_SCHEDULER, "prediction_type": kind}}


# Training schedule and loss networks, which inference does not need.
_SCHEDULE = (
    "betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod", "posterior_variance",
    "posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2", "lvlb_weights", "scale_factor",
    "logvar",
)  # fmt: skip
_IGNORED = ("first_stage_model.loss.",)
_EMA = "model_ema."
_EMA_COUNTS = (f"{_EMA}decay", f"{_EMA}num_updates")


def _known(tensors: Tensors, path: Path, ema: bool) -> Tensors:
    """Drop tensors that only training used; ModelError for tensors of another kind of model."""
    tensors = _averaged(tensors, path) if ema else without(tensors, lambda k: k.startswith(_EMA))
    kept = without(tensors, lambda k: k in _SCHEDULE or k.startswith(_IGNORED))
    strange = [k for k in kept if not k.startswith((_UNET, _VAE, _CLIP, _OPEN_CLIP))]
    if strange:
        raise ModelError(
            f"{path} has the unexpected tensor {strange[0]}; expected a Stable Diffusion 1.x or 2.x checkpoint"
        )
    return kept


def _averaged(tensors: Tensors, path: Path) -> Tensors:
    """Replace the U-Net's weights by their EMA, if the file has it.

    CompVis stores the EMA of a parameter under its name without dots. The EMA is meant for inference, the other weights
    for further training.

    Raises:
        ModelError: the file has the EMA of some of the U-Net's weights only.
    """
    stored = {k for k in tensors if k.startswith(_EMA) and k not in _EMA_COUNTS}
    rest = without(tensors, lambda k: k.startswith(_EMA))
    if not stored:
        return rest
    names = {k: _EMA + k.removeprefix("model.").replace(".", "") for k in rest if k.startswith(_UNET)}
    odd = sorted(set(names.values()) ^ stored)
    if odd:
        what = "lacks" if odd[0] not in stored else "also has"
        raise ModelError(
            f"{path} has averaged weights (EMA) of a part of its U-Net only: it {what} {odd[0]}"
            f"{f' (and {len(odd) - 1} more)' if len(odd) > 1 else ''}; fetch it again, or take a file without {_EMA}*"
        )
    warnings.warn(
        f"{path}: its averaged weights (EMA) are used, not those of its last training step", stacklevel=2
    )
    return {**rest, **{k: tensors[name] for k, name in names.items()}}


def _unet(tensors: Tensors, channels: int, second: bool, path: Path, options: LoadOptions) -> nn.Module:
    from diffusers import UNet2DConditionModel
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    with torch.device("meta"):
        module = UNet2DConditionModel(**sd_unet_config(channels, second))
    mine = {k: v for k, v in tensors.items() if k.startswith(_UNET)}
    renamed = convert_ldm_unet_checkpoint(mine, dict(module.config))
    _nothing_left(mine, renamed, path, "U-Net")
    load_strictly(module, renamed, path, options.dtype)
    return module


def _vae(tensors: Tensors, path: Path, options: LoadOptions) -> nn.Module:
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    with torch.device("meta"):
        module = sd_autoencoder()
    mine = {k: v for k, v in tensors.items() if k.startswith(_VAE)}
    renamed = modern_vae(convert_ldm_vae_checkpoint(mine, dict(module.config)))
    _nothing_left(mine, renamed, path, "autoencoder")
    load_strictly(module, renamed, path, options.dtype)
    return module


def _nothing_left(before: Tensors, after: Tensors, path: Path, what: str) -> None:
    """ModelError unless diffusers' converter has used every tensor."""
    if len(after) != len(before):
        raise ModelError(
            f"{path}: its {what} has {len(before)} tensors, of which only {len(after)} are known; is it a Stable "
            "Diffusion 1.x or 2.x checkpoint?"
        )


def _text(tensors: Tensors, second: bool, path: Path, options: LoadOptions) -> nn.Module:
    from diffusers.loaders.single_file_utils import convert_ldm_clip_checkpoint, convert_open_clip_checkpoint
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        hidden_size=1024 if second else 768,
        intermediate_size=4096 if second else 3072,
        num_hidden_layers=23 if second else 12,
        num_attention_heads=16 if second else 12,
        hidden_act="gelu" if second else "quick_gelu",
        projection_dim=1024 if second else 768,
    )
    with torch.device("meta"):
        module = CLIPTextModel(config)
    if second:
        mine = {k: v for k, v in tensors.items() if k.startswith(_OPEN_CLIP)}
        mine = without(mine, lambda k: k.removeprefix(_OPEN_CLIP).startswith(_UNUSED))
        renamed = without(
            convert_open_clip_checkpoint(module, mine), lambda k: k.startswith("text_projection")
        )
    else:
        renamed = convert_ldm_clip_checkpoint({k: v for k, v in tensors.items() if k.startswith(_CLIP)})
    return filled_text_encoder(config, renamed, path, options)
