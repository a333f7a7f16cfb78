"""Names, links and deletions that a batch meets: each costs one row at most, and nothing is written elsewhere."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from torch import Tensor

from test_predict_files import contents, job, photo
from twofold.cli.main import run
from twofold.io import UnsafeNameError
from twofold.io.atomic import host_name
from twofold.predict.base import BasePredictor
from twofold.predict.batching import ImageBatch
from twofold.predict.files import predict_files
from twofold.predict.inputs import Input, Problem, find_inputs
from twofold.predict.result_log import ResultLogError
from twofold.predict.results import OutputError
from twofold.tasks import TASKS

posix = pytest.mark.skipif(sys.platform == "win32", reason="such names and links are not possible there")


def names(given: list[str], out: str = "predictions") -> tuple[list[str], list[str]]:
    """The names of the inputs, and what is skipped."""
    skipped: list[Problem] = []
    found, problems = find_inputs(given, Path(out), skipped)
    assert not problems
    return [item.name for item in found], [one.error for one in skipped]


def tree(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(root / path, "PNG")
    return root


# ---- folders


def test_formats_of_cameras_and_renderers_and_files_without_suffix_are_found(tmp_path: Path) -> None:
    tree(tmp_path, "a.heic", "b.EXR", "c.hdr", "d.tga", "noend", "e.png")
    (tmp_path / "README").write_text("no image")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / ".hidden.png").touch()
    found, skipped = names([str(tmp_path)])
    assert found == ["a", "b", "c", "d", "e", "noend"]
    assert len(skipped) == 3
    for name, cause in {
        "README": "not an image",
        "notes.txt": ".txt is not a supported image format",
        ".hidden.png": "hidden",
    }.items():
        assert any(name in line and cause in line for line in skipped)


@posix
def test_linked_folders_are_searched_once_and_never_in_circles(tmp_path: Path) -> None:
    tree(tmp_path, "in/real/a.png", "in/z/b.png", "elsewhere/c.png")
    (tmp_path / "in" / "circle").symlink_to(".")
    (tmp_path / "in" / "real" / "up").symlink_to("..")
    (tmp_path / "in" / "real" / "top").symlink_to(tmp_path)
    (tmp_path / "in" / "again").symlink_to("z")
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "in")
    found, skipped = names([str(tmp_path / "in")])
    assert sorted(found) == ["linked/c", "real/a", "z/b"]
    assert len(skipped) == 5 and all("link to a folder" in line for line in skipped)


@posix
@pytest.mark.parametrize("pattern", ["**", "**/*", "**/*.png", "*", "**/real/**/*.png", "*/a.png"])
def test_patterns_do_not_follow_links_in_circles(tmp_path: Path, pattern: str) -> None:
    tree(tmp_path, "in/real/a.png")
    for i in range(12):  # glob would try 12 ** 40 ways
        (tmp_path / "in" / f"circle{i}").symlink_to(".")
        (tmp_path / "in" / "real" / f"circle{i}").symlink_to("..")
    found, _ = names([str(tmp_path / "in" / pattern)])
    assert len(found) == 1 and found[0].endswith("a")


@posix
def test_results_behind_a_link_are_no_inputs(tmp_path: Path) -> None:
    tree(tmp_path, "in/a.png", "out/b_depth.png")
    (tmp_path / "in" / "results").symlink_to(tmp_path / "out")
    assert names([str(tmp_path / "in")], str(tmp_path / "out"))[0] == ["a"]


# ---- names


@posix
@pytest.mark.parametrize("name", [b"bad\xff.png", b"new\nline.png", b"a\x1b[2J.png", b"n" * 240 + b".png"])
def test_a_name_that_cannot_be_a_result_is_one_failed_row_now_and_again(tmp_path: Path, name: bytes) -> None:
    for other in ("a", "z"):
        photo(tmp_path / "in" / f"{other}.png")
    path = os.path.join(tmp_path / "in", os.fsdecode(name))
    shutil.copy(tmp_path / "in" / "a.png", path)
    found, _ = find_inputs([str(tmp_path / "in")], tmp_path / "out")
    first = list(predict_files(job(tmp_path / "out"), found))
    again = list(predict_files(job(tmp_path / "out"), found))
    assert sorted(row["status"] for row in first) == ["done", "done", "failed"]
    assert sorted(row["status"] for row in again) == ["failed", "kept", "kept"]
    (failed,) = [row for row in first if row["status"] == "failed"]
    assert "cannot be a file name" in failed["error"]
    rows = [
        json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text("utf-8").splitlines()
    ]
    assert {os.fsencode(row["input"]) for row in rows} >= {os.fsencode(path)}


@posix
def test_a_stem_of_dots_stays_in_the_folder(tmp_path: Path) -> None:
    tree(tmp_path, "in/..png", "in/...png", "in/sub/..png")
    out = tmp_path / "deep" / "out"
    found, _ = find_inputs([str(tmp_path / "in" / n) for n in ("..png", "...png", "sub/..png")], out)
    assert [row["status"] for row in predict_files(job(out), found)] == ["done"] * 3
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["out"]
    assert (out / "in" / "..png_depth.npy").is_file()


@posix
@pytest.mark.parametrize("name", ["..", "../x", "/abs", "a/../../x", "."])
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str) -> None:
    item = photo(tmp_path / "a.png")
    (row,) = predict_files(job(tmp_path / "deep" / "out"), [Input(item.path, name)])
    assert row["status"] == "failed" and "cannot be a file name" in row["error"]
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["out"]


@posix
def test_a_task_name_that_leaves_the_output_folder_is_refused(tmp_path: Path) -> None:
    made = job(tmp_path / "deep" / "out", ("depth",))
    evil = "../../../evil/x"
    made = replace(made, predictors={evil: made.predictors["depth"]}, settings={evil: {}})
    (row,) = predict_files(made, [photo(tmp_path / "a.png")])
    assert row["status"] == "failed" and "cannot be a file name" in row["error"]


# ---- links in the output folder


@posix
@pytest.mark.parametrize("exists", [True, False])
def test_a_linked_list_of_results_is_not_written_through(tmp_path: Path, exists: bool) -> None:
    target = tmp_path / "precious.jsonl"
    if exists:
        target.write_text("")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "predictions.jsonl").symlink_to(target)
    with pytest.raises(UnsafeNameError, match="through a link"):
        list(predict_files(job(tmp_path / "out"), [photo(tmp_path / "a.png")]))
    assert (target.read_text() == "") if exists else not target.exists()


@posix
def test_a_linked_sub_folder_of_results_is_not_written_through(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / f".tmp-{host_name()}-999999999-00000000.png").touch()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sub").symlink_to(other)
    item = replace(photo(tmp_path / "a.png"), name="sub/a")
    (row,) = predict_files(job(tmp_path / "out"), [item])
    assert row["status"] == "failed" and "through a link" in row["error"]
    assert [p.name for p in other.iterdir()] == [f".tmp-{host_name()}-999999999-00000000.png"]


# ---- deletions and lists of rows


@pytest.mark.parametrize("what", ["folder", "replaced", "file"])
def test_results_deleted_during_the_run_end_in_an_error(tmp_path: Path, what: str) -> None:
    items = [photo(tmp_path / f"{i}.png", i) for i in range(3)]
    out, steps = tmp_path / "out", 0
    with pytest.raises(OutputError, match="deleted"):
        for _ in predict_files(job(out), items):
            steps += 1
            if steps == 2 and what != "file":
                shutil.rmtree(out)
                if what == "replaced":
                    out.mkdir()
            elif steps == 2:
                (out / "0_depth.npy").unlink()
    list(predict_files(job(out), items))
    list(predict_files(job(tmp_path / "whole"), items))
    found, whole = contents(out), contents(tmp_path / "whole")
    if what == "file":  # its row lists the tasks in another order
        assert found.pop("predictions.jsonl") and whole.pop("predictions.jsonl")
    assert found == whole


FILES: dict[str, Any] = {"files": {}, "settings": {}, "seconds": 1}


@pytest.mark.parametrize(
    "change",
    [
        {"status": ...}, {"input_sha256": ...}, {"input": 3}, {"size": "big"}, {"size": [1]}, {"tasks": []},
        {"tasks": {"depth": 3}}, {"tasks": {"depth": {}}}, {"tasks": {"depth": {"files": [], "settings": {}}}},
        {"tasks": {"depth": FILES | {"files": {"npy": {"path": "../../x", "bytes": 1, "sha256": ""}}}}},
        {"tasks": {"depth": FILES | {"files": {"npy": {"path": "x"}}}}}, {"name": None}, {"name": []},
    ],
    ids=repr,
)  # fmt: skip
def test_rows_of_wrong_types_are_named_by_their_line(tmp_path: Path, change: dict[str, Any]) -> None:
    item = photo(tmp_path / "a.png")
    (row,) = predict_files(job(tmp_path / "out"), [item])
    wrong = {k: v for k, v in {**row, **change}.items() if v is not ...}
    (tmp_path / "out" / "predictions.jsonl").write_text(json.dumps(wrong) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(ResultLogError, match=r"predictions.jsonl, line 1, is not a row of") as caught:
        list(predict_files(job(tmp_path / "out"), [item]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "line", ["[" * 100_000, "1" * 10_000, "null", '"text"', "\ufffd", "{}"], ids=lambda x: x[:5]
)
def test_lines_that_are_no_rows_are_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "predictions.jsonl").write_text(line + "\n{}\n")
    with pytest.raises(ResultLogError, match="line 1"):
        list(predict_files(job(tmp_path / "out"), [photo(tmp_path / "a.png")]))


# ---- what people see


class Stub(BasePredictor):
    """Replaces a model, so that none is loaded."""

    def predict_raw(
        self, inputs: ImageBatch, index: Sequence[int], seeds: Sequence[int]
    ) -> tuple[Tensor, Tensor | None]:
        return inputs.select(index) * 2 - 1, None


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twofold.cli.predict.open_predictors", lambda *_: {"depth": Stub(TASKS["depth"])})


@posix
@pytest.mark.usefixtures("no_model")
def test_no_name_reaches_the_terminal_as_it_is(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    hostile = ["ev\x1b[2Jil.png", "new\nline.png", "right\u202eto.png", "b\udcff.png", "c\x9b2J.png"]
    for name in hostile:
        shutil.copy(photo(tmp_path / "seed.png").path, tmp_path / name)
    (tmp_path / "le\x1bft.txt").touch()
    given = [str(tmp_path), str(tmp_path / "miss\x1bing.png"), str(tmp_path / "*\x1b*.webp")]
    for options in ([], ["--json"]):
        code = run(
            ["predict", *given, "--out", str(tmp_path / f"out{len(options)}"), "--size", "32", *options]
        )
        seen = capfd.readouterr()
        assert code == 1
        assert (seen.out + seen.err).replace("\n", "").isprintable()
        assert len(seen.out.splitlines()) < 20
        for part in ("\\x1b[2J" if not options else "\\u001b[2J", "\\u202e", "\\udcff", "le\\x1bft.txt"):
            assert part in seen.out + seen.err
        if options:
            rows = [json.loads(line) for line in seen.out.splitlines()]
            assert {Path(row["input"]).name for row in rows if row["status"] != "failed"} >= {
                "right\u202eto.png"
            }


@pytest.mark.usefixtures("no_model")
def test_skipped_files_are_counted_and_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree(tmp_path, "in/a.png")
    for i in range(30):
        (tmp_path / "in" / f"{i:02d}.csv").touch()
    assert run(["predict", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--size", "32"]) == 0
    seen = capsys.readouterr().out
    assert "30 skipped" in seen and "00.csv" in seen and "... and 10 more" in seen


def test_an_error_of_a_decoder_does_not_end_the_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import ImageFile

    items = [photo(tmp_path / f"{i}.png", i) for i in range(3)]
    load = ImageFile.ImageFile.load

    def fail(self: Any) -> Any:
        if str(self.filename).endswith("1.png"):
            raise RuntimeError("avif decoder: unknown error")
        return load(self)

    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    rows = list(predict_files(job(tmp_path / "out"), items))
    assert [row["status"] for row in rows] == ["done", "failed", "done"]
    assert "1.png is damaged" in rows[1]["error"]


@pytest.mark.usefixtures("no_model")
def test_the_limit_of_pixels_is_an_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    item = photo(tmp_path / "a.png", size=(40, 30))
    given = ["predict", str(item.path), "--out", str(tmp_path / "out"), "--max-pixels"]
    assert run([*given, "1199"]) == 1
    assert "--max-pixels 1200" in capsys.readouterr().err
    assert run([*given, "1200"]) == 0
    assert run([*given, "many"]) == 2
    assert "not a number of pixels" in capsys.readouterr().err
    assert "TWOFOLD_MAX_PIXELS" not in os.environ
