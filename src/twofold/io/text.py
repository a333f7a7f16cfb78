"""Escaping of text from files and file names for display."""

from __future__ import annotations

import html
import json
import re
from typing import Any

_MARKDOWN = re.compile(r"[\\`*\[\]|~]|(?<![^\W_])_|_(?![^\W_])")


def escape(text: object) -> str:
    r"""Replace characters that are not printable by escapes: "\x1b", "\n", "\u202e", "\udcff".

    This prevents terminal control sequences, line breaks, bidirectional overrides and encoding errors. Letters of all
    scripts are kept.
    """
    found = str(text)
    if found.isprintable():
        return found
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in found)


def quoted(text: object, limit: int = 80) -> str:
    """`text` escaped, in quotes, truncated to about `limit` characters."""
    shown = escape(text)
    return f"'{shown if len(shown) <= limit else shown[: limit - 3] + '...'}'"


def first_line(error: BaseException) -> str:
    """The first line of an error's message that is not blank, or the name of its class where there is none."""
    lines = (line.strip() for line in str(error).splitlines())
    return next(filter(None, lines), type(error).__name__)


def escape_html(text: object) -> str:
    """Escape `text` for HTML elements and quoted attributes: markup, and non-printable characters like `escape`."""
    return html.escape(escape(text))


def escape_markdown(text: object) -> str:
    """Escape `text` for a line or table cell of Markdown: markup, HTML, and non-printable characters like `escape`."""
    plain = _MARKDOWN.sub(lambda match: f"\\{match[0]}", str(text).replace("\n", " "))
    return html.escape(escape(plain), quote=False)


def to_json(value: Any, indent: int | None = None, allow_nan: bool = False) -> str:
    """`value` as JSON. Letters of all scripts are kept; characters that are not printable are escaped.

    The text is valid UTF-8 even if a name in it is not, and safe to print to a terminal.
    ValueError or TypeError for values that JSON cannot represent (NaN unless `allow_nan`, other types).
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=allow_nan, indent=indent)
    # Outside of strings all characters are printable, except line ends of indented text.
    if text.replace("\n", "").isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)
