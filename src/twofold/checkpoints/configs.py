"""Validates config files of other libraries before they are used.

Checkpoints are untrusted, and these libraries build what a config describes: a vocabulary of 10^12 tokens, a hundred
thousand layers, code from a kernel hub. So each file is validated as one of the models below. Keys that twofold does
not support may only have the value that disables them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..diffusion import MAX_STEPS
from .strict import ModelError, wrong_value

# Stable Diffusion XL's widest layer has 5120 channels, and its deepest block 10 transformer layers.
Channels = Annotated[int, Field(ge=1, le=16384)]
Layers = Annotated[int, Field(ge=1, le=16)]
Edge = Annotated[int, Field(ge=1, le=16384)]
Blocks = Field(min_length=1, max_length=8)
Share = Annotated[float, Field(ge=0, lt=1)]
Scale = Annotated[float, Field(gt=0, le=1e4)]
Activation = Literal["silu", "swish", "mish", "gelu", "relu"]
Beta = Annotated[float, Field(ge=0, le=1)]
# A key that may only be disabled.
Off = Literal[False] | None


class _Config(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class UNetConfig(_Config):
    """``UNet2DConditionModel`` of the Stable Diffusion family."""

    sample_size: Edge | Annotated[list[Edge], Field(min_length=2, max_length=2)] | None = None
    in_channels: Annotated[int, Field(ge=1, le=512)] = 4
    out_channels: Annotated[int, Field(ge=1, le=512)] = 4
    center_input_sample: bool = False
    flip_sin_to_cos: bool = True
    freq_shift: Annotated[int, Field(ge=0, le=1)] = 0
    down_block_types: Annotated[list[Literal["DownBlock2D", "CrossAttnDownBlock2D"]], Blocks]
    mid_block_type: Literal["UNetMidBlock2DCrossAttn"] = "UNetMidBlock2DCrossAttn"
    up_block_types: Annotated[list[Literal["UpBlock2D", "CrossAttnUpBlock2D"]], Blocks]
    only_cross_attention: bool | Annotated[list[bool], Blocks] = False
    block_out_channels: Annotated[list[Channels], Blocks] = [320, 640, 1280, 1280]
    layers_per_block: Layers | Annotated[list[Layers], Blocks] = 2
    downsample_padding: Annotated[int, Field(ge=0, le=1)] = 1
    mid_block_scale_factor: Scale = 1.0
    dropout: Share = 0.0
    act_fn: Activation = "silu"
    norm_num_groups: Annotated[int, Field(ge=1, le=1024)] = 32
    norm_eps: Annotated[float, Field(gt=0, le=1)] = 1e-5
    cross_attention_dim: Channels = 1280
    transformer_layers_per_block: Layers | Annotated[list[Layers], Blocks] = 1
    attention_head_dim: Channels | Annotated[list[Channels], Blocks] = 8
    num_attention_heads: Channels | Annotated[list[Channels], Blocks] | None = None
    use_linear_projection: bool = False
    class_embed_type: Literal["projection"] | None = None
    projection_class_embeddings_input_dim: Channels | None = None
    upcast_attention: bool = False
    resnet_time_scale_shift: Literal["default", "scale_shift"] = "default"
    resnet_skip_time_act: bool = False
    resnet_out_scale_factor: Scale = 1.0
    time_embedding_type: Literal["positional"] = "positional"
    time_embedding_dim: Channels | None = None
    time_cond_proj_dim: Channels | None = None
    conv_in_kernel: Literal[1, 3, 5, 7] = 3
    conv_out_kernel: Literal[1, 3, 5, 7] = 3
    attention_type: Literal["default"] = "default"
    mid_block_only_cross_attention: bool | None = None
    addition_embed_type_num_heads: Channels = 64
    # Networks that need further inputs are not supported.
    dual_cross_attention: Off = False
    class_embeddings_concat: Off = False
    reverse_transformer_layers_per_block: Off = None
    encoder_hid_dim: Off = None
    encoder_hid_dim_type: Off = None
    addition_embed_type: Off = None
    addition_time_embed_dim: Off = None
    num_class_embeds: Off = None
    time_embedding_act_fn: Off = None
    timestep_post_act: Off = None
    cross_attention_norm: Off = None


class _Autoencoder(_Config):
    in_channels: Literal[3] = 3
    out_channels: Literal[3] = 3
    latent_channels: Annotated[int, Field(ge=1, le=256)] = 4
    force_upcast: bool = True
    scaling_factor: Scale = 0.18215


class KLConfig(_Autoencoder):
    """``AutoencoderKL`` of Stable Diffusion 1.x and 2.x."""

    down_block_types: Annotated[list[Literal["DownEncoderBlock2D"]], Blocks] = ["DownEncoderBlock2D"]
    up_block_types: Annotated[list[Literal["UpDecoderBlock2D"]], Blocks] = ["UpDecoderBlock2D"]
    block_out_channels: Annotated[list[Channels], Blocks] = [64]
    layers_per_block: Layers = 1
    act_fn: Activation = "silu"
    norm_num_groups: Annotated[int, Field(ge=1, le=1024)] = 32
    sample_size: Edge | list[Edge] = 32
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True
    mid_block_add_attention: bool = True
    # Settings of other families, whose latents are shifted.
    shift_factor: Annotated[float, Field(ge=0, le=0)] | None = None
    latents_mean: Off = None
    latents_std: Off = None


class TinyConfig(_Autoencoder):
    """``AutoencoderTiny``."""

    encoder_block_out_channels: Annotated[list[Channels], Blocks] = [64, 64, 64, 64]
    decoder_block_out_channels: Annotated[list[Channels], Blocks] = [64, 64, 64, 64]
    act_fn: Activation = "relu"
    upsample_fn: Literal["nearest", "bilinear"] = "nearest"
    upsampling_scaling_factor: Literal[2] = 2
    num_encoder_blocks: Annotated[list[Annotated[int, Field(ge=0, le=16)]], Blocks] = [1, 3, 3, 3]
    num_decoder_blocks: Annotated[list[Annotated[int, Field(ge=0, le=16)]], Blocks] = [3, 3, 3, 1]
    latent_magnitude: Scale = 3
    latent_shift: Annotated[float, Field(ge=-1e4, le=1e4)] = 0.5
    force_upcast: bool = False
    scaling_factor: Scale = 1.0
    shift_factor: Annotated[float, Field(ge=0, le=0)] | None = 0.0


class TextConfig(_Config):
    """``CLIPTextModel``. Other entries of the config are dropped, because they may name code on the hub."""

    model_config = ConfigDict(extra="ignore")
    vocab_size: Annotated[int, Field(ge=2, le=1 << 20)] = 49408
    hidden_size: Channels = 512
    intermediate_size: Annotated[int, Field(ge=1, le=1 << 17)] = 2048
    projection_dim: Channels | None = 512
    num_hidden_layers: Annotated[int, Field(ge=1, le=128)] = 12
    num_attention_heads: Annotated[int, Field(ge=1, le=1024)] = 8
    max_position_embeddings: Annotated[int, Field(ge=2, le=8192)] = 77
    hidden_act: Literal["quick_gelu", "gelu", "gelu_new", "relu", "silu"] = "quick_gelu"
    layer_norm_eps: Annotated[float, Field(gt=0, le=1)] = 1e-5
    attention_dropout: Share = 0.0
    pad_token_id: Annotated[int, Field(ge=0, le=1 << 20)] | None = 1
    bos_token_id: Annotated[int, Field(ge=0, le=1 << 20)] | None = 49406
    eos_token_id: Annotated[int, Field(ge=0, le=1 << 20)] | None = 49407


class SchedulerConfig(_Config):
    """The entries of diffusers' schedulers that `Schedule` reads, or a ``DDIMScheduler`` that twofold writes."""

    model_config = ConfigDict(extra="ignore")
    class_name: Annotated[str, Field(max_length=100)] = Field(default="DDIMScheduler", alias="_class_name")
    num_train_timesteps: Annotated[int, Field(ge=1, le=MAX_STEPS)] = 1000
    beta_start: Beta = 1e-4
    beta_end: Beta = 0.02
    beta_schedule: Literal["linear", "scaled_linear"] = "linear"
    trained_betas: Annotated[list[Beta], Field(min_length=1, max_length=MAX_STEPS)] | None = None
    prediction_type: Literal["epsilon", "v_prediction", "sample", "flow_prediction"] = "epsilon"
    rescale_betas_zero_snr: bool = False
    set_alpha_to_one: bool = True
    steps_offset: Annotated[int, Field(ge=0, le=1000)] = 0
    timestep_spacing: Literal["leading", "trailing", "linspace"] = "leading"
    clip_sample: bool = True
    clip_sample_range: Scale = 1.0
    thresholding: bool = False
    dynamic_thresholding_ratio: Annotated[float, Field(ge=0, le=1)] = 0.995
    sample_max_value: Scale = 1.0


class PipelineConfig(_Config):
    """The entries of a Marigold pipeline's ``model_index.json``."""

    model_config = ConfigDict(extra="ignore")
    default_denoising_steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    default_processing_resolution: Annotated[int, Field(ge=0, le=8192)] | None = None
    use_full_z_range: bool | None = None
    prediction_type: Annotated[str, Field(max_length=100)] | None = None
    target_properties: Targets | None = None


class Targets(_Config):
    """Names of several maps that one network predicts."""

    model_config = ConfigDict(extra="ignore")
    target_names: Annotated[list[Annotated[str, Field(max_length=100)]], Field(max_length=16)] | None = None


PipelineConfig.model_rebuild()


def validated(kind: type[_Config], config: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The entries of ``config`` that are fields of ``kind``, after validation.

    Args:
        kind: model that validates the file.
        config: contents of the file.
        path: path of the file, for messages.

    Raises:
        ModelError: a value has another type or is out of range.
    """
    fields = {field.alias or name for name, field in kind.model_fields.items()}
    known = {key: value for key, value in config.items() if key in fields}
    try:
        kind.model_validate(known)
    except ValidationError as error:
        raise ModelError(f"{path}: {wrong_value(error)}") from error
    return known
