"""Public data sets as data folders: one file a data set, one line here."""

from __future__ import annotations

from twofold.data.convert.converter import Converter, convert

CONVERTERS: dict[str, Converter] = {
    c.name: c
    for c in (
        # one line a data set
    )
}

__all__ = ["CONVERTERS", "Converter", "convert"]
