"""A caption composed from the visible pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from twofold.render.classes import CLASSES, IDS

_NUMBERS = {1: "a", 2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}
_UNNAMED = {"sky", "wall", "floor", "ceiling", "object", "terrain", "road", "mountain"}
_ARRANGED = {
    "still life": "still life of",
    "group": "group of things:",
    "figure": "view of",
    "furniture": "view of",
}
VISIBLE = 0.004
"""Share of the image that an instance must cover to be named."""


def count_phrase(noun: str, plural: str, count: int) -> str:
    """'a chair', 'two chairs', 'several chairs'."""
    if count == 1:
        return ("an " if noun[0] in "aeiou" else "a ") + noun
    return f"{_NUMBERS.get(count, 'several')} {plural}"


def visible(instance: NDArray, kinds: NDArray) -> dict[str, int]:
    """How many instances of each class cover enough of the image, biggest class first."""
    area = np.bincount(instance.ravel(), minlength=len(kinds)) / instance.size
    shown = np.flatnonzero(area >= VISIBLE)
    cover = np.bincount(kinds[shown], weights=area[shown], minlength=len(CLASSES))
    count = np.bincount(kinds[shown], minlength=len(CLASSES))
    return {CLASSES[k].name: int(count[k]) for k in np.argsort(-cover, kind="stable") if count[k]}


def caption(place: str, instance: NDArray, kinds: NDArray, brightness: float, sky_word: str) -> str:
    """place: what the scene is called. instance: h w ids. brightness: mean sRGB value. sky_word:
    adjective of the sky.
    """
    visible_counts = visible(instance, kinds)
    uncountable = {"book": "books", "curtain": "curtains"}
    names = [n for n in visible_counts if n not in _UNNAMED]
    phrases = [
        uncountable[n] if n in uncountable else count_phrase(n, CLASSES[IDS[n]].plural, visible_counts[n])
        for n in names[:5]
    ]
    light = "bright " if brightness > 0.58 else "dark " if brightness < 0.28 else ""
    outside = place in ("street", "park")
    if place in _ARRANGED:
        text = f"a {light}{_ARRANGED[place]} {join_phrases(phrases) or 'something'}"
    else:
        name = place if outside else light + place
        text = (
            ("an " if name[0] in "aeiou" else "a ")
            + name
            + (f" with {join_phrases(phrases)}" if phrases else "")
        )
    if "sky" in visible_counts and outside and sky_word:
        text += f" under {'an' if sky_word[0] in 'aeiou' else 'a'} {sky_word} sky"
    return text


def join_phrases(phrases: list[str]) -> str:
    """'a, b and c'."""
    return (
        phrases[0]
        if len(phrases) == 1
        else ", ".join(phrases[:-1]) + " and " + phrases[-1]
        if phrases
        else ""
    )
