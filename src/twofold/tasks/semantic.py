"""Semantic classes as ids, encoded in the colours of a fixed palette or predicted as logits.

Colours work with any head, the decoder included; logits need a head that predicts them, such as `heads.UperNetHead`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from ..metrics import semantic_metrics
from ..visualization import UNKNOWN
from .ensemble import Merged
from .image_tasks import unaligned
from .losses import cross_entropy, l1, mse
from .palette import MOST, least_distance, palette
from .task import Task

# Classes of rendered scenes, by id.
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
    target_key: str = "semantic",
) -> Task:
    """Class ids as colours: each class has a colour of `palette`, and a colour is decoded to the nearest class.

    The palette depends on the number of classes, so a trained network works with that number only.

    Args:
        classes: their number, or their names in the order of their ids.
        ignore: ids in the data that are neither trained nor scored, such as ``(255,)``.
        name: of the task.
        prompt: the default text condition.
        target_key: name of the target in a sample.

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
        target_key="" if name == target_key else target_key,
        head_channels=3,
        classes=names,
    )


def semantic_logits_task(
    classes: int | Sequence[str],
    ignore: tuple[int, ...] = (),
    name: str = "semantic_logits",
    prompt: str = "semantic classes",
    target_key: str = "semantic",
) -> Task:
    """Class ids as logits, one channel a class; arguments and errors are those of `semantic_task`.

    Its encoded targets are not images: they have one channel, the ids, and predictions one per class. They have no
    latent, so only a head with ``Task.out_channels`` channels can be trained.
    """
    colored = semantic_task(classes, ignore, name, prompt, target_key)
    n = len(colored.classes)
    return replace(
        colored,
        encode=partial(encode_ids, classes=n, ignore=ignore),
        decode=decode_logits,
        losses={"cross_entropy": cross_entropy},
        weights={"cross_entropy": 1.0},
        head_channels=n,
        is_image=False,
    )


def encode_ids(
    ids: Tensor, valid: Tensor, classes: int, ignore: tuple[int, ...] = ()
) -> tuple[Tensor, Tensor]:
    """Ids unchanged, 0 where they are not trained on.

    Args:
        ids: ``b 1 h w``, whole numbers of any dtype.
        valid: ``b 1 h w`` bool.
        classes: ids are from 0 to this less 1.
        ignore: ids that count as invalid.

    Returns:
        Ids ``b 1 h w`` float32, and the mask ``b 1 h w`` of the pixels that are trained on.

    Raises:
        ValueError: an id that is no class and is not ignored.
    """
    mask = valid & ~torch.isin(ids, ids.new_tensor(ignore))
    known = torch.where(mask, ids, 0).float()
    if bool(((known < 0) | (known >= classes) | (known != known.round())).any()):
        low, high = float(known.min()), float(known.max())
        raise ValueError(
            f"this target has ids from {low:g} to {high:g}, and classes are 0 to {classes - 1}; "
            "pass the number of classes, or the ids to ignore: semantic_task(classes, ignore)"
        )
    return known, mask


def encode(ids: Tensor, valid: Tensor, classes: int, ignore: tuple[int, ...] = ()) -> tuple[Tensor, Tensor]:
    """Encode ids as colours ``b 3 h w`` in [-1, 1], 0 where unknown; otherwise as `encode_ids`."""
    known, mask = encode_ids(ids, valid, classes, ignore)
    colors = palette(classes).to(ids.device) * 2 - 1
    encoded = colors[known.squeeze(1).long()].movedim(-1, 1)
    return torch.where(mask, encoded, 0.0).contiguous(), mask


def decode(encoded: Tensor, classes: int) -> Tensor:
    """Colours ``b 3 h w`` to the id ``b 1 h w`` float32 of the nearest class colour; ties go to the lower id."""
    return _squares(encoded.float(), classes).argmin(1, keepdim=True).float()


def decode_logits(logits: Tensor) -> Tensor:
    """Logits ``b n h w`` to the id ``b 1 h w`` float32 of the largest; ties go to the lower id."""
    return logits.argmax(1, keepdim=True).float()


def colour(pred: Tensor, target: Tensor, mask: Tensor, classes: int) -> Tensor:
    """Cross-entropy over the classes, with logits from the distances to their colours.

    Unlike squared error, it penalises a colour between two classes, which may be that of a third. It is scaled to the
    palette: at a class's own colour it is nearly 0.
    """
    sharp = 8 / (2 * least_distance(palette(classes))) ** 2
    return cross_entropy(-sharp * _squares(pred, classes), decode(target, classes), mask)


def flip(ids: Tensor) -> Tensor:
    """The ids of the mirrored image: columns reversed."""
    return ids.flip(-1)


def distance(a: Tensor, b: Tensor) -> Tensor:
    """1 where ids ``*b 1 h w`` differ, 0 where they do not."""
    return (a != b).float()


def vote(members: Tensor) -> Merged:
    """Majority vote per pixel; ties go to the id of the earliest member.

    Args:
        members: ``n 1 h w`` ids, n at least 1.

    Returns:
        The ids ``1 h w``, and as uncertainty the fraction of members ``1 h w`` with another id.

    Raises:
        ValueError: no members, or another shape.
    """
    if members.ndim != 4 or members.shape[1] != 1 or not members.numel():
        raise ValueError(f"ids to merge are n 1 h w with n at least 1, not {tuple(members.shape)}")
    agreeing = torch.stack([(members == member).sum(0) for member in members])
    most, chosen = agreeing.max(0)
    return Merged(members.gather(0, chosen[None])[0], 1 - most / len(members))


def show(ids: Tensor, classes: int) -> Tensor:
    """Ids ``*b 1 h w`` in the colours of the palette, ``*b 3 h w`` in [0, 1]; values that are no class id are grey."""
    known = (ids >= 0) & (ids < classes)
    colors = palette(classes).to(ids.device)
    return torch.where(known, colors[torch.where(known, ids, 0).squeeze(-3).long()].movedim(-1, -3), UNKNOWN)


def _squares(encoded: Tensor, classes: int) -> Tensor:
    """Squared distances of ``b 3 h w`` to the colours: ``b n h w``."""
    colors = (palette(classes) * 2 - 1).to(encoded)
    dots = torch.einsum("bchw,nc->bnhw", encoded, colors)
    return encoded.square().sum(1, keepdim=True) - 2 * dots + colors.square().sum(1)[:, None, None]


def _names(classes: int | Sequence[str]) -> tuple[str, ...]:
    names = tuple(map(str, range(classes))) if isinstance(classes, int) else tuple(classes)
    if not 2 <= len(set(names)) == len(names) <= MOST:
        raise ValueError(f"semantic classes are 2 to {MOST} with different names; these are {len(names)}")
    return names


semantic = semantic_task(RENDERED)
semantic_logits = semantic_logits_task(RENDERED)
