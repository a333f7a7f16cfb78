"""Text from files and file names, made safe to display."""

from __future__ import annotations


def escape(text: object) -> str:
    r"""`text` with each character that is not printable as its escape: "\x1b", "\n", "\u202e", "\udcff".

    So no name moves the cursor of a terminal, begins a line, reverses the text around it, or fails to encode.
    Letters of every script stay as they are.
    """
    found = str(text)
    if found.isprintable():
        return found
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in found)


def quoted(text: object, limit: int = 80) -> str:
    """`text` escaped, in quotes, cut to about `limit` characters."""
    shown = escape(text)
    return f"'{shown if len(shown) <= limit else shown[: limit - 3] + '...'}'"
