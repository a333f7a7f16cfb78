"""A corpus of hostile files, the same at every run: each is read, or refused in one line. More: scripts/fuzz.py."""

from __future__ import annotations

import importlib.util
import json
import random
import sys
import zipfile
from collections import Counter
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from twofold.data import Folder, FolderError
from twofold.data.pack import pack
from twofold.image import ImageError, read_map, write_image


def script(name: str) -> ModuleType:
    """A module of `scripts/`."""
    path = Path(__file__).parents[1] / "scripts" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


FUZZ = script("fuzz")
KINDS = sorted({seed.check for seed in FUZZ.seeds()})


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_files_are_read_or_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    seeds = [seed for seed in FUZZ.seeds() if seed.check == kind]
    each = max(6, 40 // len(seeds))
    for seed in seeds:
        for number in range(each):
            folder = tmp_path / f"{seed.name}-{number}"
            folder.mkdir()
            wrong = FUZZ.check(seed, FUZZ.mutate(random.Random(f"{kind}/{number}"), seed), folder)
            assert not wrong, f"{folder}: {wrong}"


def test_the_corpus_is_large_and_has_every_kind() -> None:
    counts = Counter(seed.check for seed in FUZZ.seeds())
    assert sum(max(6, 40 // n) * n for n in counts.values()) >= 300
    assert set(counts) == set(FUZZ.CHECKS)


def test_valid_files_pass_and_a_finding_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in FUZZ.seeds():
        folder = tmp_path / seed.name
        folder.mkdir()
        FUZZ.CHECKS[seed.check](FUZZ._place(seed, seed.data, folder))

    def fail(path: Path) -> None:
        raise KeyError("colour")

    monkeypatch.setitem(FUZZ.CHECKS, "image", fail)
    (tmp_path / "last").mkdir()
    assert "KeyError" in FUZZ.check(FUZZ.seeds()[0], b"", tmp_path / "last")


def test_archives_are_checked_by_their_declared_sizes(tmp_path: Path) -> None:
    """An .npz of a megabyte may expand to gigabytes; its header has the size."""
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.npy", "w") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f8", "fortran_order": False, "shape": (1000, 1000, 4)}
        )
        file.write(bytes(1000 * 1000 * 4 * 8))
    assert path.stat().st_size < 100_000
    with pytest.raises(ImageError, match=r"holds 31 MB \(float64, \(1000, 1000, 4\)\)"):
        read_map(path, max_pixels=1_000_000)
    assert read_map(path, max_pixels=3_000_000).shape == (4, 1000, 1000)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    root.mkdir()
    import torch

    write_image(root / "a.png", torch.rand(3, 8, 8))
    return root


def manifest(root: Path, **changes: object) -> Path:
    row = {"id": "a", "file_name": "a.png", **changes}
    (root / "metadata.jsonl").write_text(json.dumps({k: v for k, v in row.items() if v is not ...}) + "\n")
    return root


def test_text_that_is_not_utf8_is_packed_as_it_is(folder: Path, tmp_path: Path) -> None:
    manifest(folder, text="a \udcff room", note={"deep": ["\ud800"]})
    list(pack(Folder(folder), tmp_path / "packed"))
    packed = Folder(tmp_path / "packed")
    assert packed.rows[0]["text"] == "a \udcff room" and packed.rows[0]["note"] == {"deep": ["\ud800"]}
    assert packed[0].image.shape == (3, 8, 8)


@pytest.mark.parametrize("part", ["target", "suffix", "file", "id"])
def test_names_that_are_too_long_are_refused_by_name(folder: Path, tmp_path: Path, part: str) -> None:
    how = {
        "target": {"targets": {"t" * 120: {"path": "a.png"}}},
        "suffix": {"targets": {"t": {"path": "a." + "s" * 120}}},
        "file": {"file_name": "n" * 300 + ".png"},
        "id": {"id": "i" * 5000},
    }[part]
    (folder / ("a." + "s" * 120)).write_bytes((folder / "a.png").read_bytes())
    manifest(folder, **how)
    with pytest.raises(FolderError, match=r"too long|characters") as caught:
        list(pack(Folder(folder), tmp_path / "packed"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"id": 3}, {"id": None, "file_name": None}, {"file_name": ...}, {"file_name": ["a"]}, {"targets": [1]},
        {"targets": {"depth": 3}}, {"camera": []}, {"provenance": 3}, {"provenance": {"parents": 3}},
        {"provenance": {"parents": [[]]}}, {"provenance": {"generator": [1]}}, {"provenance": {"origin": {"a": 1}}},
        {"size": "big"}, {"size": [1.5, 2]}, {"size": [True, 2]}, {"image": "x"}, {"image": {"scale": 10**400}},
    ],
    ids=repr,
)  # fmt: skip
def test_manifests_of_wrong_types_are_refused_by_line(folder: Path, changes: dict[str, object]) -> None:
    with pytest.raises(FolderError, match=r"metadata.jsonl:1") as caught:
        Folder(manifest(folder, **changes))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
