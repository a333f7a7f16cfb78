"""Laws of packed folders: what was packed is read, bytes are the same everywhere, and no shard is trusted."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from trees import matting, people
from twofold.data import Folder, FolderError, FolderWriter, validate
from twofold.data.convert import CONVERTERS, convert
from twofold.data.pack import MAX_BYTES, Shards, check_shard, pack
from twofold.io.atomic import host_name
from twofold.sample import Sample

SIZE = (6, 8)


def source(root: Path, count: int = 7, size: tuple[int, int] = SIZE) -> Folder:
    """A folder of several kinds of files, with dots and slashes in its ids."""
    writer = FolderWriter(
        root, {"name": "toy", "classes": ["a", "b"], "targets": {"depth": {}, "normals": {}}}
    )
    for i in range(count):
        rng = torch.Generator().manual_seed(i)
        valid = torch.rand(1, *size, generator=rng) > 0.3
        normals = torch.nn.functional.normalize(torch.randn(3, *size, generator=rng), dim=0)
        normals[2] = normals[2].abs()
        writer.write(
            Sample(
                torch.rand(3, *size, generator=rng),
                {"depth": valid * 3.0, "normals": normals * valid},
                {"depth": valid, "normals": valid},
                f"picture {i}", f"a.b/frame.{i:04d}.color",
            )
        )  # fmt: skip
    writer.finish()
    return Folder(root)


def same(a: Sample, b: Sample) -> bool:
    """Equal to the bit."""
    return (
        (a.id, a.caption, a.camera, a.origin) == (b.id, b.caption, b.camera, b.origin)
        and torch.equal(a.image, b.image)
        and set(a.targets) == set(b.targets)
        and all(
            torch.equal(a.targets[n], b.targets[n]) and torch.equal(a.valid[n], b.valid[n]) for n in a.targets
        )
    )


def small(folder: Folder, out: Path) -> list:
    """Packed so that every shard has a few samples."""
    return list(pack(folder, out, 10_240))


def test_what_was_packed_is_read(tmp_path):
    folder = source(tmp_path / "data")
    done = small(folder, tmp_path / "packed")
    assert len(done) > 2 and sum(d.samples for d in done) == 7 and not any(d.kept for d in done)
    assert all(d.size == d.path.stat().st_size <= 10_240 for d in done)
    shards = Shards(tmp_path / "packed")
    assert shards.ids == folder.ids and shards.header["classes"] == ["a", "b"]
    for i in (6, 0, 3, 5, 1, 2, 4, -1):
        assert same(shards[i], folder[i])
    report = validate(tmp_path / "packed")
    assert report.ok and report.count == 7
    # A part of a folder packs too, in its own order.
    few = folder.select([folder.ids[4], folder.ids[1]])
    small(few, tmp_path / "few")
    assert Shards(tmp_path / "few").ids == few.ids and same(Shards(tmp_path / "few")[0], folder[4])


def test_files_keep_their_bytes_and_other_tools_find_the_samples(tmp_path):
    folder = source(tmp_path / "data", 3)
    (done,) = pack(folder, tmp_path / "packed")
    samples: dict[str, dict[str, bytes]] = {}
    with tarfile.open(done.path) as archive:
        for member in archive:
            # The rule of webdataset: the key ends at the first dot.
            key, _, kind = member.name.partition(".")
            file = archive.extractfile(member)
            assert file is not None and (member.mtime, member.uid, member.mode) == (0, 0, 0o644)
            samples.setdefault(key, {})[kind] = file.read()
    assert list(samples) == ["00000000", "00000001", "00000002"]
    for row, found in zip(folder.rows, samples.values(), strict=True):
        assert set(found) == {"image.png", "depth.png", "normals.npy", "json"}
        assert found["image.png"] == (folder.root / row["file_name"]).read_bytes()
        assert found["depth.png"] == (folder.root / row["targets"]["depth"]["path"]).read_bytes()
        assert json.loads(found["json"])["id"] == row["id"]
    # The rows in the shards are those of the manifest, which can so be made again.
    lines = (tmp_path / "packed" / "metadata.jsonl").read_text().splitlines()
    assert [json.loads(s["json"]) for s in samples.values()] == [json.loads(line) for line in lines]


def test_the_same_folder_gives_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        small(source(tmp_path / name), tmp_path / f"{name}-packed")
    one, two = tmp_path / "one-packed", tmp_path / "two-packed"
    files = sorted(p.name for p in one.iterdir())
    assert files == sorted(p.name for p in two.iterdir()) and len(files) > 4
    assert all((one / f).read_bytes() == (two / f).read_bytes() for f in files)


def test_a_native_tree_packs_with_its_descriptors(tmp_path):
    tree = matting.p3m10k(tmp_path / "p3m", False)
    folder = Folder(convert(CONVERTERS["p3m10k"], tree, "P3M-500-P", tmp_path / "folder"))
    small(folder, tmp_path / "packed")
    before = [folder[i] for i in range(len(folder))]
    shutil.rmtree(tree)
    after = Shards(tmp_path / "packed")
    assert "root" not in after.header and all(same(a, b) for a, b in zip(before, after, strict=True))
    assert ".jpg" in after.rows[0]["file_name"]


def test_keypoints_stored_in_rows_stay_in_rows(tmp_path):
    tree = people.coco(tmp_path / "coco")
    folder = Folder(convert(CONVERTERS["coco-keypoints"], tree, "val2017", tmp_path / "folder"))
    small(folder, tmp_path / "packed")
    shards = Shards(tmp_path / "packed")
    assert [r["targets"] for r in shards.rows] == [r["targets"] for r in folder.rows]


def test_masks_and_members_of_tars_pack(tmp_path):
    root = tmp_path / "mixed"
    (root / "m").mkdir(parents=True)
    source(tmp_path / "data", 1)
    with tarfile.open(root / "native.tar", "w") as archive:
        archive.add(tmp_path / "data/image/a.b/frame.0000.color.png", "./rgb/a.b.png")
    np.save(root / "m/depth.npy", np.full(SIZE, 2, np.float32))
    np.save(root / "m/mask.npy", np.eye(*SIZE, dtype=np.uint8))
    mask = {"hole": {"path": "m/mask.npy", "codec": "npy", "invalid": [1]}}
    depth = {"path": "m/depth.npy", "codec": "npy", "masks": mask}
    row = {"id": "x", "file_name": "native.tar::./rgb/a.b.png", "targets": {"depth": depth}}
    (root / "metadata.jsonl").write_text(json.dumps(row))
    folder = Folder(root)
    small(folder, tmp_path / "packed")
    shards = Shards(tmp_path / "packed")
    assert same(shards[0], folder[0])
    assert not (tmp_path / "packed" / "native.tar").exists()
    names = check_shard(tmp_path / "packed/shard-00000.tar")
    assert "00000000.image.png" in names and "00000000.depth.masks.hole.npy" in names


# ---- killed, changed, refused


def test_a_kill_costs_one_shard(tmp_path, monkeypatch):
    folder, out = source(tmp_path / "data"), tmp_path / "packed"
    first = next(pack(folder, out, 10_240))
    with pytest.raises(FolderError, match="has no metadata"):
        Shards(out)
    written = first.path.stat().st_mtime_ns
    (out / f".tmp-{host_name()}-999999999-000000ab.tar").write_bytes(b"half a shard of a killed process")
    done = small(folder, out)
    assert done[0].kept and not any(d.kept for d in done[1:]) and first.path.stat().st_mtime_ns == written
    assert all(same(a, b) for a, b in zip(Shards(out), folder, strict=True))
    assert all(d.kept for d in small(folder, out)) and not list(out.glob(".tmp-*"))
    # A file that changed, even if it is as long as before, goes into its shard again.
    image = folder.root / folder.rows[6]["file_name"]
    image.write_bytes(image.read_bytes())
    assert [d.kept for d in small(folder, out)].count(False) == 1
    # A shard that was cut short is written again.
    done[1].path.write_bytes(done[1].path.read_bytes()[:-512])
    assert [d.kept for d in small(folder, out)].count(False) == 1


def test_what_was_begun_otherwise_is_refused(tmp_path):
    folder, out = source(tmp_path / "data"), tmp_path / "packed"
    small(folder, out)
    with pytest.raises(FolderError, match="other samples or with another size"):
        list(pack(folder, out, 50_000))
    with pytest.raises(FolderError, match="other samples"):
        small(source(tmp_path / "more", 8), out)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.txt").write_text("mine")
    for target, words in (
        (tmp_path / "full", "holds other files"),
        (tmp_path / "data", "is the folder itself"),
    ):
        with pytest.raises(FolderError, match=words):
            small(folder, target)
    with pytest.raises(FolderError, match="shard size is"):
        list(pack(folder, tmp_path / "tiny", 100))
    with pytest.raises(FolderError, match="no samples"):
        small(folder.select([]), tmp_path / "none")
    (tmp_path / "data/depth/a.b/frame.0003.color.png").unlink()
    with pytest.raises(FolderError, match=r"frame.0003.color.png does not exist"):
        small(Folder(tmp_path / "data"), tmp_path / "torn")


def test_a_large_sample_has_a_shard_of_its_own(tmp_path):
    folder = source(tmp_path / "data", 2, (60, 80))
    done = small(folder, tmp_path / "packed")
    assert [d.samples for d in done] == [1, 1] and all(d.size > 10_240 for d in done)
    assert all(same(a, b) for a, b in zip(Shards(tmp_path / "packed"), folder, strict=True))


@pytest.mark.parametrize(
    ("name", "target", "words"),
    [
        ("in dex", {}, "cannot be packed"),
        ("json", {}, "cannot be packed"),
        ("depth", {"index": 0}, "of a stack"),
    ],
)
def test_targets_that_have_no_plain_name_or_file_are_refused(tmp_path, name, target, words):
    folder = source(tmp_path / "data", 1)
    row = {**folder.rows[0], "targets": {name: {**folder.rows[0]["targets"]["depth"], **target}}}
    (folder.root / "metadata.jsonl").write_text(json.dumps(row))
    with pytest.raises(FolderError, match=words):
        small(Folder(folder.root), tmp_path / "packed")


def _member(name: str, data: bytes = b"x", kind: bytes = tarfile.REGTYPE, link: str = "") -> tuple:
    item = tarfile.TarInfo(name)
    item.type, item.linkname, item.size = kind, link, len(data) if kind == tarfile.REGTYPE else 0
    return item, data


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([_member("/etc/passwd")], "leaves the folder"),
        ([_member("../../a.png")], "leaves the folder"),
        ([_member("a/../../b.png")], "leaves the folder"),
        ([_member("./a.png")], "not a normalized file name"),
        ([_member("a\\b.png")], "leaves the folder"),
        ([_member("a\nb.png")], "not a path"),
        ([_member("link.png", b"", tarfile.SYMTYPE, "/etc/passwd")], "not a regular file"),
        ([_member("a.png"), _member("hard.png", b"", tarfile.LNKTYPE, "a.png")], "not a regular file"),
        ([_member("null.png", b"", tarfile.CHRTYPE)], "not a regular file"),
        ([_member("pipe.png", b"", tarfile.FIFOTYPE)], "not a regular file"),
        ([_member("folder", b"", tarfile.DIRTYPE)], "not a regular file"),
        ([_member("a.png"), _member("a.png")], "occurs twice"),
    ],
)
def test_unsafe_members_are_refused(tmp_path, members, words):
    path = tmp_path / "shard-00000.tar"
    with tarfile.open(path, "w") as archive:
        for item, data in members:
            archive.addfile(item, io.BytesIO(data))
    with pytest.raises(FolderError, match=words) as error:
        check_shard(path)
    assert "shard-00000.tar" in str(error.value) and "\n" not in str(error.value)


def _rewritten(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def test_huge_torn_and_compressed_shards_are_refused(tmp_path):
    path = tmp_path / "shard.tar"
    item = tarfile.TarInfo("a.png")
    item.size = MAX_BYTES + 1
    path.write_bytes(item.tobuf(tarfile.USTAR_FORMAT) + bytes(1024))
    with pytest.raises(FolderError, match="at most"):
        check_shard(path)
    item.size = 4096
    path.write_bytes(item.tobuf(tarfile.USTAR_FORMAT) + bytes(1024))
    with pytest.raises(FolderError, match=r"truncated|complete, uncompressed tar"):
        check_shard(path)
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(*_member("a.png")[:1], io.BytesIO(b"x"))
    with pytest.raises(FolderError, match="complete, uncompressed tar"):
        check_shard(path)


def test_rows_and_shards_must_fit(tmp_path):
    small(source(tmp_path / "data", 2), tmp_path / "packed")
    manifest = tmp_path / "packed/metadata.jsonl"
    good = manifest.read_text()
    for change, words in (
        (("00000001.depth", "00000007.depth"), r"no '00000007.depth.png'"),
        (("shard-00000.tar::00000001.depth", "../shard-00000.tar::00000001.depth"), "leaves the folder"),
        (("shard-00000.tar::00000001.depth.png", "metadata.jsonl"), "not in a shard"),
        (("shard-00000.tar", "shard-00009.tar"), "shard-00009.tar does not exist"),
    ):
        manifest.write_text(good.replace(*change))
        with pytest.raises(FolderError, match=words):
            Shards(tmp_path / "packed")
    manifest.write_text(good)
    (tmp_path / "packed/shard-00000.tar").rename(tmp_path / "elsewhere.tar")
    (tmp_path / "packed/shard-00000.tar").symlink_to(tmp_path / "elsewhere.tar")
    with pytest.raises(FolderError, match="link out of the folder"):
        Shards(tmp_path / "packed")
