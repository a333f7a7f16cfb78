"""Folders with Diff-2-in-1's two files, and optionally Stable Diffusion."""

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
from .diff2in1 import read_pair
from .ldm import read_ldm
from .locate import fetch_base
from .strict import ModelError
from .tokenizer import foreign_tokenizer
from .weights import read_file, weight_files


@dataclass(frozen=True)
class Files:
    """The files of a folder: Diff-2-in-1's two, and optionally Stable Diffusion's."""

    fusion: Path
    decoder: Path
    base: Path | None


def is_diff2in1_dir(folder: Path) -> bool:
    """Whether a folder without settings holds Diff-2-in-1's two files."""
    if (folder / "model_index.json").exists():
        return False
    try:
        find_files(folder)
    except ModelError:
        return False
    return True


def find_files(folder: Path) -> Files:
    """Find the files of a folder by their tensors: the last epoch, and the teacher rather than the student.

    Raises:
        ModelError: one of the two is missing.
    """
    found: dict[str, list[Path]] = {"fusion": [], "decoder": [], "base": []}
    paths = sorted(p for p in folder.glob("*") if p.suffix in (".pth", ".pt", ".ckpt", ".safetensors"))
    for path in paths:
        keys = set(read_file(path, meta=True))
        for part, key in (
            ("fusion", "low_feature_conv.0.weight"),
            ("decoder", "out_conv_res8.weight"),
            ("base", "model.diffusion_model.input_blocks.0.0.weight"),
        ):
            if key in keys:
                found[part].append(path)
    for part, name in (("fusion", "sn_ckpt"), ("decoder", "bae_ckpt")):
        if not found[part]:
            raise ModelError(f"{folder} has no file with the {part} network ({name}) of Diff-2-in-1")
    chosen = {part: max(those, key=_order) for part, those in found.items() if those}
    if _epoch(chosen["fusion"]) != _epoch(chosen["decoder"]):
        raise ModelError(
            f"{folder}: {chosen['fusion'].name} and {chosen['decoder'].name} are of different epochs; keep one"
        )
    return Files(chosen["fusion"], chosen["decoder"], chosen.get("base"))


def _order(path: Path) -> tuple[bool, int]:
    """Sort key: the teacher before the student, whose files have an ``e`` in their names; then the last epoch."""
    return "_e_" not in path.stem, _epoch(path)


def _epoch(path: Path) -> int:
    number = re.search(r"(\d+)$", path.stem)
    return int(number[1]) if number else -1


_PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")


def assemble(
    folder: Path, options: LoadOptions, base: str = "", tasks: Sequence[str] = ("normals",)
) -> tuple[StableDiffusion, dict[str, Head], list[Path]]:
    """The backbone, the head by task and the files read, of a folder with the two files.

    Stable Diffusion 1.5 is the folder's own ``model.ckpt`` where there is one, else a ``base``.

    Raises:
        ModelError: a part is missing or does not fit.
    """
    found = find_files(folder)
    pair = read_pair(found.fusion, found.decoder, options)
    files = [found.fusion, found.decoder]
    if found.base is None:
        home = fetch_base("sd15", _PARTS, base, options.variant)
        net = components.stable_diffusion(home, options)
        files += [f for part in _PARTS[:3] for f in weight_files(home / part, options.variant)]
    else:
        # Their program uses the weights of the last step, not the EMA ones, and heads were trained on those.
        parts = read_ldm(found.base, options, ema=False)
        net = StableDiffusion(**{**parts, "tokenizer": foreign_tokenizer("sd15", base)})
        if net.tokenizer is None and not options.meta:
            net.prompt_embeds[""] = _empty_prompt(net.text_encoder)
        files.append(found.base)
    levels = [sum(level) for level in net.levels]
    if levels != pair.head.config["levels"]:
        raise ModelError(
            f"{found.fusion} reads levels of {pair.head.config['levels']} channels, and the network beside it gives "
            f"{levels}; pass another --base"
        )
    return net, dict.fromkeys(tasks, pair.head), files


@torch.no_grad()
def _empty_prompt(text_encoder: Any) -> Tensor:
    """The embedding ``77 d`` of the empty prompt, whose tokens need no tokenizer: BOS, then EOS."""
    config = text_encoder.config
    ids = torch.full((1, config.max_position_embeddings), 49407)
    ids[0, 0] = 49406
    return text_encoder(ids)[0][0].float()
