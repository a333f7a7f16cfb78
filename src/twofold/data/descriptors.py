"""Validation of descriptors when a manifest is read, so that the readers can rely on types and ranges.

The entries are documented in `codecs` (targets) and `images` (the image).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_TEXTS = ("path", "codec", "key", "kind", "frame", "facing", "tone", "exif")
_SWITCHES = ("keep_invalid", "soft")
_NUMBERS = ("scale", "offset", "baseline", "focal", "threshold", "label_offset")
# Ids are stored in float32, which represents integers up to this exactly.
_MOST_ID = 2**24
# JSON integers may exceed the range of floats.
_MOST_NUMBER = 1e300


def check_descriptor(how: Any, where: str) -> None:
    """ValueError for the first entry of a descriptor that has a wrong type or range."""
    if not isinstance(how, dict):
        raise ValueError(f"{where} must be an object, not {_abbreviated(how)}")
    for name, value in how.items():
        expected = None if value is None else _wrong(name, value)
        if expected is not None:
            raise ValueError(f"{where}: {name!r} must be {expected}, not {_abbreviated(value)}")
    masks = how.get("masks")
    for name, mask in ({} if masks is None else masks).items():
        check_descriptor(mask, f"{where}, the mask {name!r}")


def _wrong(name: str, value: Any) -> str | None:
    """The expected type of the entry `name` as text, or None if `value` has it."""
    if name in _TEXTS:
        return None if isinstance(value, str) else "text"
    if name in _NUMBERS:
        return None if _is_number(value) else "a finite number"
    if name in _SWITCHES:
        return None if isinstance(value, bool) else "true or false"
    if name in ("index", "channel"):
        return None if _is_whole(value) and value >= 0 else "a whole number from 0 on"
    if name == "shape":
        fits = isinstance(value, list) and 2 <= len(value) <= 3 and all(_is_whole(n) and n > 0 for n in value)
        return None if fits else "[height, width] or [height, width, channels]"
    if name == "stored":
        fits = isinstance(value, list) and all(_is_whole(n) and 0 <= n <= _MOST_ID for n in value)
        return None if fits and value else "a list of ids"
    if name == "palette":
        fits = isinstance(value, list) and all(isinstance(c, list) and _is_color(c) for c in value)
        return None if fits and value else "a list of colours [r, g, b]"
    if name == "valid_range":
        fits = isinstance(value, list) and len(value) == 2 and all(isinstance(n, int | float) for n in value)
        return None if fits else "[least, most]"
    if name == "masks":
        return None if isinstance(value, dict) else "objects by name"
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _MOST_NUMBER


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_color(value: list[Any]) -> bool:
    return len(value) == 3 and all(_is_whole(n) and 0 <= n <= 255 for n in value)


def _abbreviated(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 60 else f"{text[:60]}..."


def merge_descriptors(general: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """A header's descriptor updated with a row's entries; masks of the same name are merged too.

    Null entries are ignored, because tools that convert rows to tables add them.
    """
    masks = dict(general.get("masks") or {})
    for name, mask in (own.get("masks") or {}).items():
        masks[name] = _drop_none(masks.get(name, {})) | _drop_none(mask)
    return _drop_none(general) | _drop_none(own) | ({"masks": masks} if masks else {})


def _drop_none(how: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in how.items() if value is not None}
