"""Files: atomic writes, locks, JSONL logs, safe names, untrusted JSON, full disks, escaping of text."""

from twofold.io.atomic import atomic_folder, atomic_write, remove_leftovers
from twofold.io.disk import DiskFullError, as_disk_full, report_disk_full
from twofold.io.hashing import sha256_file, sha256_text
from twofold.io.jsonl import append_line, complete_lines, truncate_partial_line
from twofold.io.locks import file_lock
from twofold.io.names import UnsafeNameError, check_name, safe_output_path
from twofold.io.ownership import check_own_folder
from twofold.io.records import FormatError, OutputFolder, check_types, check_values, parse_json, parse_object
from twofold.io.seeds import derive_seed
from twofold.io.shards import Shard
from twofold.io.text import escape, escape_html, escape_markdown, first_line, quoted, to_json

__all__ = [
    "DiskFullError",
    "FormatError",
    "OutputFolder",
    "Shard",
    "UnsafeNameError",
    "append_line",
    "as_disk_full",
    "atomic_folder",
    "atomic_write",
    "check_name",
    "check_own_folder",
    "check_types",
    "check_values",
    "complete_lines",
    "derive_seed",
    "escape",
    "escape_html",
    "escape_markdown",
    "file_lock",
    "first_line",
    "parse_json",
    "parse_object",
    "quoted",
    "remove_leftovers",
    "report_disk_full",
    "safe_output_path",
    "sha256_file",
    "sha256_text",
    "to_json",
    "truncate_partial_line",
]
