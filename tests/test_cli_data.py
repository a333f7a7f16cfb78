"""`twofold data`: what it prints, to which stream, with which exit code; the sample sheet; and docs/data.md."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from trees import matting, people, seg
from twofold.cli.main import run
from twofold.data import Folder, FolderWriter
from twofold.data.convert import CONVERTERS, convert
from twofold.data.sheet import draw_sample_sheet, target_image
from twofold.image import read_image, write_image
from twofold.sample import Sample
from twofold.targets import target_spec
from twofold.targets.ids import id_colors
from twofold.visualization import UNKNOWN


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def json_lines(capsys: pytest.CaptureFixture[str]) -> list[dict]:
    """The JSON lines of standard output, and nothing on standard error."""
    output = capsys.readouterr()
    assert not output.err
    return [json.loads(line) for line in output.out.splitlines()]


def toy(root: Path, count: int = 3) -> Path:
    """A folder with depth and a semantic target that only the first sample has."""
    writer = FolderWriter(root, {"name": "toy", "targets": {"depth": {}, "semantic": {}}})
    for i in range(count):
        known = torch.ones(1, 6, 8, dtype=torch.bool)
        known[:, 0] = False
        targets = {"depth": torch.where(known, 2.0 + i, 0.0)}
        if i == 0:
            targets["semantic"] = torch.arange(48.0).reshape(1, 6, 8) * known
        writer.write(
            Sample(torch.full((3, 6, 8), i / 4), targets, dict.fromkeys(targets, known), "", f"s{i}")
        )
    writer.finish()
    return root


def test_list_prints_licence_and_access_of_each_data_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "list"]) == 0
    output = capsys.readouterr().out
    for one in CONVERTERS.values():
        assert one.name in output and one.licence in output and one.access in output
    assert run(["data", "list", "--json"]) == 0
    rows = {row["name"]: row for row in json_lines(capsys)}
    assert set(rows) == set(CONVERTERS)
    assert rows["dis5k"]["splits"][0] == "DIS-TR" and "redistribution" in rows["dis5k"]["licence"]
    assert run(["data", "list", "pascal-mt"]) == 0
    output = capsys.readouterr().out
    assert "new files" in output and "LUB is assumed" in output
    assert run(["data"]) == 0 and "convert" in capsys.readouterr().out


def test_convert_validate_and_pack_a_native_tree(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    matting.p3m10k(Path("p3m"), True)
    command = ["data", "convert", "p3m10k", "p3m", "--split", "P3M-500-NP", "--out", "folder"]
    assert run(command) == 0
    assert "2 samples with matting, trimap: folder/" in capsys.readouterr().out
    assert run([*command, "--json"]) == 0
    assert json_lines(capsys) == [
        {
            "out": "folder",
            "name": "p3m10k",
            "split": "P3M-500-NP",
            "samples": 2,
            "targets": ["matting", "trimap"],
        }
    ]
    assert sorted(p.name for p in Path("folder").iterdir()) == ["dataset.json", "metadata.jsonl"]
    assert run(["data", "validate", "folder"]) == 0
    output = capsys.readouterr().out
    assert "2 samples" in output and "no problems" in output and "matting" in output
    assert run(["data", "pack", "folder", "packed"]) == 0
    assert "2 samples in 1 shards" in capsys.readouterr().out
    assert run(["data", "pack", "folder", "packed", "--json"]) == 0
    assert [row["kept"] for row in json_lines(capsys)] == [True]
    assert run(["data", "validate", "packed", "--json"]) == 0
    (report,) = json_lines(capsys)
    assert report["ok"] and report["count"] == 2 and report["targets"]["matting"]["samples"] == 2
    for a, b in zip(Folder("folder"), Folder("packed"), strict=True):
        assert torch.equal(a.image, b.image) and torch.equal(a.targets["matting"], b.targets["matting"])


def test_limit_converts_fewer_samples(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    matting.composition1k(Path("dim"), each=20)
    options = ["--split", "test", "--out", "folder", "--limit", "3"]
    assert run(["data", "convert", "composition1k", "dim", *options]) == 0
    assert len(Folder("folder")) == 3 and "3 samples" in capsys.readouterr().out


def test_validate_exits_with_1_if_it_finds_problems(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy(Path("folder"))
    Path("folder/depth/s1.png").write_bytes(b"not an image")
    assert run(["data", "validate", "folder", "--sheet", "deep/sheet.png"]) == 1
    output = capsys.readouterr().out
    assert "! " in output and "s1.png" in output and "1 problem" in output
    # The readable samples are shown nevertheless.
    assert read_image("deep/sheet.png").shape[-1] > 600
    assert run(["data", "validate", "folder", "--json"]) == 1
    (report,) = json_lines(capsys)
    assert not report["ok"] and len(report["problems"]) == 1 and report["sheet"] is None
    assert run(["data", "validate", "nowhere", "--sheet", "none.png"]) == 1
    assert "nowhere is not a folder" in capsys.readouterr().out and not Path("none.png").exists()
    assert run(["data", "validate", "folder", "--limit", "1"]) == 0


def test_validate_reports_a_symbolic_link_in_a_shard(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy(Path("folder"))
    assert run(["data", "pack", "folder", "packed"]) == 0
    shard = Path("packed/shard-00000.tar")
    data = shard.read_bytes()
    # Change the type of the first member to a symbolic link.
    header = bytearray(data[:512])
    header[156:157] = b"2"
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    shard.write_bytes(bytes(header) + data[512:])
    capsys.readouterr()
    assert run(["data", "validate", "packed"]) == 1
    assert "is not a regular file" in capsys.readouterr().out


def test_import_reads_a_parquet_table(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    write_image("a.png", torch.rand(3, 6, 8))
    depth = np.full((6, 8), 1500, np.uint16)
    depth[0] = 7
    from PIL import Image

    Image.fromarray(depth).save("d.png")
    cells = {key: [Path(f"{key}.png").read_bytes()] * 2 for key in ("a", "d")}
    parquet.write_table(
        pa.table({"photo": cells["a"], "z": cells["d"], "words": ["one", "two"]}), "t.parquet"
    )
    target = "depth=z,codec=png16,scale=0.001,invalid=[0,7]"
    command = ["data", "import", "t.parquet", "--out", "folder", "--image", "photo", "--caption", "words"]
    assert run([*command, "--target", target, "--licence", "CC0", "--json"]) == 0
    assert [(row["id"], row["written"]) for row in json_lines(capsys)] == [("000000", True), ("000001", True)]
    sample = Folder("folder")[1]
    assert sample.caption == "two" and not sample.valid["depth"][0, 0].any()
    assert sample.targets["depth"][0, 1, 0].item() == pytest.approx(1.5)
    assert run([*command, "--target", target, "--licence", "CC0"]) == 0
    assert "0 samples imported, 2 existed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["convert", "citiscapes", ".", "--split", "val", "--out", "x"], "did you mean 'cityscapes'?"),
        (["convert", "xyz", ".", "--split", "val", "--out", "x"], "'twofold data list' lists them"),
        (["convert", "dis5k", "tree", "--split", "val", "--out", "x"], "no split 'val'; it has DIS-TR"),
        (["convert", "dis5k", "nowhere", "--split", "DIS-VD", "--out", "x"], "nowhere is not a folder"),
        (["convert", "dis5k", "tree", "--split", "DIS-VD", "--out", "tree/x"], "which is not changed"),
        (["convert", "dis5k", "tree", "--split", "DIS-VD"], "--out"),
        (["list", "xyz"], "no data set 'xyz'"),
        (["validate", "tree", "--sheet", "a.jpg"], "must end in .png"),
        (["pack", "tree", "x"], "tree is not a data folder"),
        (["pack", "tree", "x", "--shard-size", "0"], "--shard-size"),
        (["import", "tree", "--out", "x", "--target", "depth"], "is not NAME=COLUMN"),
        (["import", "tree", "--out", "x", "--target", "depth=z,png16"], "'png16' is not KEY=VALUE"),
        (["import", "tree", "--out", "x", "--kind", "painted"], "--kind 'painted'"),
        (["import", "tree", "--out", "x"], "neither a saved dataset"),
        (["unpack"], "unpack"),
    ],
)
def test_a_usage_error_is_one_line_that_says_what_to_do(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    seg.dis5k(Path("tree"))
    assert run(["data", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("twofold: ") and error.count("\n") == 1 and expected in error
    assert not Path("x/metadata.jsonl").exists()


# ---- the sheet


def test_a_sample_sheet_has_one_row_per_sample_and_one_column_per_target(tmp_path: Path) -> None:
    folder = Folder(toy(tmp_path / "toy"))
    sheet = draw_sample_sheet(folder, count=3, edge=80)
    assert sheet.shape == (3, 3 * (60 + 18) + 2 * 4, 3 * 80 + 2 * 4)
    assert sheet.min() >= 0 and sheet.max() <= 1
    cell = sheet[:, 18 + 15 : 18 + 58, 2:78]
    assert (cell == 0).all(), "the first image is black"
    # Unknown pixels of a target are grey; the cell of an absent target is white.
    assert (sheet[:, 18 : 18 + 9, 84 + 2 : 84 + 78] == UNKNOWN).all()
    assert (sheet[:, 100:150, 170:240] == 1).all()
    assert draw_sample_sheet(folder, count=99, edge=80).shape == sheet.shape
    assert draw_sample_sheet(folder, count=1, edge=80).shape[-2] == 60 + 18


def test_neighbouring_ids_have_different_colours() -> None:
    colors = id_colors(torch.arange(64.0).reshape(1, 8, 8)).flatten(1).T
    assert colors[0].tolist() == [0, 0, 0] and colors.min() >= 0 and colors.max() <= 1
    near = torch.stack([(colors[i] - colors[i + k]).abs().sum() for k in (1, 2, 3) for i in range(60)])
    assert near.min() > 0.3


@pytest.mark.parametrize("name", ["depth", "normals", "mask", "matting", "trimap", "edge", "semantic", "parts",
                                  "instance", "albedo", "shading", "keypoints", "skeleton", "heat"])  # fmt: skip
def test_every_target_can_be_visualized(name: str) -> None:
    channels = target_spec(name).channels or 1
    target, valid = torch.rand(channels, 8, 10), torch.ones(1, 8, 10, dtype=torch.bool)
    valid[:, 0] = name == "keypoints"
    image = target_image(name, Sample(torch.rand(3, 8, 10), {name: target}, {name: valid}))
    assert image.shape == (3, 8, 10) and image.min() >= 0 and image.max() <= 1 and not image.isnan().any()
    if name != "keypoints":
        assert (image[:, 0] == UNKNOWN).all()


def test_keypoints_are_drawn_over_the_image(tmp_path: Path) -> None:
    tree = people.coco(tmp_path / "coco")
    sample = Folder(convert(CONVERTERS["coco-keypoints"], tree, "val2017", tmp_path / "c"))[0]
    image = target_image("keypoints", sample)
    assert image.shape == sample.image.shape and not torch.equal(image, sample.image * 0.4 + 0.3)


# ---- docs/data.md


PAGE = Path(__file__).parents[1] / "docs" / "data.md"


def test_the_page_lists_every_converter() -> None:
    text = PAGE.read_text()
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    for name in CONVERTERS:
        family, _, member = name.partition("-")
        short = [f"`{name}`", f"`-{member}`", f"`-{name.rpartition('-')[2]}`"]
        assert any(any(s in row for s in short) and family in row for row in rows), name


def test_data_page_programs_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(2):
        seg.photo(Path(f"mine/photos/{i}.jpg"), i)
        seg.save(Path(f"mine/masks/{i}.png"), 255 * np.eye(*seg.SIZE))
    programs = PAGE.read_text().split("```python\n")[1:]
    assert len(programs) == 3
    for program in programs:
        exec(program.partition("```")[0], {})
    assert run(["data", "validate", "mine"]) == 0
    assert run(["data", "validate", "made"]) == 0
    assert torch.equal(Folder("mine")[1].targets["mask"][0], torch.eye(*seg.SIZE))
    for block in PAGE.read_text().split("```json\n")[1:]:
        json.loads(block.partition("```")[0])


def test_data_page_target_examples_are_read(here: Path) -> None:
    """A data folder for each row of the table."""
    seg.photo(Path("a.jpg"))
    seg.save(Path("grey.png"), seg.ids(0, 40))
    from PIL import Image

    Image.fromarray(np.full(seg.SIZE, 1500, np.uint16)).save("wide.png")
    seg.save(Path("color.png"), np.full((*seg.SIZE, 3), (128, 128, 255)))
    files = {"matting": "grey.png", "semantic": "grey.png", "depth": "wide.png", "normals": "color.png"}
    points = [[float(i), 2.0, 2] for i in range(17)]
    inline = {
        "keypoints": {"points": points, "box": [0, 0, 5, 8], "area": 9, "ann_id": 1, "image_id": 1},
        "skeleton": {"people": [points]},
    }
    text = PAGE.read_text().partition("| labels |")[2].partition("\n\n")[0]
    lines = [line for line in text.splitlines()[2:] if line.startswith("|")]
    assert len(lines) == 7
    for line in lines:
        header = json.loads(line.split("|")[2].split("`")[1])
        (name,) = header
        target = inline.get(name) or {"path": files[name]}
        Path("dataset.json").write_text(json.dumps({"targets": header}))
        Path("metadata.jsonl").write_text(json.dumps({"file_name": "a.jpg", "targets": {name: target}}))
        sample = Folder(".")[0]
        assert set(sample.targets) == {name} and sample.valid[name].any()


OWN_CONVERTER = """
from twofold.data.convert import Converter


def rows(root, split):
    for path in sorted((root / split).glob("*.png")):
        yield {"id": path.stem, "file_name": f"{split}/{path.name}"}


MINE = Converter("mine", "my images", "own", "mine", ("all",), {}, rows)
"""


def test_a_custom_converter_is_passed_as_module_and_object(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "own_converter.py").write_text(OWN_CONVERTER)
    monkeypatch.syspath_prepend(here)
    monkeypatch.delitem(sys.modules, "own_converter", raising=False)
    (here / "tree" / "all").mkdir(parents=True)
    write_image(here / "tree" / "all" / "a.png", torch.rand(3, 4, 5))
    command = ["data", "convert", "own_converter:MINE", "tree", "--split", "all", "--out", "folder"]
    assert run(command) == 0
    assert Folder("folder")[0].image.shape == (3, 4, 5)
    capsys.readouterr()
    assert run([*command[:2], "own_converter:rows", *command[3:]]) == 2
    assert "own_converter:rows is not a Converter" in capsys.readouterr().err
    assert run([*command[:2], "hypersm", *command[3:]]) == 2
    assert "hypersim" in capsys.readouterr().err
