"""The backbone of the Stable Diffusion family, made of modules of diffusers and transformers."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from torch import Tensor, nn

from ..diffusion import Schedule
from ..environment import quiet_libraries
from .backbone import Backbone, Output, Posterior
from .feature_collector import FeatureSet, collect_features, cross_attentions, feature_layers
from .image_encoder import ImageAdapter, ImageFeatures, pyramid_channels, pyramid_features

Autoencoder = AutoencoderKL | AutoencoderTiny


class StableDiffusion(Backbone):
    """U-Net, autoencoder and CLIP text encoder of diffusers and transformers, of any size.

    Args:
        unet: the denoising network.
        vae: ``AutoencoderKL`` or ``AutoencoderTiny``.
        text_encoder: a ``CLIPTextModel``; None if ``prompt_embeds`` has every prompt that the model uses.
        tokenizer: the ``CLIPTokenizer`` of the text encoder.
        scheduler_config: the contents of diffusers' ``scheduler_config.json``.
        prompt_embeds: embeddings ``tokens d`` by prompt, used without a text encoder. The first 2 of the 77 embeddings
            of the padded empty prompt are those of the unpadded one, because CLIP's attention is causal.
        image_adapter: an image encoder with adapters for the U-Net, if any.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        vae: Autoencoder,
        text_encoder: nn.Module | None,
        tokenizer: Any,
        scheduler_config: Mapping[str, Any],
        prompt_embeds: Mapping[str, Tensor] | None = None,
        image_adapter: ImageAdapter | None = None,
    ) -> None:
        super().__init__()
        self.unet, self.vae = unet, vae
        # None if `prompt_embeds` is used instead.
        self.text_encoder: Any = text_encoder
        self.tokenizer: Any = tokenizer
        self.image_adapter = image_adapter
        self.schedule = Schedule.from_config(scheduler_config)
        self.prompt_embeds = dict(prompt_embeds or {})
        self.input_channels = int(unet.config.in_channels)
        self.feature_channels = tuple(reversed(unet.config.block_out_channels))
        self.levels = tuple(tuple(p.channels for p in level) for level in feature_layers(unet))
        self.cross_attention_levels = tuple(cross_attentions(unet))
        self.latent_channels = int(vae.config.latent_channels)
        self.stride = 2 ** (len(_widths(vae)) - 1)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.unet.parameters()).device

    @property
    def pyramid(self) -> tuple[tuple[int, ...], ...]:
        """See `Backbone.pyramid`."""
        return pyramid_channels(self.feature_channels, self.image_adapter)

    @property
    def text_width(self) -> int | None:
        """Channels of a prompt embedding; None without a text encoder and stored embeddings."""
        if self.text_encoder is not None:
            return int(self.text_encoder.config.hidden_size)
        return next((int(v.shape[-1]) for v in self.prompt_embeds.values()), None)

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the U-Net."""
        return next(self.unet.parameters()).dtype

    def posterior(self, image: Tensor) -> Posterior:
        """See `Backbone.posterior`; a tiny autoencoder is deterministic."""
        out = self.vae.encode(_as_input(image, self.vae))
        scale, dtype = self.vae.config.scaling_factor, self.dtype
        if isinstance(self.vae, AutoencoderTiny):
            return Posterior(out.latents, None, scale, dtype)
        return Posterior(out.latent_dist.mean, out.latent_dist.std, scale, dtype)

    def decode(self, latent: Tensor) -> Tensor:
        """See `Backbone.decode`."""
        latent = _as_input(latent, self.vae)
        return self.vae.decode(latent / self.vae.config.scaling_factor).sample

    def embed(self, prompts: Sequence[str], pad: bool = False) -> Tensor:
        """See `Backbone.embed`; without padding the empty prompt has two tokens, BOS and EOS.

        Raises:
            ValueError: the model has no text encoder or no tokenizer, and the prompt is not in `prompt_embeds`.
        """
        if (
            self.text_encoder is not None
            and self.tokenizer is None
            and not all(p in self.prompt_embeds for p in prompts)
        ):
            raise ValueError(
                "this model has no tokenizer, because it was read from a single file; pass --base a Stable Diffusion "
                "folder or hub id that has one"
            )
        if self.text_encoder is None or self.tokenizer is None:
            return torch.stack([self._cached_prompt_embeds(p, pad) for p in prompts]).to(
                self.device, self.dtype
            )
        tokens = self.tokenizer(
            list(prompts), padding="max_length" if pad else True, truncation=True, return_tensors="pt"
        )
        return self.text_encoder(tokens.input_ids.to(self.device))[0].to(self.dtype)

    @torch.no_grad()
    def cache_prompt_embeds(self, prompts: Sequence[str], padded: Sequence[str] = ()) -> None:
        """Store the embeddings of ``prompts`` in `prompt_embeds` and remove the text encoder.

        The empty prompt, and those in ``padded``, are stored with all their tokens.

        Raises:
            ValueError: there is no text encoder, and the embedding of a prompt is not stored.
        """
        embeds = {
            p: self.embed([p], pad=(p == "" or p in padded) and self.tokenizer is not None)[0].float().cpu()
            for p in prompts
        }
        self.prompt_embeds.update(embeds)
        self.text_encoder, self.tokenizer = None, None

    def _cached_prompt_embeds(self, prompt: str, pad: bool) -> Tensor:
        embeds = self.prompt_embeds.get(prompt)
        if embeds is None:
            raise ValueError(
                f"this model has no text encoder and no stored embedding of the prompt {prompt!r}; pass --base a "
                "Stable Diffusion model that has a text encoder"
            )
        if not pad:
            return embeds[:2] if prompt == "" else embeds
        if len(embeds) < 77:
            raise ValueError(
                f"the stored embedding of the prompt {prompt!r} has {len(embeds)} tokens; this model needs 77"
            )
        return embeds

    @property
    def has_image_encoder(self) -> bool:
        """See `Backbone.has_image_encoder`."""
        return self.image_adapter is not None

    def image_features(self, image: Tensor) -> ImageFeatures | None:
        """See `Backbone.image_features`."""
        if self.image_adapter is None:
            return None
        return self.image_adapter(_as_input(image.to(self.device), self.unet))

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        text: Tensor,
        features: FeatureSet = False,
        class_labels: Tensor | None = None,
        image_features: ImageFeatures | None = None,
    ) -> Output:
        """See `Backbone.forward`.

        Raises:
            ValueError: image features for a network without an image encoder.
        """
        if image_features is not None and self.image_adapter is None:
            raise ValueError("image features were passed to a network that has no image encoder")
        with ExitStack() as stack:
            if image_features is not None and self.image_adapter is not None:
                stack.enter_context(self.image_adapter.inject(self.unet, image_features))
            collector = stack.enter_context(collect_features(self.unet, features))
            prediction = self.unet(
                _as_input(x, self.unet), t, encoder_hidden_states=text, class_labels=class_labels
            ).sample
        if isinstance(self.unet.conv_out, nn.Identity):
            # Without its output layer the network predicts no latent; a head reads its features.
            prediction = x.new_zeros(len(x), self.latent_channels, *x.shape[2:])
        maps = collector.features(self.unet, features)
        if features == "pyramid":
            maps = pyramid_features(maps, self.image_adapter, image_features)
        return Output(prediction, maps)

    def components(self) -> dict[str, nn.Module]:
        """The networks by their folder names in the layout of diffusers."""
        networks = {"unet": self.unet, "vae": self.vae, "text_encoder": self.text_encoder}
        return {name: network for name, network in networks.items() if network is not None}


def _as_input(x: Tensor, network: nn.Module) -> Tensor:
    """Convert maps to the dtype of a network's weights, and 16-bit maps on a CPU to channels-last layout.

    In this layout convolutions need no reordering. It is not used in float32, where it changes the result by up to
    1e-4 from that of the original code.
    """
    x = x.to(next(network.parameters()).dtype)
    half = x.dtype in (torch.bfloat16, torch.float16)
    return x.contiguous(memory_format=torch.channels_last) if half and x.device.type == "cpu" else x


def _widths(vae: Autoencoder) -> Sequence[int]:
    return (
        vae.config.encoder_block_out_channels
        if isinstance(vae, AutoencoderTiny)
        else vae.config.block_out_channels
    )


def save_components(backbone: StableDiffusion, folder: Path, dtype: torch.dtype = torch.float16) -> None:
    """Write the networks in the layout of diffusers, which ``StableDiffusionPipeline.from_pretrained`` loads."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    # The networks are copied, because a cast to half precision and back would change their weights.
    networks: dict[str, Any] = {k: copy.deepcopy(m).to(dtype) for k, m in backbone.components().items()}
    pipeline = StableDiffusionPipeline(
        **{"text_encoder": None, **networks},
        tokenizer=backbone.tokenizer,
        scheduler=DDIMScheduler.from_config(dict(backbone.schedule.config)),  # type: ignore[arg-type]
        safety_checker=None,  # type: ignore[arg-type]
        feature_extractor=None,  # type: ignore[arg-type]
        requires_safety_checker=False,
    )
    with quiet_libraries():
        pipeline.save_pretrained(folder, safe_serialization=True)
