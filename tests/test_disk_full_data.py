"""``data convert`` and ``data import`` on a full disk: one line, no damaged folder, and a second run completes it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch

from trees import matting
from twofold.cli.main import run
from twofold.data import Folder
from twofold.image import write_image


def full_after(patch: pytest.MonkeyPatch, files: int) -> None:
    """Report a full disk when the file after so many is flushed."""
    count, fsync = [0], os.fsync

    def flush(handle: int) -> None:
        count[0] += 1
        if count[0] > files:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(handle)

    patch.setattr(os, "fsync", flush)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def check(command: list[str], files: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*command, "--out", "whole"]) == 0
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        full_after(patch, files)
        assert run([*command, "--out", "full"]) == 1
    lines = [x for x in capsys.readouterr().err.splitlines() if x.startswith("twofold")]
    assert len(lines) == 1
    assert "cannot be written: No space left" in lines[0]
    assert "full" in lines[0]
    assert "(disk /" in lines[0]
    assert not list(Path().rglob(".tmp-*"))
    assert run([*command, "--out", "full"]) == 0
    whole, found = contents(Path("whole")), contents(Path("full"))
    assert found == whole


@pytest.mark.parametrize(
    "name, files",
    [("p3m10k", 0), ("p3m10k", 1), ("composition1k", 1), ("composition1k", 3)],
)
def test_convert_on_a_full_disk(name, files, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if name == "p3m10k":
        matting.p3m10k(Path("raw"), True)
        command = ["data", "convert", name, "raw", "--split", "P3M-500-NP"]
    else:
        matting.composition1k(Path("raw"), each=20)
        command = ["data", "convert", name, "raw", "--split", "test", "--limit", "3"]
    check(command, files, capsys)


@pytest.mark.parametrize("files", [0, 1, 3])
def test_import_on_a_full_disk(files, tmp_path, monkeypatch, capsys):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    monkeypatch.chdir(tmp_path)
    write_image("a.png", torch.rand(3, 6, 8))
    image = Path("a.png").read_bytes()
    parquet.write_table(pa.table({"photo": [image] * 3, "words": ["one", "two", "three"]}), "t.parquet")
    check(["data", "import", "t.parquet", "--image", "photo", "--caption", "words"], files, capsys)
    assert [s.caption for s in Folder("full")] == ["one", "two", "three"]
