"""A full disk is recognised at the first file, whichever library writes it, with the file and the disk in the message.

Real failures come from a limit on the size of files (``ulimit -f``), in processes that are forked off this one.
"""

from __future__ import annotations

import errno
import os
import pickle
import resource
import shutil
import signal
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import save_file

import world
from twofold.cli.main import run as command
from twofold.io import DiskFullError, append_line, as_disk_full, atomic_folder, atomic_write, report_disk_full

NOISE = np.random.default_rng(0).random((400, 300)).astype(np.float32)


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a", NOISE.tobytes())


WRITERS: dict[str, Callable[[Path], object]] = {
    "a.npy": lambda p: np.save(p, NOISE),
    "a.npz": lambda p: np.savez_compressed(p, map=NOISE),
    "a.png": lambda p: Image.fromarray((NOISE * 65535).astype(np.uint16)).save(p, format="PNG"),
    "a.tiff": lambda p: Image.fromarray(NOISE).save(p, format="TIFF", compression="tiff_adobe_deflate"),
    "a.jpg": lambda p: Image.fromarray((NOISE * 255).astype(np.uint8)).save(p, format="JPEG", quality=99),
    "a.safetensors": lambda p: save_file({"a": torch.from_numpy(NOISE)}, p),
    "a.pt": lambda p: torch.save(torch.from_numpy(NOISE), p),
    "a.zip": zipped,
    "a.txt": lambda p: p.write_text("x" * 400_000),
}


def outcome(work: Callable[[], str], limit: int) -> str:
    """What ``work`` returns in a process that cannot write files of more than ``limit`` bytes."""
    out, into = os.pipe()
    number = os.fork()
    if number == 0:
        try:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            os.write(into, work().encode())
        finally:
            os._exit(0)
    os.close(into)
    with os.fdopen(out, "rb") as pipe:
        found = pipe.read().decode()
    os.waitpid(number, 0)
    return found


def message(work: Callable[[], object]) -> str:
    try:
        work()
    except DiskFullError as error:
        return f"{error.errno} {error.filename} {error}"
    except Exception as error:  # noqa: BLE001 - shown by the assertion
        return f"another error: {error!r}"
    return "no error"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that can be forked")
@pytest.mark.parametrize("name", WRITERS)
def test_full_disk_errors_of_every_library_are_recognised(name, tmp_path):
    path = tmp_path / name

    def write() -> None:
        with atomic_write(path) as temporary:
            WRITERS[name](temporary)

    found = outcome(lambda: message(write), 50_000)
    assert found.startswith(f"{errno.EFBIG} {path} {path} cannot be written: File too large (disk /"), found
    assert "free of" in found
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that can be forked")
def test_lines_and_folders(tmp_path):
    def folder() -> None:
        with atomic_folder(tmp_path / "model") as partial:
            partial.mkdir()
            save_file({"a": torch.from_numpy(NOISE)}, partial / "a.safetensors")

    assert outcome(lambda: message(folder), 50_000).startswith(f"{errno.EFBIG} {tmp_path / 'model'} ")
    found = outcome(lambda: message(lambda: append_line(tmp_path / "rows", "x" * 100)), 50)
    assert found.startswith(f"{errno.EFBIG} {tmp_path / 'rows'} ")
    assert [p.name for p in tmp_path.iterdir()] == ["rows"]


STATED = {
    "numpy": OSError("120000 requested and 8192 written"),
    "safetensors": SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    "h5py": OSError("Can't write data (file write failed: errno = 28, error message = 'No space left on device')"),
    "torch": RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"),
    "quota": OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
}  # fmt: skip


@pytest.mark.parametrize("library", STATED)
def test_errors_that_state_their_reason(library, tmp_path):
    with pytest.raises(DiskFullError) as caught, report_disk_full(tmp_path / "a"):
        raise STATED[library]
    assert caught.value.errno == (errno.EDQUOT if library == "quota" else errno.ENOSPC)
    assert str(caught.value).startswith(f"{tmp_path / 'a'} cannot be written: ")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # from a worker process


def test_an_error_without_a_reason_is_found_out_by_writing(tmp_path, monkeypatch):
    broken = OSError("encoder error -2 when writing image file")
    assert as_disk_full(broken, tmp_path / "a") is None  # there is space
    assert list(tmp_path.iterdir()) == []

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    found = as_disk_full(broken, tmp_path / "new" / "a")
    assert found is not None
    assert found.errno == errno.ENOSPC
    assert as_disk_full(ValueError("3 channels"), tmp_path / "a") is None
    assert as_disk_full(PermissionError(errno.EACCES, "no"), tmp_path / "a") is None


def full_once_written(monkeypatch: pytest.MonkeyPatch, files: int) -> None:
    """From the file after so many on, numpy and the system report a full disk, each in its way."""
    count, fsync = [0], os.fsync

    def flush(handle: int) -> None:
        count[0] += 1
        if count[0] > files:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(handle)

    def save(*_: object, **__: object) -> None:
        raise OSError("120000 requested and 8192 written")

    monkeypatch.setattr(os, "fsync", flush)
    if files == 0:
        monkeypatch.setattr(np, "save", save)


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [x for x in capsys.readouterr().err.splitlines() if "cannot be written: No space left" in x]


def test_predict_stops_at_the_first_file(tmp_path, monkeypatch, capsys, tiny_model):
    for i in range(3):
        Image.fromarray((NOISE[:32, :32] * 255).astype(np.uint8)).save(tmp_path / f"{i}.png")
    full_once_written(monkeypatch, 0)
    arguments = ["predict", *(str(tmp_path / f"{i}.png") for i in range(3)), "--model", str(tiny_model)]
    assert command([*arguments, "--task", "depth", "--out", str(tmp_path / "out"), "--device", "cpu"]) == 1
    found = lines(capsys)
    assert len(found) == 1
    assert str(tmp_path / "out" / "predictions.jsonl") in found[0]  # lists what is about to be written
    assert "(disk /" in found[0]


@pytest.mark.parametrize("files", [0, 1])
def test_evaluate_is_not_a_list_of_broken_predictions(files, tmp_path, monkeypatch, capsys, tiny_model):
    world.folder(tmp_path / "balls", 3, 16)
    full_once_written(monkeypatch, files)
    arguments = [
        "evaluate",
        "--data",
        str(tmp_path / "balls"),
        "--model",
        str(tiny_model),
        "--protocol",
        "depth/marigold-ls",
        "--allow-synthetic",
        "--out",
    ]
    assert command([*arguments, str(tmp_path / "out"), "--device", "cpu"]) == 1
    found = lines(capsys)
    assert len(found) == 1
    assert str(tmp_path / "out" / "rows") in found[0]


def test_pack_and_create(tmp_path, monkeypatch, capsys, tiny_model):
    world.folder(tmp_path / "balls", 3, 16)
    for files, arguments in (
        (1, ["data", "pack", str(tmp_path / "balls"), str(tmp_path / "packed")]),
        (1, ["create", str(tmp_path / "balls"), "--model", str(tiny_model), "--steps", "1", "--device", "cpu",
             "--out", str(tmp_path / "created")]),
    ):  # fmt: skip
        with monkeypatch.context() as patch:
            full_once_written(patch, files)
            assert command(arguments) == 1
        assert len(lines(capsys)) == 1
        shutil.rmtree(arguments[-1])
