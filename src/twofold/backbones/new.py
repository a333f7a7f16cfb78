"""Makes randomly initialised backbones: the architecture of the embedded model, and full-size SD 2.1."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from .stable_diffusion import StableDiffusion

# v-prediction with zero terminal SNR (Lin et al. 2024): the last time step is pure noise, from which sampling starts.
# At this time step alpha = 0 and x0 = -v, which is the parametrization of one-step prediction.
MINIATURE_SCHEDULER = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
    "clip_sample": False,
    "set_alpha_to_one": True,
    "steps_offset": 1,  # required by diffusers; unused with trailing spacing
}

SD21_SCHEDULER = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}


def miniature_autoencoder(width: int = 32) -> AutoencoderTiny:
    """An autoencoder of stride 8 with 4 latent channels, about 0.45 M parameters and no blocks at full resolution."""
    return AutoencoderTiny(
        encoder_block_out_channels=(width,) * 4,
        decoder_block_out_channels=(width,) * 4,
        num_encoder_blocks=(0, 1, 3, 3),
        num_decoder_blocks=(3, 3, 1, 0),
        latent_channels=4,
    )


def miniature_unet(
    widths: tuple[int, ...] = (64, 128, 192, 192), text_width: int = 128
) -> UNet2DConditionModel:
    """A U-Net with the four resolution levels of SD 2.1 and about a sixtieth of its parameters (14.5 M)."""
    return UNet2DConditionModel(
        sample_size=32,
        in_channels=4,
        out_channels=4,
        block_out_channels=widths,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=tuple(max(1, w // 32) for w in widths),  # in diffusers: the number of heads
        cross_attention_dim=text_width,
        use_linear_projection=True,
        norm_num_groups=min(16, widths[0] // 2),
    )


def miniature_text_encoder(
    captions: Iterable[str], width: int = 128, layers: int = 3
) -> tuple[CLIPTextModel, Any]:
    """A small CLIP text encoder, and a tokenizer that is trained on ``captions``."""
    from .tokenizer import train_tokenizer

    tokenizer = train_tokenizer(captions)
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        max_position_embeddings=tokenizer.model_max_length,
        projection_dim=width,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config), tokenizer


def miniature(captions: Iterable[str], seed: int = 0) -> StableDiffusion:
    """A small Stable Diffusion with random weights, the architecture of the embedded model.

    Args:
        captions: captions to train the tokenizer on.
        seed: seed of the weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        text, tokenizer = miniature_text_encoder(captions)
        net = StableDiffusion(miniature_unet(), miniature_autoencoder(), text, tokenizer, MINIATURE_SCHEDULER)
    return net.eval()


def reinitialize(
    backbone: StableDiffusion, networks: Collection[str], captions: Iterable[str], seed: int = 0
) -> None:
    """Reinitialize networks of ``backbone`` with random weights of the same shapes, in place.

    Args:
        backbone: the backbone.
        networks: any of ``unet``, ``decoder`` (that of the autoencoder) and ``text`` (the text encoder, with a
            tokenizer that is trained on ``captions``).
        captions: captions to train the tokenizer on, for ``text``.
        seed: seed of the weights.
    """
    config: Any = backbone.text_encoder.config if backbone.text_encoder is not None else CLIPTextConfig()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if "text" in networks:
            text, tokenizer = miniature_text_encoder(captions, config.hidden_size, config.num_hidden_layers)
            backbone.text_encoder, backbone.tokenizer = text.eval(), tokenizer
        if "unet" in networks:
            backbone.unet = UNet2DConditionModel.from_config(backbone.unet.config).eval()
        if "decoder" in networks:
            vae = type(backbone.vae).from_config(backbone.vae.config).eval()
            backbone.vae.decoder = vae.decoder
            if isinstance(vae, AutoencoderKL) and vae.post_quant_conv is not None:
                backbone.vae.post_quant_conv = vae.post_quant_conv


def expand_conv_in(backbone: StableDiffusion, channels: int, outputs: int = 1) -> None:
    """Expand the first layer to ``channels`` inputs and the last layer to ``outputs`` latents, in place.

    The weights of the first layer are repeated and divided by the number of copies, so that its output for repeated
    inputs equals that of the original layer; its bias is unchanged (Marigold, sec. 3.2; GenPercept). The weights of the
    last layer are repeated for each output.

    Raises:
        ValueError: a new number of channels is not a multiple of the old number.
    """
    unet = backbone.unet
    if channels != backbone.input_channels:
        times, rest = divmod(channels, backbone.input_channels)
        if rest or not times:
            raise ValueError(
                f"conv_in has {backbone.input_channels} input channels and cannot be expanded to {channels}; expected "
                "a multiple"
            )
        unet.conv_in = _repeat_inputs(unet.conv_in, times)
        unet.register_to_config(in_channels=channels)
        backbone.input_channels = channels
    current = int(unet.config["out_channels"])
    if current != outputs * backbone.latent_channels:
        times, rest = divmod(outputs * backbone.latent_channels, current)
        if rest or not times:
            raise ValueError(
                f"conv_out has {current} output channels and cannot be expanded to {outputs} x "
                f"{backbone.latent_channels}; expected a multiple"
            )
        unet.conv_out = _repeat_outputs(unet.conv_out, times)
        unet.register_to_config(out_channels=current * times)


def _repeat_inputs(conv: nn.Conv2d, times: int) -> nn.Conv2d:
    return _conv_from(conv.weight.detach().repeat(1, times, 1, 1) / times, conv.bias)


def _repeat_outputs(conv: nn.Conv2d, times: int) -> nn.Conv2d:
    bias = None if conv.bias is None else conv.bias.detach().repeat(times)
    return _conv_from(conv.weight.detach().repeat(times, 1, 1, 1), bias)


def _conv_from(weight: Tensor, bias: Tensor | None) -> nn.Conv2d:
    """A 3x3 convolution with copies of these weights."""
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1, bias=bias is not None).to(weight)
    with torch.no_grad():
        conv.weight.copy_(weight)
        if bias is not None and conv.bias is not None:
            conv.bias.copy_(bias)
    return conv


def tiny(seed: int = 0) -> StableDiffusion:
    """A randomly initialised backbone of a few thousand parameters for tests, with the real module classes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        text, tokenizer = miniature_text_encoder(
            ["a red chair", "a depth map", "surface normals"], width=32, layers=1
        )
        unet = miniature_unet((16, 16, 32, 32), text_width=32)
        vae = miniature_autoencoder(width=8)
    return StableDiffusion(unet, vae, text, tokenizer, MINIATURE_SCHEDULER).eval()


def sd_unet_config(channels: int = 4, sd2: bool = True) -> dict[str, Any]:
    """Config of the U-Net of Stable Diffusion 2.x (``sd2``) or 1.x, with ``channels`` input channels."""
    return {
        "sample_size": 96 if sd2 else 64,
        "in_channels": channels,
        "block_out_channels": (320, 640, 1280, 1280),
        "attention_head_dim": (5, 10, 20, 20) if sd2 else 8,
        "cross_attention_dim": 1024 if sd2 else 768,
        "use_linear_projection": sd2,
    }


def sd_autoencoder() -> AutoencoderKL:
    """The autoencoder that Stable Diffusion 1.x and 2.x share (83.7 M parameters), with random weights."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        sample_size=768,
    )


def sd21_networks() -> tuple[UNet2DConditionModel, AutoencoderKL]:
    """SD 2.1's U-Net (865.9 M parameters) and autoencoder with random weights."""
    return UNet2DConditionModel(**sd_unet_config()), sd_autoencoder()


def sd21(seed: int = 0, dtype: torch.dtype = torch.float32) -> StableDiffusion:
    """SD 2.1 at full size with random weights, and a one-layer text encoder of its width (1024)."""
    before = torch.get_default_dtype()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_default_dtype(dtype)
        try:
            text, tokenizer = miniature_text_encoder(["a photograph"], width=1024, layers=1)
            unet, vae = sd21_networks()
        finally:
            torch.set_default_dtype(before)
    return StableDiffusion(unet, vae, text, tokenizer, SD21_SCHEDULER).eval()
