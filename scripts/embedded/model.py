"""The embedded model for training: one U-Net pass predicts log depth, normals and mask of an image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from twofold.backbones.encoders import pretrained_encoder
from twofold.backbones.image_encoder import ImageAdapter
from twofold.backbones.stable_diffusion import StableDiffusion
from twofold.checkpoints import open_model, save_model
from twofold.checkpoints.settings import ModelSettings, TaskSettings
from twofold.heads import Head, PyramidHead, make_head
from twofold.heads.pyramid import Activation
from twofold.protocols import OneStep

from .losses import unit

ENCODER, PROMPT, TIMESTEP = "efficientnet-lite0", "depth map", 1
WIDTHS = (96, 96, 96, 64, 32)
# By task: the branch that it reads, and the activation of its head.
ACTIVATIONS: dict[str, tuple[str, Activation]] = {
    "depth": ("depth", "depth"),
    "disparity": ("depth", "disparity"),
    "normals": ("normals", "unit"),
    "mask": ("mask", "logit"),
}


class PerceptionModel(nn.Module):
    """U-Net, image encoder with adapters, and a head for each branch; the heads share their pyramid.

    Args:
        backbone: initial model; its autoencoder and text encoder are not trained.
        heads: initial heads by task; pyramid heads of the same shape are used, so that a run continues from an
            exported checkpoint.
    """

    def __init__(self, backbone: StableDiffusion, heads: Mapping[str, Head] | None = None) -> None:
        super().__init__()
        if backbone.image_adapter is None:
            encoder = pretrained_encoder(ENCODER)
            backbone.image_adapter = ImageAdapter.for_unet(encoder, backbone.unet, backbone.stride)
        self.unet, self.image_adapter = backbone.unet, backbone.image_adapter
        branches = {
            branch: activation for branch, activation in ACTIVATIONS.values() if activation != "disparity"
        }
        outputs = {"depth": 1, "normals": 3, "mask": 1}
        self.heads = nn.ModuleDict()
        for branch, activation in branches.items():
            self.heads[branch] = make_head(
                "pyramid", backbone, outputs[branch], widths=WIDTHS, activation=activation
            )
        for head in self._heads[1:]:
            head.pyramid = self._heads[0].pyramid
        for branch, head in self._named():
            initial = (heads or {}).get(branch)
            if initial is not None and initial.config == head.config:
                head.load_state_dict(initial.state_dict())
        self._backbone = [backbone]  # in a list: its autoencoder and text encoder are not parts to be trained
        with torch.no_grad():
            self.register_buffer("text", backbone.embed([PROMPT]), persistent=False)

    @property
    def backbone(self) -> StableDiffusion:
        """The diffusion model."""
        return self._backbone[0]

    @property
    def _heads(self) -> list[Any]:
        return list(self.heads.values())

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Images ``b 3 h w`` in [0, 1] to log depth ``b 1 h w``, unit normals and the mask's logit, in fp32."""
        backbone = self.backbone
        with torch.no_grad():
            latent = backbone.encode(image * 2 - 1).float()
        t = torch.full((len(image),), TIMESTEP, device=image.device)
        text: Any = self.text
        maps = self.image_adapter(image)
        found = backbone(
            latent, t, text.expand(len(image), -1, -1), "pyramid", image_features=maps
        ).features  # fmt: skip
        values = {k: head.values(found, backbone.stride) for k, head in self._named()}
        return values["depth"], unit(values["normals"].float()), values["mask"]

    def _named(self) -> list[tuple[str, PyramidHead]]:
        return [(k, h) for k, h in self.heads.items() if isinstance(h, PyramidHead)]

    def save(self, settings: ModelSettings, folder: Path, size: int) -> None:
        """Write a checkpoint that predicts depth, disparity, normals and mask."""
        heads: dict[str, Head] = {}
        for task, (branch, activation) in ACTIVATIONS.items():
            source: Any = self.heads[branch]
            config: dict[str, Any] = {**source.config, "activation": activation}
            head = PyramidHead(**config)
            head.load_state_dict(source.state_dict())
            heads[task] = head
            head.pyramid = self._heads[0].pyramid
        tasks = {
            task: TaskSettings(
                protocol=OneStep(timestep=TIMESTEP),
                head="pyramid",
                prompt=PROMPT,
                space=task,
                frame="RUB" if task == "normals" else None,
                image_features=True,
            )
            for task in ACTIVATIONS
        }
        save_model(
            self.backbone, settings.model_copy(update={"tasks": tasks, "size": size}), folder, heads=heads
        )


def start(name: str) -> tuple[PerceptionModel, ModelSettings]:
    """The model to train, initialised from a checkpoint: ``embedded``, or a folder."""
    torch.manual_seed(0)
    opened = open_model(name)
    return PerceptionModel(opened.backbone, opened.heads).requires_grad_(True), opened.settings
