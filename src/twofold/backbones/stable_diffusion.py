"""The Stable Diffusion family through diffusers' own modules, from miniature to full size."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from torch import Tensor, nn

from ..diffusion import Schedule
from .backbone import Backbone, Output

Autoencoder = AutoencoderKL | AutoencoderTiny


class StableDiffusion(Backbone):
    """U-Net, autoencoder and CLIP text encoder as diffusers and transformers define them, at any size.

    Args:
        unet: the denoising network.
        vae: ``AutoencoderKL`` or ``AutoencoderTiny``.
        text_encoder: a ``CLIPTextModel``.
        tokenizer: its ``CLIPTokenizer``.
        scheduler_config: the contents of diffusers' ``scheduler_config.json``.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        vae: Autoencoder,
        text_encoder: nn.Module,
        tokenizer: Any,
        scheduler_config: dict[str, Any],
    ) -> None:
        super().__init__()
        self.unet, self.vae, self.text_encoder, self.tokenizer = unet, vae, text_encoder, tokenizer
        self.schedule = Schedule.from_config(scheduler_config)
        self.latent_channels = int(vae.config.latent_channels)
        self.stride = 2 ** (len(_widths(vae)) - 1)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.unet.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the U-Net."""
        return next(self.unet.parameters()).dtype

    def encode(self, canvas: Tensor) -> Tensor:
        """See `Backbone.encode`."""
        out = self.vae.encode(canvas.to(self.vae.dtype))
        latent = out.latents if isinstance(self.vae, AutoencoderTiny) else out.latent_dist.mean
        return latent * self.vae.config.scaling_factor

    def decode(self, latent: Tensor) -> Tensor:
        """See `Backbone.decode`."""
        return self.vae.decode(latent.to(self.vae.dtype) / self.vae.config.scaling_factor).sample

    def embed(self, prompts: Sequence[str], pad: bool = False) -> Tensor:
        """See `Backbone.embed`; a prompt of no words is two tokens, BOS and EOS, when not padded."""
        tokens = self.tokenizer(
            list(prompts), padding="max_length" if pad else True, truncation=True, return_tensors="pt"
        )
        return self.text_encoder(tokens.input_ids.to(self.device))[0].to(self.dtype)

    def forward(self, x: Tensor, t: Tensor, text: Tensor, features: bool = False) -> Output:
        """See `Backbone.forward`."""
        taps: list[Tensor] = []
        hooks = []
        if features:
            hooks = [
                b.register_forward_hook(lambda _m, _i, out: taps.append(out)) for b in self.unet.up_blocks
            ]
        try:
            said = self.unet(x.to(self.dtype), t, encoder_hidden_states=text).sample
        finally:
            for hook in hooks:
                hook.remove()
        return Output(said, tuple(taps))

    def components(self) -> dict[str, nn.Module]:
        """The networks by the folder names of the diffusers layout."""
        return {"unet": self.unet, "vae": self.vae, "text_encoder": self.text_encoder}


def _widths(vae: Autoencoder) -> Sequence[int]:
    return (
        vae.config.encoder_block_out_channels
        if isinstance(vae, AutoencoderTiny)
        else vae.config.block_out_channels
    )


def save_components(backbone: StableDiffusion, folder: Path, dtype: torch.dtype = torch.float16) -> None:
    """Write the diffusers folder layout; ``StableDiffusionPipeline.from_pretrained`` loads the result."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    # Copies: rounding the live weights to half precision and back would change them.
    parts: dict[str, Any] = {k: copy.deepcopy(m).to(dtype) for k, m in backbone.components().items()}
    pipeline = StableDiffusionPipeline(
        **parts,
        tokenizer=backbone.tokenizer,
        scheduler=DDIMScheduler.from_config(dict(backbone.schedule.config)),  # type: ignore[arg-type]
        safety_checker=None,  # type: ignore[arg-type]
        feature_extractor=None,  # type: ignore[arg-type]
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
