"""Tables of the Hugging Face kind: stored numbers come through whole, and no table is trusted."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from twofold.data import Folder, FolderError, validate
from twofold.data.hub import Columns, import_table
from twofold.geometry import Camera

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

SIZE = (4, 5)
DEPTH = (np.arange(20).reshape(SIZE) * 3271 + 1).astype(np.uint16)  # to 62150: far beyond 8 bits
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def png(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def tiff(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "TIFF")
    return file.getvalue()


def photo(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def cell(data: bytes | None, path: str | None = None) -> dict[str, Any]:
    """An image as `datasets.Image` stores it."""
    return {"bytes": data, "path": path}


def table(count: int = 3, **changes: Any) -> Any:
    """A table with a column of each kind; `changes` replace whole columns."""
    heat = np.random.default_rng(0).random((count, *SIZE)).astype(np.float32)
    columns = {
        "image": pa.array([cell(png(photo(i)), "a.png") for i in range(count)], STRUCT),
        "depth": pa.array([cell(png(DEPTH + i)) for i in range(count)], STRUCT),
        "metres": pa.array([npy(DEPTH.astype(np.float32) / 7000 + i) for i in range(count)], pa.binary()),
        "labels": pa.array(
            [png((np.arange(20).reshape(SIZE) + 240 % (i + 2)).astype(np.uint8)) for i in range(count)]
        ),
        "heat": pa.array(heat.tolist()),
        "text": pa.array([f"picture {i}" for i in range(count)]),
        "key": pa.array([f"room/{i}" for i in range(count)]),
        "K": pa.array([[5.0, 5.0, 2.0, 1.5]] * count),
        **changes,
    }
    return pa.table({name: column for name, column in columns.items() if column is not None})


COLUMNS = Columns(
    targets={
        "depth": ("depth", {"codec": "png16", "scale": 0.001, "invalid": [1]}),
        "semantic": ("labels", {"codec": "png8", "ignore": [255]}),
        "heat": ("heat", {}),
    },
    caption="text", id="key", camera="K",
)  # fmt: skip


def write_parquet(path: Path, found: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(found, path)
    return path


def write_saved(root: Path, found: Any, indices: bool = False) -> Path:
    """What `datasets.Dataset.save_to_disk` writes: an Arrow stream and its state."""
    root.mkdir(parents=True)
    name = "data-00000-of-00001.arrow"
    with pa.OSFile(str(root / name), "wb") as file, pa.ipc.new_stream(file, found.schema) as stream:
        stream.write_table(found, max_chunksize=2)
    state = {"_data_files": [{"filename": name}], "_indices_files": [{"filename": "i"}] if indices else None}
    (root / "state.json").write_text(json.dumps(state))
    (root / "dataset_info.json").write_text("{}")
    return root


def imported(source: Path | str, out: Path, columns: Columns = COLUMNS, **options: Any) -> Folder:
    list(import_table(source, out, columns, **options))
    report = validate(out)
    assert report.ok, report
    return Folder(out)


@pytest.mark.parametrize("kind", ["parquet", "folder", "saved", "splits"])
def test_stored_numbers_come_through_whole(tmp_path, kind):
    found = table()
    if kind == "parquet":
        source = write_parquet(tmp_path / "x.parquet", found)
    elif kind == "folder":
        source = tmp_path / "data"
        write_parquet(source / "train-00000-of-00002.parquet", found.slice(0, 2))
        write_parquet(source / "train-00001-of-00002.parquet", found.slice(2))
        write_parquet(source / "test-00000-of-00001.parquet", found.slice(0, 1))
    elif kind == "saved":
        source = write_saved(tmp_path / "saved", found)
    else:
        source = write_saved(tmp_path / "both" / "train", found).parent
        write_saved(tmp_path / "both" / "test", found.slice(0, 1))
        (source / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    split = "train" if kind in ("folder", "splits") else ""
    folder = imported(source, tmp_path / "out", split=split, licence="CC0-1.0")
    assert folder.ids == ("room/0", "room/1", "room/2") and folder.header["licence"] == "CC0-1.0"
    for i, sample in enumerate(folder):
        assert torch.equal((sample.image * 255).round().byte(), torch.from_numpy(photo(i)).permute(2, 0, 1))
        # 16 bits: Pillow's RGB would have made one grey of most of these.
        stored = (sample.targets["depth"] / 0.001).round()
        known = sample.valid["depth"]
        assert torch.equal(known, torch.from_numpy((DEPTH + i).astype(np.float32))[None] != 1)
        assert torch.equal(stored[known], torch.from_numpy((DEPTH + i).astype(np.float32))[None][known])
        expected = torch.tensor(found["heat"][i].as_py())
        assert torch.equal(sample.targets["heat"][0], expected)
        assert sample.caption == f"picture {i}" and sample.camera == Camera(5, 5, 2, 1.5, 5, 4)
        assert sample.targets["semantic"].unique().numel() > 10


def test_floats_stay_floats(tmp_path):
    source = write_parquet(tmp_path / "x.parquet", table())
    columns = Columns(targets={"depth": ("metres", {"codec": "npy"})})
    folder = imported(source, tmp_path / "out", columns)
    assert folder.ids == ("000000", "000001", "000002")
    expected = torch.from_numpy(DEPTH.astype(np.float32) / 7000 + 2)
    assert torch.equal(folder[2].targets["depth"][0], expected)
    values = tiff(DEPTH.astype(np.float32) / 700)
    source = write_parquet(tmp_path / "y.parquet", table(1, metres=pa.array([values])))
    folder = imported(source, tmp_path / "tiffs", Columns(targets={"depth": ("metres", {})}))
    assert torch.equal(folder[0].targets["depth"][0], torch.from_numpy(DEPTH.astype(np.float32) / 700))


def test_distances_become_depths_once(tmp_path):
    """What is read by a kind of its own is not written as that kind again."""
    source = write_parquet(tmp_path / "x.parquet", table(1))
    how = {"codec": "png16", "scale": 0.001, "kind": "euclidean"}
    folder = imported(source, tmp_path / "out", Columns(targets={"depth": ("depth", how)}, camera="K"))
    camera = folder[0].camera
    assert isinstance(camera, Camera) and folder.header["targets"]["depth"]["kind"] == "z"
    z = folder[0].targets["depth"].double() * torch.linalg.vector_norm(camera.rays(), dim=0)
    assert torch.allclose(z[0], torch.from_numpy(DEPTH * 0.001), atol=1e-5)


def test_other_targets_keep_what_they_are(tmp_path):
    mask, alpha = np.eye(*SIZE, dtype=np.uint8) * 255, np.arange(20, dtype=np.uint8).reshape(SIZE)
    normals = np.zeros((*SIZE, 3), np.float32)
    normals[..., 0], normals[..., 2] = 0.6, 0.8
    found = table(
        2,
        m=pa.array([png(mask)] * 2), a=pa.array([png(alpha)] * 2), n=pa.array([npy(normals)] * 2),
        c=pa.array([png(photo(9)), None]),
    )  # fmt: skip
    columns = Columns(
        targets={
            "mask": ("m", {"codec": "png8"}),
            "matting": ("a", {"codec": "png8", "scale": 1 / 255}),
            "normals": ("n", {"codec": "npy", "frame": "LUB"}),
            "albedo": ("c", {"codec": "png8", "scale": 1 / 255}),
        }
    )
    folder = imported(write_parquet(tmp_path / "x.parquet", found), tmp_path / "out", columns)
    sample = folder[0]
    assert torch.equal(sample.targets["mask"][0], torch.eye(*SIZE))
    assert torch.allclose(sample.targets["matting"][0], torch.from_numpy(alpha / 255).float(), atol=1e-6)
    assert torch.allclose(sample.targets["normals"][:, 0, 0], torch.tensor([-0.6, 0, 0.8]), atol=1e-3)
    assert torch.allclose(
        sample.targets["albedo"], torch.from_numpy(photo(9)).permute(2, 0, 1) / 255, atol=1e-6
    )
    # A missing value is a missing target.
    assert set(folder[1].targets) == {"mask", "matting", "normals"}


def test_an_import_goes_on_where_it_was(tmp_path):
    source = write_parquet(tmp_path / "x.parquet", table(5))
    steps: Iterator[tuple[str, bool]] = import_table(source, tmp_path / "out", COLUMNS)
    assert [next(steps) for _ in range(2)] == [("room/0", True), ("room/1", True)]
    assert [new for _, new in import_table(source, tmp_path / "out", COLUMNS, limit=4)] == [
        False,
        False,
        True,
        True,
    ]
    assert len(Folder(tmp_path / "out")) == 4
    with pytest.raises(FolderError, match="other settings"):
        list(import_table(source, tmp_path / "out", Columns()))


# ---- refused


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image": pa.array([cell(None, "/etc/passwd")], STRUCT)}, r"column 'image' has the path .*'/etc/passwd'"),
        ({"image": pa.array(["a"])}, "column 'image' holds str"),
        ({"image": pa.array([b"no picture"])}, "column 'image': .* not an image"),
        ({"image": None}, "no column 'image'; it has depth"),
        ({"depth": pa.array([png(DEPTH.astype(np.uint8))])}, "column 'depth': .*8 bits per sample, its codec is png16"),
        ({"depth": pa.array([png(DEPTH)[:50]])}, "row 0, column 'depth': .*damaged"),
        ({"depth": pa.array([b"??"])}, "column 'depth' begins with b'??'"),
        ({"depth": pa.array([png(np.zeros((9, 9), np.uint16))])}, "depth is 9x9, the image 4x5"),
        ({"heat": pa.array([[[1.0], [2.0, 3.0]]])}, "column 'heat' holds"),
        ({"heat": pa.array([np.zeros((5, 5, 5)).tolist()])}, "at most 4 channels"),
        ({"K": pa.array([[1.0, 2.0]])}, "row 0: invalid camera"),
        ({"key": pa.array(["../a"])}, "cannot be an id"),
        ({"text": pa.array([["one", "two"]])}, "column 'text' holds list"),
    ],
)  # fmt: skip
def test_broken_cells_are_named(tmp_path, changes, words):
    source = write_parquet(tmp_path / "x.parquet", table(1, **changes))
    with pytest.raises(ValueError, match=words) as error:
        list(import_table(source, tmp_path / "out", COLUMNS))
    assert "\n" not in str(error.value) and "/tmp/tmp" not in str(error.value)


def test_two_rows_of_one_id_are_not_one(tmp_path):
    source = write_parquet(tmp_path / "x.parquet", table(3, key=pa.array(["a", "b", "a"])))
    with pytest.raises(FolderError, match="row 2 repeats the id 'a'"):
        list(import_table(source, tmp_path / "out", COLUMNS))


def test_pickles_are_not_read(tmp_path):
    objects = npy(np.array([[None]], dtype=object))
    source = write_parquet(tmp_path / "x.parquet", table(1, metres=pa.array([objects])))
    with pytest.raises(FolderError, match="row 0, column 'metres'"):
        list(import_table(source, tmp_path / "out", Columns(targets={"depth": ("metres", {"codec": "npy"})})))


def test_sources_that_are_none(tmp_path, monkeypatch):
    def refused(source: Path | str, words: str, **options: Any) -> None:
        with pytest.raises(FolderError, match=words):
            list(import_table(source, tmp_path / f"out-{len(words)}", COLUMNS, **options))

    refused(tmp_path / "nothing", "does not exist")
    refused("nobody/nothing", "nobody/nothing is not a local folder, and could not be downloaded")
    (tmp_path / "a.csv").write_text("a")
    refused(tmp_path / "a.csv", "not a Parquet or Arrow file")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and no more")
    refused(tmp_path / "broken.parquet", "broken.parquet is damaged")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "neither a saved dataset")
    both = tmp_path / "both"
    write_parquet(both / "train" / "0000.parquet", table())
    write_parquet(both / "test.parquet", table())
    refused(both, "several splits; pass one of test, train")
    refused(both, "no split 'val'; pass one of", split="val")
    refused(write_saved(tmp_path / "part", table(), indices=True), "flatten_indices")
    saved = write_saved(tmp_path / "saved", table())
    (saved / "state.json").write_text('{"_data_files": [{"filename": "../both/test.parquet"}]}')
    refused(saved, "does not exist; save")
    (saved / "state.json").write_text("[]")
    refused(saved, "is not a JSON object")
    refused(write_parquet(tmp_path / "none.parquet", table().slice(0, 0)), "has no rows")


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    source = write_parquet(tmp_path / "x.parquet", table(1))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(FolderError, match=r"pip install 'twofold\[data\]'"):
        list(import_table(source, tmp_path / "out", COLUMNS))


def test_of_the_hub_only_the_split_is_fetched(tmp_path, monkeypatch):
    import huggingface_hub

    arguments: list[tuple[str, dict[str, Any]]] = []

    def fetch(name: str, **options: Any) -> str:
        arguments.append((name, options))
        return str(tmp_path / "cache")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    write_parquet(tmp_path / "cache" / "default" / "train" / "0000.parquet", table(2))
    folder = imported("someone/rooms", tmp_path / "out", split="train", revision="refs/convert/parquet")
    assert (
        len(folder) == 2 and folder.header["source"] == "someone/rooms" and folder.header["name"] == "rooms"
    )
    expected = {
        "repo_type": "dataset",
        "allow_patterns": "*train*.parquet",
        "revision": "refs/convert/parquet",
    }
    assert arguments == [("someone/rooms", expected)]
    with pytest.raises(FolderError, match="someone/else has no Parquet files of val"):
        (tmp_path / "cache" / "default" / "train" / "0000.parquet").unlink()
        list(import_table("someone/else", tmp_path / "more", COLUMNS, split="val"))


@pytest.mark.slow
def test_what_the_library_saves_is_read(tmp_path):
    """The real writer's files; and what its own reader makes of 16-bit colour, which is why it is not used."""
    datasets, cv2 = pytest.importorskip("datasets"), pytest.importorskip("cv2")
    wide = np.random.default_rng(0).integers(0, 65536, (*SIZE, 3)).astype(np.uint16)
    coded = cv2.imencode(".png", wide[..., ::-1])[1].tobytes()
    datasets.disable_progress_bars()
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "depth": datasets.Image(),
            "wide": datasets.Image(),
            "heat": datasets.Array2D(SIZE, "float32"),
        }
    )
    rows = {
        "image": [cell(png(photo(i))) for i in range(2)],
        "depth": [cell(png(DEPTH)) for _ in range(2)],
        "wide": [cell(coded) for _ in range(2)],
        "heat": [np.full(SIZE, 0.25, np.float32).tolist()] * 2,
    }
    made = datasets.Dataset.from_dict(rows, features=features)
    made.save_to_disk(tmp_path / "saved")
    made.to_parquet(tmp_path / "x.parquet")
    datasets.DatasetDict({"train": made}).save_to_disk(tmp_path / "splits")
    how = {
        "depth": ("depth", {"codec": "png16", "scale": 0.001}),
        "heat": ("heat", {}),
        "wide": ("wide", {"codec": "png16"}),
    }
    for name in ("saved", "x.parquet", "splits"):
        folder = imported(tmp_path / name, tmp_path / f"out-{name}", Columns(targets=how))
        stored = (folder[1].targets["depth"][0] / 0.001).round().numpy()
        assert (
            len(folder) == 2 and np.array_equal(stored, DEPTH) and (folder[0].targets["heat"] == 0.25).all()
        )
        assert np.array_equal(folder[0].targets["wide"].permute(1, 2, 0).numpy(), wide)
    handed = np.asarray(made[0]["wide"])
    assert handed.dtype == np.uint8, "the library hands out the numbers now: mend the docstring of hub.py"
