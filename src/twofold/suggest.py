"""Suggestions of the most similar known name, for error messages."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name most similar to ``name``, ignoring case; "" if none is similar."""
    by_lower = {str(k).lower(): str(k) for k in known}
    lower = name[:100].lower()
    found = get_close_matches(lower, by_lower, 1, cutoff=0.65)
    if not found and len(lower) > 2:  # part of a longer name: normal of genpercept-normal
        found = [k for k in by_lower if lower in k or (len(k) > 2 and k in lower)][:1]
    return by_lower[found[0]] if found else ""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`` (did you mean 'x'?)``, to follow the unknown name in a message; "" if no known name is similar."""
    near = nearest(name, known)
    return f" (did you mean {near!r}?)" if near else ""


def unknown(what: str, name: str, known: Iterable[str], most: int = 40) -> str:
    """``unknown task 'dept' (did you mean 'depth'?); known: depth, normals``, with at most ``most`` known names."""
    names = [str(k) for k in known]
    listed = ", ".join(names[:most]) + (", ..." if len(names) > most else "")
    shown = name if len(name) <= 80 else f"{name[:77]}..."  # names in files may be of any length
    return f"unknown {what} {shown!r}{did_you_mean(name, names)}; known: {listed or 'none'}"
