"""What each pixel belongs to, as the id of a class: painted in the colours of a fixed palette, or told as logits.

Colours go through any head, the decoder included; logits need a head that gives them, such as `heads.UperNetHead`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from ..ensemble import Merged
from ..metrics import semantic_metrics
from ..visualization import UNKNOWN
from .losses import cross_entropy, l1, mse
from .palette import MOST, least_distance, palette
from .pictures import unaligned
from .task import Task

# Of rendered scenes, by id: what the header of such a folder lists.
RENDERED = (
    "sky", "wall", "floor", "ceiling", "window", "door", "curtain", "picture", "rug", "terrain", "road", "building",
    "table", "chair", "sofa", "bed", "shelf", "cabinet", "lamp", "book", "box", "bottle", "bowl", "vase", "cushion",
    "plant", "screen", "object", "person", "tree", "car", "fence", "rock", "pole", "bench", "cup", "ball", "mountain",
)  # fmt: skip


def semantic_task(
    classes: int | Sequence[str],
    ignore: tuple[int, ...] = (),
    name: str = "semantic",
    prompt: str = "semantic classes",
    source: str = "semantic",
) -> Task:
    """Class ids as pictures: each class has its colour of `palette`, and a colour is read as the class nearest to it.

    The palette is that of the number of classes, so a network reads only with the number it was trained with.

    Args:
        classes: how many there are, or their names in the order of their ids.
        ignore: ids in the data that are neither learned from nor scored, such as ``(255,)``.
        name: of the task.
        prompt: that asks for it.
        source: the target that it is learned from.

    Raises:
        ValueError: fewer than 2 classes, or more than `palette` has colours for.
    """
    names = _names(classes)
    n = len(names)
    return Task(
        name=name,
        channels=1,
        unit=f"class id, 0 to {n - 1}",
        space="semantic",
        frame=None,
        prompt=prompt,
        encode=partial(encode, classes=n, ignore=ignore),
        decode=partial(decode, classes=n),
        losses={"mse": mse, "l1": l1, "colour": partial(colour, classes=n)},
        weights={"mse": 1.0},
        flip=flip,
        distance=distance,
        merge=vote,
        show=partial(show, classes=n),
        align=unaligned,
        metrics=tuple(semantic_metrics(n, ignore).values()),
        source="" if name == source else source,
        paints=3,
        classes=names,
    )


def semantic_logits_task(
    classes: int | Sequence[str],
    ignore: tuple[int, ...] = (),
    name: str = "semantic_logits",
    prompt: str = "semantic classes",
    source: str = "semantic",
) -> Task:
    """Class ids as logits, one channel a class; arguments and errors are those of `semantic_task`.

    Its canvases are no pictures: what is wanted has one channel, the ids, and what is said has one a class. There is no
    latent of them, so only a head that paints ``Task.paints`` channels can learn them.
    """
    drawn = semantic_task(classes, ignore, name, prompt, source)
    n = len(drawn.classes)
    return replace(
        drawn,
        encode=partial(encode_ids, classes=n, ignore=ignore),
        decode=decode_logits,
        losses={"cross_entropy": cross_entropy},
        weights={"cross_entropy": 1.0},
        paints=n,
        painted=False,
    )


def encode_ids(
    ids: Tensor, valid: Tensor, classes: int, ignore: tuple[int, ...] = ()
) -> tuple[Tensor, Tensor]:
    """Ids to ids: 0 where they are not to be learned from.

    Args:
        ids: ``b 1 h w``, whole numbers of any dtype.
        valid: ``b 1 h w`` bool.
        classes: ids are from 0 to this less 1.
        ignore: ids that count as not valid.

    Returns:
        Ids ``b 1 h w`` float32, and the mask ``b 1 h w`` of where they may be learned from.

    Raises:
        ValueError: an id that is no class and is not ignored.
    """
    mask = valid & ~torch.isin(ids, ids.new_tensor(ignore))
    known = torch.where(mask, ids, 0).float()
    if bool(((known < 0) | (known >= classes) | (known != known.round())).any()):
        low, high = float(known.min()), float(known.max())
        raise ValueError(
            f"this target has ids from {low:g} to {high:g}, and classes are 0 to {classes - 1}; "
            "say how many there are, or which ids to ignore: semantic_task(classes, ignore)"
        )
    return known, mask


def encode(ids: Tensor, valid: Tensor, classes: int, ignore: tuple[int, ...] = ()) -> tuple[Tensor, Tensor]:
    """Ids to a canvas ``b 3 h w`` in [-1, 1], 0 where unknown; otherwise as `encode_ids`."""
    known, mask = encode_ids(ids, valid, classes, ignore)
    colors = palette(classes).to(ids.device) * 2 - 1
    canvas = colors[known.squeeze(1).long()].movedim(-1, 1)
    return torch.where(mask, canvas, 0.0).contiguous(), mask


def decode(canvas: Tensor, classes: int) -> Tensor:
    """Canvas ``b 3 h w`` to the id ``b 1 h w`` float32 of the nearest colour; of two as near, the lower."""
    return _squares(canvas.float(), classes).argmin(1, keepdim=True).float()


def decode_logits(logits: Tensor) -> Tensor:
    """Logits ``b n h w`` to the id ``b 1 h w`` float32 of the largest; of two as large, the lower."""
    return logits.argmax(1, keepdim=True).float()


def colour(said: Tensor, wanted: Tensor, mask: Tensor, classes: int) -> Tensor:
    """Cross-entropy of the classes, each as likely as its colour is near.

    Squared error is content with a colour between two classes, which may be that of a third; this loss is not. It is
    scaled to the palette: at a class's own colour it is nearly 0.
    """
    sharp = 8 / (2 * least_distance(palette(classes))) ** 2
    return cross_entropy(-sharp * _squares(said, classes), decode(wanted, classes), mask)


def flip(ids: Tensor) -> Tensor:
    """The mirror image: columns reversed."""
    return ids.flip(-1)


def distance(a: Tensor, b: Tensor) -> Tensor:
    """1 where ids ``*b 1 h w`` differ, 0 where they do not."""
    return (a != b).float()


def vote(members: Tensor) -> Merged:
    """Per pixel the id that most members have; of several, that of the earliest member.

    Args:
        members: ``n 1 h w`` ids, n at least 1.

    Returns:
        The ids ``1 h w``, and as uncertainty the share of members ``1 h w`` that say otherwise.

    Raises:
        ValueError: no members, or another shape.
    """
    if members.ndim != 4 or members.shape[1] != 1 or not members.numel():
        raise ValueError(f"ids to merge are n 1 h w with n at least 1, not {tuple(members.shape)}")
    agreeing = torch.stack([(members == member).sum(0) for member in members])
    most, chosen = agreeing.max(0)
    return Merged(members.gather(0, chosen[None])[0], 1 - most / len(members))


def show(ids: Tensor, classes: int) -> Tensor:
    """Ids ``*b 1 h w`` in the colours of the palette, ``*b 3 h w`` in [0, 1]; what is no id is grey."""
    known = (ids >= 0) & (ids < classes)
    colors = palette(classes).to(ids.device)
    return torch.where(known, colors[torch.where(known, ids, 0).squeeze(-3).long()].movedim(-1, -3), UNKNOWN)


def _squares(canvas: Tensor, classes: int) -> Tensor:
    """Squared distances of ``b 3 h w`` to the colours: ``b n h w``."""
    colors = (palette(classes) * 2 - 1).to(canvas)
    dots = torch.einsum("bchw,nc->bnhw", canvas, colors)
    return canvas.square().sum(1, keepdim=True) - 2 * dots + colors.square().sum(1)[:, None, None]


def _names(classes: int | Sequence[str]) -> tuple[str, ...]:
    names = tuple(map(str, range(classes))) if isinstance(classes, int) else tuple(classes)
    if not 2 <= len(set(names)) == len(names) <= MOST:
        raise ValueError(f"semantic classes are 2 to {MOST}, each of another name; these are {len(names)}")
    return names


semantic = semantic_task(RENDERED)
semantic_logits = semantic_logits_task(RENDERED)
