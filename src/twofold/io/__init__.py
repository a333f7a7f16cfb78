"""Below everything else: which names files may have, and how text from files is displayed."""

from twofold.io.names import UnsafeNameError, check_name, safe_output_path
from twofold.io.text import escape, escape_html, escape_markdown, quoted, to_json

__all__ = [
    "UnsafeNameError",
    "check_name",
    "escape",
    "escape_html",
    "escape_markdown",
    "quoted",
    "safe_output_path",
    "to_json",
]
