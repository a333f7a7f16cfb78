"""Laws of data folders: what is written is read, a kill costs one sample, and no manifest is trusted."""

from __future__ import annotations

import json
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from twofold.data import Folder, FolderError, FolderWriter, validate
from twofold.data.codecs import DEFAULT_CODECS, decode, write_target
from twofold.geometry import Camera, convert_frame, unit
from twofold.image import read_map, write_image
from twofold.sample import Provenance, Sample

HEADER = {"name": "toy", "targets": {"depth": {}, "normals": {}, "mask": {}, "semantic": {}}}
SIZE = (6, 8)


def a_sample(id: str, seed: int = 0) -> Sample:
    """A sample with every target, holes in each, and sky."""
    rng = torch.Generator().manual_seed(seed)
    valid = torch.rand(1, *SIZE, generator=rng) > 0.2
    depth = torch.where(valid, 0.5 + 5 * torch.rand(1, *SIZE, generator=rng), 0.0)
    depth[:, 0], sky_valid = math.inf, valid.clone()
    sky_valid[:, 0] = False
    toward = torch.tensor([0.0, 0, 1])[:, None, None]
    normals = torch.where(valid, unit(torch.randn(3, *SIZE, generator=rng) * 0.3 + toward), 0.0)
    mask = torch.where(valid, (torch.rand(1, *SIZE, generator=rng) > 0.5).float(), 0.0)
    semantic = torch.where(valid, torch.randint(0, 300, (1, *SIZE), generator=rng).float(), 0.0)
    return Sample(
        image=torch.rand(3, *SIZE, generator=rng),
        targets={"depth": depth, "normals": normals, "mask": mask, "semantic": semantic},
        valid={"depth": sky_valid, "normals": valid, "mask": valid, "semantic": valid},
        caption="a room, with “quotes”",
        id=id,
        camera=Camera(7.0, 7.5, 3.5, 2.5, 8, 6),
        origin=Provenance("rendered", ("parent",), {"seed": 3}),
    )


def written(root: Path, count: int = 3) -> Path:
    writer = FolderWriter(root, HEADER)
    for index in range(count):
        writer.write(a_sample(f"{index:04d}", index))
    writer.finish()
    return root


def edit(root: Path, change) -> None:
    """Changes the rows of a finished folder by hand."""
    rows = [json.loads(line) for line in (root / "metadata.jsonl").read_text().splitlines()]
    rows = change(rows) or rows
    (root / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def plain(root: Path, header: dict, row: dict, **maps: np.ndarray) -> Path:
    """A foreign folder: one grey image and the given files."""
    root.mkdir(exist_ok=True)
    write_image(root / "a.png", torch.full((3, *SIZE), 0.5))
    for name, array in maps.items():
        path = root / name.replace("_", ".")
        np.save(path, array) if path.suffix == ".npy" else Image.fromarray(array).save(path)
    (root / "dataset.json").write_text(json.dumps(header))
    (root / "metadata.jsonl").write_text(json.dumps({"file_name": "a.png", **row}) + "\n")
    return root


# ---- written and read


def test_what_is_written_is_read(tmp_path):
    folder = Folder(written(tmp_path / "data"))
    assert len(folder) == 3 and folder.ids == ("0000", "0001", "0002") and folder.header["count"] == 3
    for index, sample in enumerate(folder):
        expected = a_sample(f"{index:04d}", index)
        assert (sample.image - expected.image).abs().max() <= 0.5 / 255 + 1e-6
        assert (sample.id, sample.caption, sample.camera) == (expected.id, expected.caption, expected.camera)
        assert sample.origin == expected.origin
        for name in expected.targets:
            assert torch.equal(sample.valid[name], expected.valid[name]), name
        far = expected.targets["depth"].isinf()
        assert torch.equal(sample.targets["depth"].isinf(), far)
        off = (sample.targets["depth"] - expected.targets["depth"])[~far].abs().max()
        assert off <= 0.001 + 1e-6  # half a unit of 2 mm
        assert (sample.targets["normals"] - expected.targets["normals"]).abs().max() < 1e-3
        assert torch.equal(sample.targets["mask"], expected.targets["mask"])
        assert torch.equal(sample.targets["semantic"], expected.targets["semantic"])


def test_only_requested_targets_are_read(tmp_path):
    root = written(tmp_path / "data")
    (root / "normals" / "0000.npy").unlink()
    assert set(Folder(root, targets=("depth", "mask"))[0].targets) == {"depth", "mask"}
    assert Folder(root, targets=())[0].targets == {}
    with pytest.raises(FolderError, match="dpeth"):
        Folder(root, targets=("dpeth",))


def test_select_keeps_the_requested_order(tmp_path):
    folder = Folder(written(tmp_path / "data"))
    part = folder.select(["0002", "0000"])
    assert part.ids == ("0002", "0000") and part[0].id == "0002" and len(folder) == 3
    with pytest.raises(FolderError, match="nothere"):
        folder.select(["nothere"])


def test_indices_end_where_the_folder_does(tmp_path):
    folder = Folder(written(tmp_path / "data"))
    assert folder[-1].id == "0002"
    with pytest.raises(IndexError):
        folder[3]


def test_a_sample_without_targets_or_camera_is_fine(tmp_path):
    writer = FolderWriter(tmp_path, {"name": "pictures"})
    row = writer.write(Sample(torch.rand(3, *SIZE), id="train/a"))
    assert row["camera"] == {"K": None} and row["targets"] == {}
    assert writer.finish() == 1
    sample = Folder(tmp_path)[0]
    assert sample.id == "train/a" and sample.camera is None and sample.origin == Provenance("real")


# ---- killed, resumed, shared


def test_the_row_is_written_after_the_files_of_a_sample(tmp_path, monkeypatch):
    writer = FolderWriter(tmp_path / "data", HEADER)
    writer.write(a_sample("done"))

    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("twofold.data.writer.write_target", killed)
    with pytest.raises(KeyboardInterrupt):
        writer.write(a_sample("torn"))
    monkeypatch.undo()
    again = FolderWriter(tmp_path / "data", HEADER)
    assert again.has("done") and not again.has("torn")
    again.write(a_sample("torn"))
    assert again.finish() == 2 and validate(tmp_path / "data").ok


def test_half_a_row_of_a_killed_process_is_no_row(tmp_path):
    writer = FolderWriter(tmp_path / "data", HEADER)
    writer.write(a_sample("a"))
    (tmp_path / "data" / ".rows" / ".tmp-1-ab.json").write_text('{"id": "b", ')
    assert writer.finish() == 1 and validate(tmp_path / "data").ok


def test_a_kill_while_merging_loses_nothing(tmp_path, monkeypatch):
    writer = FolderWriter(tmp_path / "data", HEADER)
    for id in ("b", "a"):
        writer.write(a_sample(id))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "unlink", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
        writer.finish()
    again = FolderWriter(tmp_path / "data", HEADER)
    assert again.finish() == 2 and Folder(tmp_path / "data").ids == ("a", "b")


def test_more_samples_may_follow_a_finish(tmp_path):
    root = written(tmp_path / "data", 2)
    writer = FolderWriter(root, HEADER)
    assert writer.has("0001")
    writer.write(a_sample("0000-more"))
    assert writer.finish() == 3 and Folder(root).ids == ("0000", "0000-more", "0001")
    assert not (root / ".rows").exists()


def _write_some(root: Path, start: int) -> None:
    writer = FolderWriter(root, HEADER)
    for index in range(start, 12, 3):
        writer.write(a_sample(f"{index:04d}", index))


def test_many_writers_share_one_folder(tmp_path):
    # Threads, because they start at once; the writers know nothing of each other, as in processes.
    root = tmp_path / "data"
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(_write_some, [root] * 3, range(3)))
    assert FolderWriter(root, HEADER).finish() == 12
    assert Folder(root).ids == tuple(f"{i:04d}" for i in range(12)) and validate(root).ok


def test_the_same_samples_make_the_same_files(tmp_path):
    one, two = written(tmp_path / "one"), written(tmp_path / "two")
    files = sorted(p.relative_to(one) for p in one.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(two) for p in two.rglob("*") if p.is_file())
    assert all((one / f).read_bytes() == (two / f).read_bytes() for f in files)


def test_another_header_is_refused(tmp_path):
    root = written(tmp_path / "data")
    FolderWriter(root, {**HEADER, "count": 99})
    with pytest.raises(FolderError, match="name"):
        FolderWriter(root, {**HEADER, "name": "other"})
    with pytest.raises(FolderError, match="targets"):
        FolderWriter(root, HEADER, codecs={"depth": {"scale": 0.001}})


@pytest.mark.parametrize("id", ["", "../a", "/a", "a//b", ".hidden", "a b", "a/../b", "ä", "x" * 201])
def test_ids_that_are_no_plain_names_are_refused(id, tmp_path):
    with pytest.raises(FolderError, match="id"):
        FolderWriter(tmp_path, HEADER).write(a_sample(id))


def test_what_the_writer_cannot_keep_is_refused(tmp_path):
    writer = FolderWriter(tmp_path, {"name": "d", "targets": {"depth": {}}})
    with pytest.raises(FolderError, match="mask"):
        writer.write(a_sample("a"))
    image, mask = torch.rand(3, *SIZE), torch.ones(1, *SIZE, dtype=torch.bool)
    writer.write(Sample(image, id="a"))
    with pytest.raises(FolderError, match="already"):
        writer.write(Sample(image, id="a"))
    with pytest.raises(FolderError, match="batch"):
        writer.write(Sample(image[None], id=("b",)))
    with pytest.raises(FolderError, match="camera"):
        writer.write(Sample(image, id="b", camera=Camera(1, 1, 0, 0, 5, 5)))
    with pytest.raises(ValueError, match="does not fit"):
        writer.write(Sample(image, {"depth": torch.full((1, *SIZE), 140.0)}, {"depth": mask}, id="b"))
    with pytest.raises(FolderError, match="JSON"):
        writer.write(Sample(image, id="b", origin=Provenance("real", (), {"x": math.nan})))
    assert not writer.has("b")
    with pytest.raises(FolderError, match="JSON"):
        FolderWriter(tmp_path / "new", {"when": object()})
    with pytest.raises(FolderError, match="codec"):
        FolderWriter(tmp_path / "new", {"targets": {"gloss": {}}})


# ---- what others wrote


def test_a_kinect_folder_reads_by_the_same_rules(tmp_path):
    header = {
        "schema": "dp-manifest/1",
        "targets": {"depth": {"codec": "png16", "scale": 0.001, "invalid": [0]}},
    }
    row = {
        "id": "kinect",
        "caption": "a desk",
        "real": False,
        "targets": {"depth": {"path": "d.png", "invalid": 0}},
        "camera": {"K": [[7, 0, 3], [0, 7, 2], [0, 0, 1]]},
    }
    depth = np.full(SIZE, 1500, dtype=np.uint16)
    depth[0, :3] = [0, 1, 65535]
    sample = Folder(plain(tmp_path / "k", header, row, d_png=depth))[0]
    assert sample.targets["depth"][0, 0, :4].tolist() == pytest.approx([0, 0.001, 65.535, 1.5])
    assert sample.valid["depth"][0, 0, :4].tolist() == [False, True, True, True]
    assert sample.caption == "a desk" and sample.origin == Provenance("rendered")
    assert sample.camera == Camera(7, 7, 3, 2, 8, 6)


def test_a_folder_of_images_without_manifest_is_read(tmp_path):
    root = plain(tmp_path / "p", {}, {"text": "grey"})
    (root / "dataset.json").unlink()
    (root / "metadata.jsonl").rename(root / "manifest.jsonl")
    assert Folder(root)[0].id == "a.png" and Folder(root)[0].caption == "grey"


def test_depth_descriptors():
    raw = torch.tensor([[[0.0, 50, 100, 200, 65535]]])
    how = {"codec": "png16", "scale": 0.01, "offset": 0.5, "invalid": [0], "infinite": 65535}
    z, valid = decode("depth", raw, {**how, "valid_range": [1.0, 2.5]})
    # Strictly inside the range: 1.0 and 2.5 are out.
    assert valid.flatten().tolist() == [False, False, True, False, False]
    assert z.flatten().tolist() == [0, 0, 1.5, 0, math.inf]
    floats = torch.tensor([[[1.0, math.nan, math.inf, -1.0]]])
    z, valid = decode("depth", floats, {"codec": "npy"})
    assert z.flatten().tolist() == [1, 0, math.inf, 0] and valid.sum() == 1
    z, valid = decode("depth", floats, {"codec": "npy", "invalid": ["inf", "nan"]})
    assert z.flatten().tolist() == [1, 0, 0, 0]


def test_euclidean_depth_becomes_z():
    camera = Camera(1.0, 1.0, 0.0, 0.0, 2, 1)
    z, _ = decode("depth", torch.full((1, 1, 2), 2.0), {"codec": "npy", "kind": "euclidean"}, camera)
    assert z.flatten().tolist() == pytest.approx([2.0, 2 / math.sqrt(2)])


@pytest.mark.parametrize(
    ("name", "how", "word"),
    [
        ("depth", {"codec": "png16"}, "scale"),
        ("depth", {"codec": "npy", "kind": "euclidean"}, "camera"),
        ("depth", {"codec": "npy", "kind": "disparity"}, "disparity"),
        ("depth", {"codec": "npy", "kind": "inverse"}, "inverse"),
        ("depth", {"codec": "png"}, "scale"),
        ("depth", {"codec": "bmp"}, "bmp"),
        ("normals", {"codec": "npy"}, "channels"),
        ("semantic", {"codec": "png8", "ignore": "all"}, "all"),
    ],
)
def test_incomplete_descriptors_are_refused(name, how, word):
    how = {"frame": "RUB", **how} if name == "normals" else how
    with pytest.raises(ValueError, match=word):
        decode(name, torch.ones(1, 2, 2), how)
    with pytest.raises(ValueError, match="preview image"):
        decode("depth", torch.ones(3, 2, 2), {"codec": "npy"})
    with pytest.raises(ValueError, match="frame"):
        decode("normals", torch.ones(3, 2, 2), {"codec": "npy"})


@pytest.mark.parametrize("frame", ["RUB", "LUB", "RDF"])
@pytest.mark.parametrize("codec", ["npy", "npz", "png8"])
def test_normals_come_back_in_the_library_s_frame(frame, codec, tmp_path):
    n = unit(torch.randn(3, 9, 9))
    valid = torch.rand(1, 9, 9) > 0.2
    how = {"codec": codec, "frame": frame, "invalid": "zero"}
    path = write_target(tmp_path / "n", "normals", n, valid, how)
    read, known = decode("normals", read_map(path), how)
    assert torch.equal(known, valid) and (read[:, ~valid[0]] == 0).all()
    degrees = torch.rad2deg(torch.acos((read * n).sum(0)[valid[0]].clamp(-1, 1)))
    assert degrees.max() < (0.7 if codec == "png8" else 0.1)
    stored, _ = decode("normals", read_map(path), {**how, "frame": "RUB"})
    assert torch.allclose(stored, convert_frame(read, "RUB", frame), atol=1e-6)


def test_the_published_pixel_of_an_eight_bit_normal(tmp_path):
    n = torch.tensor([0.6, 0, 0.8])[:, None, None]
    path = write_target(
        tmp_path / "n", "normals", n, torch.ones(1, 1, 1) > 0, {"codec": "png8", "frame": "LUB"}
    )
    assert read_map(path).flatten().tolist() == [51, 128, 230]


def test_masks_and_ids():
    raw = torch.tensor([[[0.0, 128, 129, 255]]])
    mask, valid = decode("mask", raw, {})
    assert mask.flatten().tolist() == [0, 0, 1, 1] and valid.all()
    assert decode("mask", raw.expand(3, -1, -1), {"ignore": 255})[1].flatten().tolist() == [True] * 3 + [
        False
    ]
    ids, valid = decode("semantic", raw, {"label_offset": -1, "ignore": [0, 255]})
    assert ids.flatten().tolist() == [0, 127, 128, 0] and valid.flatten().tolist() == [
        False,
        True,
        True,
        False,
    ]
    value, valid = decode("alpha", torch.tensor([[[0.0, 255, math.nan]]]), {"scale": 1 / 255})
    assert value.flatten().tolist() == pytest.approx([0, 1, 0]) and valid.sum() == 2


def test_values_outside_a_codec_s_range_are_not_written(tmp_path):
    depth, all_valid = torch.full((1, 2, 2), math.inf), torch.zeros(1, 2, 2, dtype=torch.bool)
    with pytest.raises(ValueError, match="infinite"):
        write_target(tmp_path / "d", "depth", depth, all_valid, {"codec": "png16", "scale": 0.001})
    with pytest.raises(ValueError, match="ignore"):
        write_target(tmp_path / "s", "semantic", torch.zeros(1, 2, 2), all_valid, {"codec": "png8"})
    with pytest.raises(ValueError, match="0 to 255"):
        write_target(tmp_path / "s", "semantic", torch.full((1, 2, 2), 256.0), ~all_valid, {"codec": "png8"})
    with pytest.raises(ValueError, match="renumber"):
        write_target(
            tmp_path / "s", "semantic", torch.full((1, 2, 2), 65535.0), ~all_valid, DEFAULT_CODECS["semantic"]
        )
    assert list(tmp_path.iterdir()) == []


def test_tiny_depths_stay_valid(tmp_path):
    valid = torch.ones(1, 1, 1, dtype=torch.bool)
    path = write_target(tmp_path / "d", "depth", torch.full((1, 1, 1), 1e-5), valid, DEFAULT_CODECS["depth"])
    assert decode("depth", read_map(path), DEFAULT_CODECS["depth"])[1].all()


# ---- distrust


@pytest.mark.parametrize(
    "path", ["../secret.png", "/etc/passwd", "a/../../b.png", "a\\b.png", "C:/a.png", "", 3, "a\nb"]
)
def test_paths_that_leave_the_folder_are_refused(path, tmp_path):
    root = written(tmp_path / "data")
    edit(
        root,
        lambda rows: (
            rows[1].update(file_name=path) if path else rows[1].update(targets={"depth": {"path": ""}})
        ),
    )
    with pytest.raises(FolderError, match=r"metadata\.jsonl:2"):
        Folder(root)
    assert not validate(root).ok


def test_links_out_of_the_folder_are_refused(tmp_path):
    root = written(tmp_path / "data")
    write_image(tmp_path / "secret.png", torch.rand(3, *SIZE))
    (root / "image" / "0000.png").unlink()
    (root / "image" / "0000.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(FolderError, match="link out"):
        Folder(root)[0]
    # A link to the folder itself, and one that stays inside, are fine.
    (tmp_path / "door").symlink_to(root)
    (root / "image" / "0001.png").unlink()
    (root / "image" / "0001.png").symlink_to(root / "image" / "0002.png")
    assert Folder(tmp_path / "door")[1].id == "0001"


def test_what_is_missing_or_twice_is_named(tmp_path):
    root = written(tmp_path / "data")
    (root / "depth" / "0001.png").unlink()
    with pytest.raises(FolderError, match=r"0001.*depth/0001\.png.*does not exist"):
        Folder(root)[1]
    edit(root, lambda rows: [*rows, rows[0]])
    with pytest.raises(FolderError, match=r"metadata\.jsonl:4 repeats the id '0000'"):
        Folder(root)


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("{not json", "JSON"),
        ("[1]", "object"),
        ("{}", "id"),
        ('{"file_name": "a.png", "targets": []}', None),
        ('{"file_name": "a.png", "targets": [1]}', "targets"),
        ('{"file_name": "a.png", "targets": {"depth": "d.png"}}', "path"),
        ('{"file_name": "a.png", "size": 3}', "size"),
        ('{"file_name": "a.png", "camera": [1]}', "camera"),
    ],
)
def test_rows_that_are_not_rows_are_refused(line, word, tmp_path):
    root = plain(tmp_path / "p", {}, {})
    (root / "metadata.jsonl").write_text(f"\n{line}\n")
    if word is None:
        assert Folder(root)[0].targets == {}
    else:
        with pytest.raises(FolderError, match=word) as caught:
            Folder(root)
        assert ":2" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("header", "word"),
    [
        ({"schema": "other/9"}, "other/9"),
        ({"root": "../elsewhere"}, "root"),
        ({"root": "/data/../etc"}, "root"),
        ({"root": "/"}, "root"),
        ({"root": 3}, "root"),
        ({"root": "/no/such/folder"}, "convert it again"),
        ({"targets": {"depth": 3}}, "targets"),
        ([], "object"),
    ],
)
def test_headers_that_are_not_headers_are_refused(header, word, tmp_path):
    with pytest.raises(FolderError, match=word):
        Folder(plain(tmp_path / "p", header, {}))


def test_folders_that_are_not_data_are_refused(tmp_path):
    with pytest.raises(FolderError, match="not a folder"):
        Folder(tmp_path / "nowhere")
    with pytest.raises(FolderError, match="not a data folder"):
        Folder(tmp_path)
    FolderWriter(tmp_path / "data", HEADER).write(a_sample("a"))
    with pytest.raises(FolderError, match="unfinished"):
        Folder(tmp_path / "data")


def test_sizes_that_do_not_agree_are_refused(tmp_path):
    root = written(tmp_path / "data")
    edit(root, lambda rows: rows[0].update(size=[9, 9]))
    with pytest.raises(FolderError, match="6x8"):
        Folder(root)[0]
    np.save(root / "normals" / "0001.npy", np.ones((3, 4, 3)))
    with pytest.raises(FolderError, match="normals is 3x4"):
        Folder(root)[1]


def test_errors_of_a_descriptor_and_a_camera_name_the_file(tmp_path):
    row = {"targets": {"depth": {"path": "d.png"}}}
    root = plain(tmp_path / "p", {}, row, d_png=np.ones(SIZE, dtype=np.uint16))
    (root / "dataset.json").write_text('{"targets": {"depth": {"codec": "png16"}}}')
    with pytest.raises(FolderError, match=r"d\.png.*scale"):
        Folder(root)[0]
    with pytest.raises(FolderError, match="camera"):
        Folder(plain(tmp_path / "q", {}, {"camera": {"K": [[0, 0], [1, 1]]}}))[0]
    with pytest.raises(FolderError, match="guessed"):
        Folder(plain(tmp_path / "r", {}, {"provenance": {"origin": "guessed"}}))[0]


# ---- validate


def test_a_good_folder_has_no_problems(tmp_path):
    report = validate(written(tmp_path / "data"))
    assert report.ok and report.count == 3 and "3 samples, no problems" in str(report)
    assert report.targets["depth"]["samples"] == 3 and 0.5 < report.targets["depth"]["least"] < 6


def test_validate_reports_all_that_is_wrong(tmp_path):
    root = written(tmp_path / "data", 6)
    (root / "image" / "0000.png").write_bytes(b"junk")
    (root / "depth" / "0001.png").unlink()
    np.save(root / "normals" / "0002.npy", np.full((*SIZE, 3), 0.9))
    away = np.zeros((*SIZE, 3))
    away[..., 2] = -1
    np.save(root / "normals" / "0003.npy", away)
    Image.fromarray(np.zeros(SIZE, dtype=np.uint16)).save(root / "depth" / "0004.png")
    header = json.loads((root / "dataset.json").read_text())
    (root / "dataset.json").write_text(json.dumps({**header, "count": 7}))
    report = validate(root)
    output = "\n".join(report.problems)
    for word in (
        "0000.png",
        "0001.png",
        "0002: normals have lengths",
        "0003: only 0%",
        "0004: depth has no",
        "the count 7",
    ):
        assert word in output, (word, output)
    assert len(report.problems) == 6 and not report.ok


def test_validate_reports_unmerged_rows_and_missing_folders(tmp_path):
    root = written(tmp_path / "data")
    FolderWriter(root, HEADER).write(a_sample("late"))
    assert "1 rows are not merged" in str(validate(root))
    assert not validate(tmp_path).ok


def test_a_folder_is_a_dataset_of_pytorch(tmp_path):
    folder = Folder(written(tmp_path / "a"))
    assert isinstance(folder, torch.utils.data.Dataset)
    loader = torch.utils.data.DataLoader(folder, batch_size=2, collate_fn=list)
    assert [[sample.id for sample in batch] for batch in loader] == [["0000", "0001"], ["0002"]]
    assert torch.equal(next(iter(loader))[0].image, folder[0].image)
