"""Reading of Hugging Face datasets: the files of a split, and their rows in small batches.

`datasets` saves Arrow streams beside a `state.json`; Parquet files have the split in their names. Only the requested
columns are read. Needs the extra `data` (pyarrow).
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from twofold.data.layout import FolderError
from twofold.io import FormatError, parse_object


def _arrow(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise FolderError("tables need the package pyarrow; run: pip install 'twofold[data]'") from None


def iter_rows(files: Sequence[Path], names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the columns ``names`` of each row of the files, in order."""
    for path in files:
        try:
            for batch in _batches(path, names):
                for index in range(batch.num_rows):
                    yield {name: batch.column(name)[index].as_py() for name in names}
        except (_arrow("pyarrow").ArrowInvalid, OSError) as error:
            detail = " ".join(str(error).split())[:120]
            raise FolderError(f"{path} is damaged or truncated ({detail}); download it again") from None


def _batches(path: Path, names: Sequence[str]) -> Iterator[Any]:
    if path.suffix == ".parquet":
        parquet = _arrow("pyarrow.parquet")
        with parquet.ParquetFile(path) as file:
            _check_columns(path, file.schema_arrow.names, names)
            yield from file.iter_batches(batch_size=8, columns=list(names))
        return
    arrow = _arrow("pyarrow")
    with arrow.memory_map(str(path)) as mapped, arrow.ipc.open_stream(mapped) as stream:
        _check_columns(path, stream.schema.names, names)
        yield from stream


def _check_columns(path: Path, found: Sequence[str], names: Sequence[str]) -> None:
    missing = [name for name in names if name not in found]
    if missing:
        raise FolderError(f"{path} has no column {missing[0]!r}; it has {', '.join(found)}")


def split_files(source: str | os.PathLike[str], split: str, revision: str) -> list[Path]:
    """The files of a split, in order."""
    path = Path(source)
    if path.is_file():
        if path.suffix not in (".parquet", ".arrow"):
            raise FolderError(f"{path} is not a Parquet or Arrow file")
        return [path]
    if not path.exists() and str(source).count("/") == 1 and not str(source).startswith("."):
        path = _fetch(str(source), split, revision)
    if not path.is_dir():
        raise FolderError(f"{source} does not exist; pass a folder, a Parquet file, or owner/name on the hub")
    if (path / "dataset_dict.json").is_file():
        path = path / _resolve_split(_json(path / "dataset_dict.json").get("splits", []), split, path)
    if (path / "state.json").is_file():
        return _saved_files(path)
    found = sorted(path.rglob("*.parquet"))
    if not found:
        raise FolderError(f"{path} holds neither a saved dataset (state.json) nor Parquet files")
    by_split: dict[str, list[Path]] = {}
    for file in found:
        by_split.setdefault(_split_of(file.relative_to(path)), []).append(file)
    return by_split[_resolve_split(list(by_split), split, path)]


def _split_of(path: Path) -> str:
    """The split in a file's name: train-00000-of-00002.parquet, train.parquet or train/0000.parquet."""
    stem = path.stem.split("-")[0]
    return path.parent.name if stem.isdigit() and path.parent.name else stem


def _resolve_split(splits: Sequence[str], split: str, path: Path) -> str:
    if split in splits:
        return split
    if split or len(splits) != 1:
        problem = f"no split {split!r}" if split else "several splits"
        raise FolderError(f"{path} has {problem}; pass one of {', '.join(splits)}")
    return splits[0]


def _saved_files(path: Path) -> list[Path]:
    """The Arrow files that `save_to_disk` wrote."""
    state = _json(path / "state.json")
    if state.get("_indices_files"):
        raise FolderError(
            f"{path} is a selection of another dataset; call flatten_indices() and save it again"
        )
    files = [path / str(entry.get("filename", "")) for entry in state.get("_data_files", [])]
    for file in files:
        if file.parent != path or not file.is_file():
            raise FolderError(f"{file} does not exist; save the dataset again")
    if not files:
        raise FolderError(f"{path / 'state.json'} lists no files; save the dataset again")
    return files


def _json(path: Path) -> dict[str, Any]:
    try:
        return parse_object(path.read_bytes(), str(path))
    except FormatError as error:
        raise FolderError(f"{error}; save the dataset again") from None


def _fetch(name: str, split: str, revision: str) -> Path:
    """The Parquet files of a hub dataset (of one split, if given), from the cache or by download."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        found = snapshot_download(
            name, repo_type="dataset", allow_patterns=f"*{split}*.parquet", revision=revision or None
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        detail = " ".join(str(error).split())[:160]
        raise FolderError(f"{name} is not a local folder, and could not be downloaded: {detail}") from None
    if not any(Path(found).rglob("*.parquet")):
        raise FolderError(
            f"{name} has no Parquet files of {split or 'any split'}; try --revision refs/convert/parquet"
        )
    return Path(found)
