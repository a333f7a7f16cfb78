"""Latents of a data folder, encoded once: a frozen encoder need not be asked twice.

Both mirror images are kept, because an encoder is not exactly equivariant to mirroring.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from ..backbones.stable_diffusion import StableDiffusion
from ..data.folder import Folder
from ..geometry import unit
from ..image import atomic_write, resize, resize_map
from ..sample import UNITS, Sample, mixes
from ..tasks import get_task
from .recipe import Source


@dataclass
class Latents:
    """What one folder looks like to the denoiser. Lists run over its samples.

    Attributes:
        captions: one text each.
        images: ``2 z h w`` float16, the image and its mirror image.
        targets: by task, ``2 z h w`` float16, or None where a sample lacks the target.
        masks: by task, ``2 1 h w`` bool: cells all of whose pixels are known.
        canvases: by task, uint8 ``3 H W`` (not mirrored); only where asked for.
        known: by task, bool ``1 H W``, beside ``canvases``.
    """

    captions: list[str] = field(default_factory=list)
    images: list[Tensor] = field(default_factory=list)
    targets: dict[str, list[Tensor | None]] = field(default_factory=dict)
    masks: dict[str, list[Tensor | None]] = field(default_factory=dict)
    canvases: dict[str, list[Tensor | None]] = field(default_factory=dict)
    known: dict[str, list[Tensor | None]] = field(default_factory=dict)

    def labelled(self, task: str) -> list[int]:
        """Indices of the samples that have the task's target."""
        return [i for i, t in enumerate(self.targets.get(task, ())) if t is not None]


def weights_digest(module: nn.Module) -> str:
    """sha256 over a module's parameters."""
    sha = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        sha.update(name.encode())
        sha.update(value.detach().float().contiguous().numpy().tobytes())
    return sha.hexdigest()


def cell_mask(known: Tensor, stride: int) -> Tensor:
    """``b 1 H W`` of pixels to ``b 1 h w`` of latent cells: a cell counts if every pixel of it is known."""
    return -F.max_pool2d(-known.float(), stride) > 0.5


def target_names(tasks: Sequence[str]) -> tuple[str, ...]:
    """What the data calls the targets of ``tasks``."""
    return tuple(dict.fromkeys(get_task(t).target for t in tasks))


def fitted(sample: Sample, size: tuple[int, int], stride: int) -> Sample:
    """A sample brought to training size: never stretched, cut to multiples of ``stride``.

    A labelled one is scaled to cover ``size`` (height, width), an unlabelled one so that its short edge is that of
    ``size``: photographs come in both orientations.
    """
    h, w = sample.image.shape[-2:]
    scale = max(size[0] / h, size[1] / w) if sample.targets else min(size) / min(h, w)
    new = (round(h * scale), round(w * scale))
    image = resize(sample.image, new).clamp(0, 1)
    h, w = (n // stride * stride for n in new)
    targets, valid = {}, {}
    for name, target in sample.targets.items():
        moved, known = resize_map(target, sample.valid[name], new, nearest=not mixes(name))
        if name in UNITS and UNITS[name].unit == "unit vector":
            moved = torch.where(known, unit(moved), 0)
        targets[name], valid[name] = moved[..., :h, :w], known[..., :h, :w]
    return replace(sample, image=image[..., :h, :w], targets=targets, valid=valid, camera=None)


def encode_folder(
    backbone: StableDiffusion,
    source: Source,
    size: tuple[int, int],
    tasks: tuple[str, ...],
    pixels: bool,
    cache: Path,
) -> Latents:
    """The latents of a folder; kept under ``cache`` by what they depend on, and read from there the next time."""
    folder = Folder(source.path, targets=target_names(tasks))
    chosen = source.indices(len(folder))
    manifest = hashlib.sha256("\n".join(folder.ids[i] for i in chosen).encode()).hexdigest()
    key = "/".join((weights_digest(backbone.vae), str(folder.root), manifest, str(size), *tasks, str(pixels)))
    file = cache / f"{folder.root.name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.pt"
    if file.exists():
        return Latents(**torch.load(file, weights_only=True))
    latents = _encode(backbone, folder, chosen, size, tasks, pixels)
    cache.mkdir(parents=True, exist_ok=True)
    with atomic_write(file) as temporary:
        torch.save(vars(latents), temporary)
    return latents


@torch.no_grad()
def _encode(
    backbone: StableDiffusion,
    folder: Folder,
    chosen: list[int],
    size: tuple[int, int],
    tasks: tuple[str, ...],
    pixels: bool,
) -> Latents:
    out = Latents()
    for task in tasks:
        for table in (out.targets, out.masks, out.canvases, out.known):
            table[task] = []
    for i in tqdm(chosen, desc=f"encoding {folder.root.name}", disable=None):
        sample = fitted(folder[i], size, backbone.stride)
        out.captions.append(str(sample.caption))
        out.images.append(_both(backbone, sample.image[None] * 2 - 1))
        for task in tasks:
            learned = get_task(task)
            if learned.target not in sample.targets:
                for table in (out.targets, out.masks, out.canvases, out.known):
                    table[task].append(None)  # type: ignore[union-attr]
                continue
            target, valid = sample.targets[learned.target][None], sample.valid[learned.target][None]
            canvas, known = learned.encode(target, valid)
            mirrored, _ = learned.encode(learned.flip(target), valid.flip(-1))
            out.targets[task].append(backbone.encode(torch.cat([canvas, mirrored])).half())
            out.masks[task].append(cell_mask(torch.cat([known, known.flip(-1)]), backbone.stride))
            out.canvases[task].append(((canvas[0] + 1) * 127.5).round().byte() if pixels else None)
            out.known[task].append(known[0] if pixels else None)
    return out


def _both(backbone: StableDiffusion, canvas: Tensor) -> Tensor:
    return backbone.encode(torch.cat([canvas, canvas.flip(-1)])).half()
