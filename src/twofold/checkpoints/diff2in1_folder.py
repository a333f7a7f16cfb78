"""Loads a folder with the two checkpoint files of Diff-2-in-1, and optionally that of Stable Diffusion."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..backbones.stable_diffusion import StableDiffusion
from ..heads import Head
from . import components
from .components import LoadOptions
from .diff2in1 import read_head
from .ldm import read_ldm
from .locate import fetch_base
from .strict import ModelError
from .tokenizer import base_tokenizer
from .weights import read_file, weight_files


@dataclass(frozen=True)
class Diff2in1Files:
    """The files of the fusion network and of the decoder, and that of Stable Diffusion if there is one."""

    fusion: Path
    decoder: Path
    base: Path | None


def is_diff2in1_dir(folder: Path) -> bool:
    """Whether a folder has the two files of Diff-2-in-1 and is not a pipeline of diffusers."""
    if (folder / "model_index.json").exists():
        return False
    try:
        find_files(folder)
    except ModelError:
        return False
    return True


def find_files(folder: Path) -> Diff2in1Files:
    """Find the files of a folder by their tensors: those of the last epoch, of the teacher if there is one.

    Raises:
        ModelError: one of the two files is missing, or their epochs differ.
    """
    found: dict[str, list[Path]] = {"fusion": [], "decoder": [], "base": []}
    paths = sorted(p for p in folder.glob("*") if p.suffix in (".pth", ".pt", ".ckpt", ".safetensors"))
    for path in paths:
        keys = set(read_file(path, meta=True))
        for network, key in (
            ("fusion", "low_feature_conv.0.weight"),
            ("decoder", "out_conv_res8.weight"),
            ("base", "model.diffusion_model.input_blocks.0.0.weight"),
        ):
            if key in keys:
                found[network].append(path)
    for network, name in (("fusion", "sn_ckpt"), ("decoder", "bae_ckpt")):
        if not found[network]:
            raise ModelError(f"{folder} has no file with the {network} network ({name}) of Diff-2-in-1")
    chosen = {network: max(files, key=_order) for network, files in found.items() if files}
    if _epoch(chosen["fusion"]) != _epoch(chosen["decoder"]):
        raise ModelError(
            f"{folder}: {chosen['fusion'].name} and {chosen['decoder'].name} are of different epochs; keep one"
        )
    return Diff2in1Files(chosen["fusion"], chosen["decoder"], chosen.get("base"))


def _order(path: Path) -> tuple[bool, int]:
    """Sort key: students, whose file names have ``_e_``, come before teachers; then by epoch."""
    return "_e_" not in path.stem, _epoch(path)


def _epoch(path: Path) -> int:
    number = re.search(r"(\d+)$", path.stem)
    return int(number[1]) if number else -1


_SUBFOLDERS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")


def assemble(
    folder: Path, options: LoadOptions, base: str = "", tasks: Sequence[str] = ("normals",)
) -> tuple[StableDiffusion, dict[str, Head], list[Path]]:
    """Load a folder with the two files.

    Args:
        folder: the folder, which may also have the file ``model.ckpt`` of Stable Diffusion 1.5.
        options: options of reading weights.
        base: folder or hub id of Stable Diffusion 1.5, if the folder does not have it.
        tasks: names of the tasks that the head predicts.

    Returns:
        Backbone, head by task, and the weight files.

    Raises:
        ModelError: a file is missing or does not fit.
    """
    found = find_files(folder)
    head = read_head(found.fusion, found.decoder, options).head
    files = [found.fusion, found.decoder]
    if found.base is None:
        base_folder = fetch_base("sd15", _SUBFOLDERS, base, options.variant)
        net = components.stable_diffusion(base_folder, options)
        files += [f for name in _SUBFOLDERS[:3] for f in weight_files(base_folder / name, options.variant)]
    else:
        # The released code uses the weights of the last step, not the EMA, and heads were trained on those.
        networks = read_ldm(found.base, options, ema=False)
        net = StableDiffusion(**{**networks, "tokenizer": base_tokenizer("sd15", base)})
        if net.tokenizer is None and not options.meta:
            net.prompt_embeds[""] = _empty_prompt(net.text_encoder)
        files.append(found.base)
    levels = [sum(level) for level in net.levels]
    if levels != head.config["levels"]:
        raise ModelError(
            f"{found.fusion} reads levels of {head.config['levels']} channels, and the U-Net has {levels}; pass "
            "another --base"
        )
    return net, dict.fromkeys(tasks, head), files


@torch.no_grad()
def _empty_prompt(text_encoder: Any) -> Tensor:
    """The embedding ``77 d`` of the empty prompt, whose tokens are known without a tokenizer: BOS, then EOS."""
    config = text_encoder.config
    ids = torch.full((1, config.max_position_embeddings), 49407)
    ids[0, 0] = 49406
    return text_encoder(ids)[0][0].float()
