"""Ids (semantic, instance, parts) from stored levels, indices or colours, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .levels import Levels, ignored, matches


def decode_ids(levels: Levels, how: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Levels ``1 h w``, or colours ``3 h w`` with a ``palette``, to ids and their valid mask.

    Raises:
        ValueError: colours without a palette, a colour that is not in it, or the levels of a JPEG.
    """
    if levels.lossy:
        raise ValueError("JPEG compression changes ids; save them as PNG")
    raw = levels.values
    unknown = matches(raw, how.get("ignore")) | matches(raw, how.get("invalid"))
    if "palette" in how:
        raw = _by_color(raw, how["palette"], unknown)
    elif raw.shape[0] != 1:
        raise ValueError(f"a map of ids has 1 channel, this has {raw.shape[0]}. Is it a preview image?")
    valid = ~unknown & ~raw.isnan()
    if "stored" in how:
        raw = _positions(raw, how["stored"])
        valid &= raw >= 0
    return torch.where(valid, raw + float(how.get("label_offset", 0)), 0.0), valid


def encode_ids(ids: Tensor, valid: Tensor, how: Mapping[str, Any]) -> Tensor:
    """Ids to stored levels; the first value to ignore where they are not valid.

    Raises:
        ValueError: an id that is not an integer or is the ignored value, or a palette, which is for reading only.
    """
    if "palette" in how:
        raise ValueError("ids cannot be written as colours of a palette; remove 'palette'")
    known = ids[valid]
    if bool((known != known.round()).any()):
        strange = float(known[known != known.round()][0])
        raise ValueError(f"{strange:g} is not an id; ids are integers")
    raw = ids - float(how.get("label_offset", 0))
    if "stored" in how:
        raw = torch.tensor(how["stored"], dtype=torch.float32)[torch.where(valid, raw, 0).long()]
    if bool(matches(torch.where(valid, raw, -1.0), how.get("ignore")).any()):
        raise ValueError(f"an id equals the ignored value {how.get('ignore')}; renumber the ids")
    return torch.where(valid, raw, ignored(valid, how))


def _by_color(raw: Tensor, palette: Any, unknown: Tensor) -> Tensor:
    """The index in `palette` of each pixel's colour; ValueError for one that is neither there nor `unknown`."""
    if raw.shape[0] != 3:
        raise ValueError(
            f"ids in colours need 3 channels, this map has {raw.shape[0]}; is it a palette file?"
        )
    colors = torch.tensor(palette, dtype=torch.long)
    packed, keys = (x[0] * 65536 + x[1] * 256 + x[2] for x in (raw.long(), colors.T))
    keys, order = keys.sort()
    place = torch.searchsorted(keys, packed).clamp(max=len(keys) - 1)
    strange = (keys[place] != packed)[None] & ~unknown
    if bool(strange.any()):
        color = raw[:, strange[0]][:, 0].long().tolist()
        raise ValueError(f"the colour {color} is not in the palette, nor in 'ignore'; fix the descriptor")
    return order[place][None].float()


def _positions(raw: Tensor, stored: Any) -> Tensor:
    """The index of each value of `raw` in the list `stored`, -1 if it is not in it."""
    table = torch.full((int(max(stored)) + 2,), -1.0)
    table[torch.tensor(stored)] = torch.arange(len(stored), dtype=torch.float32)
    known = (raw >= 0) & (raw < len(table) - 1) & (raw == raw.round())
    return table[torch.where(known, raw, float(len(table) - 1)).long()]
