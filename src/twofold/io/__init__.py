"""Below everything else: which names files may have, and how text from files is displayed."""

from twofold.io.names import UnsafeNameError, check_name, safe_output_path
from twofold.io.text import escape, quoted

__all__ = ["UnsafeNameError", "check_name", "escape", "quoted", "safe_output_path"]
