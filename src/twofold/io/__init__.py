"""Files: atomic writes, locks, JSONL logs, safe names, untrusted JSON, full disks, escaping of text."""

from twofold.io.atomic import (
    atomic_folder as atomic_folder,
    atomic_write as atomic_write,
    remove_leftovers as remove_leftovers,
)
from twofold.io.disk import (
    DiskFullError as DiskFullError,
    as_disk_full as as_disk_full,
    report_disk_full as report_disk_full,
)
from twofold.io.hashing import sha256_file as sha256_file, sha256_text as sha256_text
from twofold.io.jsonl import (
    append_line as append_line,
    complete_lines as complete_lines,
    truncate_partial_line as truncate_partial_line,
)
from twofold.io.locks import file_lock as file_lock
from twofold.io.names import (
    UnsafeNameError as UnsafeNameError,
    check_name as check_name,
    safe_output_path as safe_output_path,
)
from twofold.io.ownership import check_own_folder as check_own_folder
from twofold.io.records import (
    FormatError as FormatError,
    OutputFolder as OutputFolder,
    check_types as check_types,
    check_values as check_values,
    parse_json as parse_json,
    parse_object as parse_object,
)
from twofold.io.seeds import derive_seed as derive_seed
from twofold.io.shards import Shard as Shard
from twofold.io.text import (
    escape as escape,
    escape_html as escape_html,
    escape_markdown as escape_markdown,
    first_line as first_line,
    quoted as quoted,
    to_json as to_json,
)
