"""Text from files and file names, made safe to display."""

from __future__ import annotations

import html
import json
import re
from typing import Any

_MARKDOWN = re.compile(r"[\\`*\[\]|~]|(?<![^\W_])_|_(?![^\W_])")


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


def escape_html(text: object) -> str:
    """`text` for HTML, in an element or a quoted attribute: markup, and what `escape` escapes."""
    return html.escape(escape(text))


def escape_markdown(text: object) -> str:
    """`text` within a line or a table cell of Markdown: markup, HTML, and what `escape` escapes."""
    plain = _MARKDOWN.sub(lambda match: f"\\{match[0]}", str(text).replace("\n", " "))
    return html.escape(escape(plain), quote=False)


def to_json(value: Any, indent: int | None = None, allow_nan: bool = False) -> str:
    """`value` as JSON. Letters of every script stay; what is not printable is escaped.

    So the text is valid UTF-8 even when a name in it is not, and can be printed to a terminal.
    ValueError or TypeError for what JSON cannot hold (NaN unless `allow_nan`, foreign types).
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=allow_nan, indent=indent)
    # Outside of strings all characters are printable, but for the line ends of an indented text.
    if text.replace("\n", "").isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)
