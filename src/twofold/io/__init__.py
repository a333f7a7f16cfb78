"""Below everything else: which names files may have, how text from files is read and displayed, full disks."""

from twofold.io.disk import DiskFullError, as_disk_full, report_disk_full
from twofold.io.names import UnsafeNameError, check_name, safe_output_path
from twofold.io.records import FormatError, OutputFolder, check_types, check_values, parse_json, parse_object
from twofold.io.text import escape, escape_html, escape_markdown, quoted, to_json

__all__ = [
    "DiskFullError",
    "FormatError",
    "OutputFolder",
    "UnsafeNameError",
    "as_disk_full",
    "check_name",
    "check_types",
    "check_values",
    "escape",
    "escape_html",
    "escape_markdown",
    "parse_json",
    "parse_object",
    "quoted",
    "report_disk_full",
    "safe_output_path",
    "to_json",
]
