"""Reads single-file checkpoints of Stable Diffusion 1.x and 2.x in the format of CompVis and Stability AI."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..backbones.new import SD21_SCHEDULER, sd_autoencoder, sd_unet_config
from .components import LoadOptions, build_text_encoder
from .names import modern_vae, without
from .strict import ModelError, Tensors, damaged, load_strictly
from .weights import read_file

_UNET, _VAE = "model.diffusion_model.", "first_stage_model."
_CLIP, _OPEN_CLIP = "cond_stage_model.transformer.", "cond_stage_model.model."
# SD 2.x uses neither OpenCLIP's last layer nor its projection.
_UNUSED = ("transformer.resblocks.23.", "text_projection", "logit_scale")


def read_ldm(path: Path, options: LoadOptions, ema: bool = True) -> dict[str, Any]:
    """Read U-Net, autoencoder, text encoder and scheduler settings of one file, as arguments of `StableDiffusion`.

    The text width of the U-Net determines the version (768: 1.x, 1024: 2.x). The prediction type of a 2.x network is
    not in its file; v is assumed, which 768-pixel models predict.

    Args:
        path: the file.
        options: options of reading weights.
        ema: whether to use the EMA weights of the U-Net, with a warning, if the file has them.

    Raises:
        ModelError: the file is not such a checkpoint, or a tensor does not fit.
    """
    tensors = _select(read_file(path, options.dtype, options.meta), path, ema)
    text_key = f"{_UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
    if text_key not in tensors:
        raise ModelError(f"{path} is not a Stable Diffusion 1.x or 2.x checkpoint: it lacks {text_key}")
    width = tensors[text_key].shape[-1] if tensors[text_key].ndim else 0
    if width not in (768, 1024):
        raise ModelError(
            f"{path}: its U-Net reads text of width {width}; Stable Diffusion 1.x has 768, 2.x 1024"
        )
    first = tensors.get(f"{_UNET}input_blocks.0.0.weight")
    if first is None or first.ndim != 4 or not 1 <= first.shape[1] <= 512:
        raise ModelError(
            f"{path} is not a Stable Diffusion 1.x or 2.x checkpoint: its U-Net has no first convolution"
        )
    sd2 = width == 1024
    with damaged(path, "Stable Diffusion 1.x or 2.x checkpoint"):  # diffusers' converters raise KeyError
        networks = {
            "unet": _unet(tensors, int(first.shape[1]), sd2, path, options),
            "vae": _vae(tensors, path, options),
            "text_encoder": _text_encoder(tensors, sd2, path, options),
        }
    prediction_type = "v_prediction" if sd2 else "epsilon"
    scheduler_config = {**SD21_SCHEDULER, "prediction_type": prediction_type}
    return {**networks, "tokenizer": None, "scheduler_config": scheduler_config}


# Tensors of the training schedule and of loss networks, which inference does not need.
_SCHEDULE = (
    "betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod", "posterior_variance",
    "posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2", "lvlb_weights", "scale_factor",
    "logvar",
)  # fmt: skip
_IGNORED = ("first_stage_model.loss.",)
_EMA = "model_ema."
_EMA_COUNTS = (f"{_EMA}decay", f"{_EMA}num_updates")


def _select(tensors: Tensors, path: Path, ema: bool) -> Tensors:
    """Drop tensors that only training needs. ModelError for tensors of another kind of model."""
    tensors = _use_ema(tensors, path) if ema else without(tensors, lambda k: k.startswith(_EMA))
    selected = without(tensors, lambda k: k in _SCHEDULE or k.startswith(_IGNORED))
    unexpected = [k for k in selected if not k.startswith((_UNET, _VAE, _CLIP, _OPEN_CLIP))]
    if unexpected:
        raise ModelError(
            f"{path} has the unexpected tensor {unexpected[0]}; expected a Stable Diffusion 1.x or 2.x checkpoint"
        )
    return selected


def _use_ema(tensors: Tensors, path: Path) -> Tensors:
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
    unmatched = sorted(set(names.values()) ^ stored)
    if unmatched:
        problem = "lacks" if unmatched[0] not in stored else "also has"
        more = f" (and {len(unmatched) - 1} more)" if len(unmatched) > 1 else ""
        raise ModelError(
            f"{path} has averaged weights (EMA) of a part of its U-Net only: it {problem} {unmatched[0]}{more}; fetch "
            f"it again, or use a file without {_EMA}*"
        )
    warnings.warn(
        f"{path}: its averaged weights (EMA) are used, not those of its last training step", stacklevel=2
    )
    return {**rest, **{k: tensors[name] for k, name in names.items()}}


def _unet(tensors: Tensors, channels: int, sd2: bool, path: Path, options: LoadOptions) -> nn.Module:
    from diffusers import UNet2DConditionModel
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    with torch.device("meta"):
        module = UNet2DConditionModel(**sd_unet_config(channels, sd2))
    selected = {k: v for k, v in tensors.items() if k.startswith(_UNET)}
    renamed = convert_ldm_unet_checkpoint(selected, dict(module.config))
    _check_all_converted(selected, renamed, path, "U-Net")
    load_strictly(module, renamed, path, options.dtype)
    return module


def _vae(tensors: Tensors, path: Path, options: LoadOptions) -> nn.Module:
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    with torch.device("meta"):
        module = sd_autoencoder()
    selected = {k: v for k, v in tensors.items() if k.startswith(_VAE)}
    renamed = modern_vae(convert_ldm_vae_checkpoint(selected, dict(module.config)))
    _check_all_converted(selected, renamed, path, "autoencoder")
    load_strictly(module, renamed, path, options.dtype)
    return module


def _check_all_converted(before: Tensors, after: Tensors, path: Path, network: str) -> None:
    """ModelError if diffusers' converter has not used every tensor."""
    if len(after) != len(before):
        raise ModelError(
            f"{path}: its {network} has {len(before)} tensors, of which only {len(after)} are known; is it a Stable "
            "Diffusion 1.x or 2.x checkpoint?"
        )


def _text_encoder(tensors: Tensors, sd2: bool, path: Path, options: LoadOptions) -> nn.Module:
    from diffusers.loaders.single_file_utils import convert_ldm_clip_checkpoint, convert_open_clip_checkpoint
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        hidden_size=1024 if sd2 else 768,
        intermediate_size=4096 if sd2 else 3072,
        num_hidden_layers=23 if sd2 else 12,
        num_attention_heads=16 if sd2 else 12,
        hidden_act="gelu" if sd2 else "quick_gelu",
        projection_dim=1024 if sd2 else 768,
    )
    with torch.device("meta"):
        module = CLIPTextModel(config)
    if sd2:
        selected = {k: v for k, v in tensors.items() if k.startswith(_OPEN_CLIP)}
        selected = without(selected, lambda k: k.removeprefix(_OPEN_CLIP).startswith(_UNUSED))
        renamed = without(
            convert_open_clip_checkpoint(module, selected), lambda k: k.startswith("text_projection")
        )
    else:
        renamed = convert_ldm_clip_checkpoint({k: v for k, v in tensors.items() if k.startswith(_CLIP)})
    return build_text_encoder(config, renamed, path, options)
