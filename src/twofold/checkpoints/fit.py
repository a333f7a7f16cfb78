"""Checks that the components of a checkpoint are compatible, on the meta device, without computation."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ..backbones.stable_diffusion import StableDiffusion
from ..heads import Head
from ..io import first_line
from .strict import ModelError


def check_text(net: StableDiffusion, where: Path) -> None:
    """Check that the text width of the U-Net is that of the text encoder or the stored embeddings.

    Args:
        net: the backbone.
        where: path of the U-Net, for messages.

    Raises:
        ModelError: the widths differ.
    """
    width = int(net.unet.config["cross_attention_dim"])
    stored = {int(v.shape[-1]) for v in net.prompt_embeds.values()}
    found = {net.text_width} | stored if net.text_width is not None else stored
    for other in found - {width}:
        raise ModelError(
            f"{where} reads text of width {width}, and the text encoder or stored prompt beside it has {other}; pass "
            "another --base"
        )


def check_head(head: Head, net: StableDiffusion, where: Path) -> None:
    """Check that a head accepts the features of ``net`` and outputs maps of the image's size.

    Args:
        head: the head.
        net: the backbone.
        where: path of the head, for messages.

    Raises:
        ModelError: the head fails, or its output has another size.
    """
    edge = 1 << len(net.levels)
    state = {k: v.to("meta") for k, v in [*head.named_parameters(), *head.named_buffers()]}
    kind = next((v.dtype for v in state.values() if v.is_floating_point()), torch.float32)
    latent = torch.empty(1, net.latent_channels, edge, edge, device="meta", dtype=kind)
    features = tuple(
        torch.empty(1, channels, size, size, device="meta", dtype=kind)
        for channels, size in _features(head, net, edge)
    )
    try:
        with torch.no_grad():
            output = torch.func.functional_call(head.eval(), state, (latent, features, net))
    except Exception as error:  # torch raises various types for incompatible shapes
        reason = first_line(error)
        raise ModelError(f"{where}: this head does not fit the network beside it ({reason})") from error
    size = edge * net.stride
    if not isinstance(output, Tensor) or output.ndim != 4 or output.shape[-2:] != (size, size):
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ModelError(
            f"{where}: this head outputs {shape} for an image of {size} x {size}; expected the size of the image"
        )


def _features(head: Head, net: StableDiffusion, edge: int) -> list[tuple[int, int]]:
    """Channels and edge of each map that a head reads, for a latent of ``edge``; see `Output.features`."""
    feature_set = head.reads_features
    if not feature_set:
        return []
    if feature_set in ("all", "attention"):
        deepest = len(net.levels) - 1
        maps = [(c, edge >> (deepest - i)) for i, level in enumerate(net.levels) for c in level]
        tokens = len(head.config.get("prompts", ())) or 2
        if feature_set == "attention":
            maps += [(tokens, edge >> (deepest - i)) for i in net.cross_attention_levels]
        return maps
    # The last two maps of the up blocks have the latent's resolution; each other map has half that of the next.
    coarse = len(net.feature_channels) - 2
    if feature_set == "pyramid":
        shift = [coarse - i for i in range(len(net.pyramid))]
        return [
            (c, edge >> s if s >= 0 else edge << -s)
            for s, level in zip(shift, net.pyramid, strict=True)
            for c in level
        ]
    return [(c, edge >> max(0, coarse - i)) for i, c in enumerate(net.feature_channels)]
