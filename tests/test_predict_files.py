"""Predictions of many files: no result is lost or computed twice, and the log is true."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from twofold.predict.base import BasePredictor
from twofold.predict.batching import ImageBatch
from twofold.predict.files import Job, predict_files
from twofold.predict.inputs import Input
from twofold.predict.result_log import ResultLog, ResultLogError
from twofold.predict.results import OutputError
from twofold.tasks import TASKS


class Fake(BasePredictor):
    """Predicts a map that depends on the image and the seed; counts its calls."""

    def __init__(self, task: str, fault: Callable[[Tensor], None] | None = None) -> None:
        super().__init__(TASKS[task])
        self.calls, self.fault = 0, fault

    def predict_raw(
        self, inputs: ImageBatch, index: Sequence[int], seeds: Sequence[int]
    ) -> tuple[Tensor, Tensor | None]:
        self.calls += 1
        images = inputs.select(index)
        if self.fault:
            self.fault(images[0])
        if self.task.name == "depth":
            return images.mean(1, keepdim=True) * 1.8 + seeds[0] / 50 - 1, None
        return torch.nn.functional.normalize(images + 0.1, dim=1), None


def job(out: Path, tasks: tuple[str, ...] = ("depth", "normals"), **changes: Any) -> Job:
    settings = {t: {"digest": "d", "model": "m", "seed": changes.get("seed", 0), "size": 0} for t in tasks}
    return Job({t: Fake(t) for t in tasks}, settings, out, **changes)


def photo(path: Path, seed: int = 0, size: tuple[int, int] = (24, 16)) -> Input:
    path.parent.mkdir(parents=True, exist_ok=True)
    levels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(levels).save(path)
    return Input(path, path.stem)


def options(done: Job) -> list[int]:
    return [p.calls for p in done.predictors.values() if isinstance(p, Fake)]


def contents(out: Path) -> dict[str, bytes]:
    """All files; rows without what a clock decides."""
    found = {}
    for path in sorted(p for p in out.rglob("*") if p.is_file()):
        data = path.read_bytes()
        if path.suffix == ".jsonl":
            rows = [json.loads(line) for line in data.decode().splitlines()]
            for row in rows:
                for task in row["tasks"].values():
                    task["seconds"] = 0
            data = json.dumps(rows).encode()
        found[path.relative_to(out).as_posix()] = data
    return found


def test_files_and_rows_are_what_is_promised(tmp_path: Path) -> None:
    item = photo(tmp_path / "a.png", size=(24, 16))
    (row,) = predict_files(job(tmp_path / "out"), [item])
    depth, normals = np.load(tmp_path / "out/a_depth.npy"), np.load(tmp_path / "out/a_normals.npy")
    assert depth.shape == (16, 24)
    assert normals.shape == (16, 24, 3)
    assert depth.dtype == normals.dtype == np.float32
    with Image.open(tmp_path / "out/a_depth.png") as levels:
        assert np.abs(np.asarray(levels) / 65535 - depth).max() < 1e-5
    with Image.open(tmp_path / "out/a_normals.png") as levels:
        assert np.abs(np.asarray(levels) / 255 * 2 - 1 - normals).max() < 0.5 / 127
    assert row["status"] == "done"
    assert row["size"] == [16, 24]
    assert [json.loads(line) for line in (tmp_path / "out/predictions.jsonl").read_text().splitlines()] == [
        row
    ]
    written = {f["path"] for task in row["tasks"].values() for f in task["files"].values()}
    assert written | {"predictions.jsonl"} == {p.name for p in (tmp_path / "out").iterdir()}


def test_existing_results_are_kept_without_prediction(tmp_path: Path) -> None:
    items = [photo(tmp_path / f"{i}.png", i) for i in range(3)]
    list(predict_files(job(tmp_path / "out"), items))
    before = contents(tmp_path / "out")
    again = job(tmp_path / "out")
    assert [row["status"] for row in predict_files(again, items)] == ["kept"] * 3
    assert options(again) == [0, 0]
    assert contents(tmp_path / "out") == before


def test_tasks_predicted_in_two_jobs_equal_one_job(tmp_path: Path) -> None:
    items = [photo(tmp_path / f"{i}.png", i) for i in range(2)]
    list(predict_files(job(tmp_path / "apart", ("depth",)), items))
    later = job(tmp_path / "apart")
    assert [row["status"] for row in predict_files(later, items)] == ["done"] * 2
    assert options(later) == [0, 2]
    list(predict_files(job(tmp_path / "together"), items))
    assert contents(tmp_path / "apart") == contents(tmp_path / "together")


def test_a_missing_or_cut_result_is_made_again(tmp_path: Path) -> None:
    item = photo(tmp_path / "a.png")
    list(predict_files(job(tmp_path / "out"), [item]))
    before = contents(tmp_path / "out")
    (tmp_path / "out/a_depth_color.png").unlink()
    (tmp_path / "out/a_normals.npy").write_bytes(b"cut")
    assert [row["status"] for row in predict_files(job(tmp_path / "out"), [item])] == ["done"]
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize("change", ["picture", "settings", "other file"])
def test_results_of_something_else_are_never_passed_off_nor_overwritten(tmp_path: Path, change: str) -> None:
    item = photo(tmp_path / "a.png")
    list(predict_files(job(tmp_path / "out"), [item]))
    before = contents(tmp_path / "out")
    seed = 0
    if change == "picture":
        photo(tmp_path / "a.png", seed=9)
    elif change == "other file":
        item = replace(photo(tmp_path / "b/a.png", seed=9), name="a")
    else:
        seed = 1
    (row,) = predict_files(job(tmp_path / "out", seed=seed), [item])
    assert row["status"] == "failed"
    assert "--overwrite" in row["error"]
    assert "\n" not in row["error"]
    assert contents(tmp_path / "out") == before
    (row,) = predict_files(job(tmp_path / "out", seed=seed, overwrite=True), [item])
    assert row["status"] == "done"
    list(predict_files(job(tmp_path / "fresh", seed=seed), [item]))
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


def test_another_place_of_the_model_or_device_is_no_other_setting(tmp_path: Path) -> None:
    item = photo(tmp_path / "a.png")
    list(predict_files(job(tmp_path / "out"), [item]))
    moved = job(tmp_path / "out")
    settings = {t: {**s, "model": "./elsewhere", "device": "cuda"} for t, s in moved.settings.items()}
    assert [row["status"] for row in predict_files(replace(moved, settings=settings), [item])] == ["kept"]


def test_a_bad_file_is_one_row_and_the_rest_is_done(tmp_path: Path) -> None:
    good = [photo(tmp_path / f"{i}.png", i) for i in range(2)]
    (tmp_path / "bad.png").write_bytes((tmp_path / "0.png").read_bytes()[:100])
    bad = [
        Input(tmp_path / "bad.png", "bad"),
        Input(tmp_path / "absent.png", "absent"),
        Input(tmp_path, "folder"),
    ]
    rows = list(predict_files(job(tmp_path / "out"), [good[0], *bad, good[1]]))
    assert [row["status"] for row in rows] == ["done", "failed", "failed", "failed", "done"]
    assert all("\n" not in row["error"] for row in rows[1:4])
    stored = ResultLog(tmp_path / "out").rows
    assert {n: r["status"] for n, r in stored.items() if r["status"] == "failed"} == {
        "bad": "failed", "absent": "failed", "folder": "failed",
    }  # fmt: skip
    photo(tmp_path / "bad.png", 7)  # once fixed, it is predicted and its failure removed
    assert [row["status"] for row in predict_files(job(tmp_path / "out"), bad[:1])] == ["done"]
    assert ResultLog(tmp_path / "out").rows["bad"]["status"] == "done"


def test_results_of_a_file_that_became_unreadable_are_kept(tmp_path: Path) -> None:
    item = photo(tmp_path / "a.png")
    list(predict_files(job(tmp_path / "out"), [item]))
    before = contents(tmp_path / "out")
    (tmp_path / "a.png").unlink()
    assert [row["status"] for row in predict_files(job(tmp_path / "out"), [item])] == ["failed"]
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize("error", [RuntimeError("not enough memory: you tried\nto allocate"), MemoryError()])
def test_an_image_that_does_not_fit_in_memory_fails_alone(tmp_path: Path, error: Exception) -> None:
    def fault(image: Tensor) -> None:
        if image.shape[-1] == 40:
            raise error

    asked_for = job(tmp_path / "out")
    broken = asked_for.predictors["normals"]
    assert isinstance(broken, Fake)
    broken.fault = fault
    items = [photo(tmp_path / "big.png", size=(40, 16)), photo(tmp_path / "small.png")]
    rows = list(predict_files(asked_for, items))
    assert [row["status"] for row in rows] == ["failed", "done"]
    assert "--size" in rows[0]["error"]
    assert "\n" not in rows[0]["error"]


def test_not_a_number_is_an_error_not_a_result(tmp_path: Path) -> None:
    class Broken(Fake):
        def predict_raw(
            self, inputs: ImageBatch, index: Sequence[int], seeds: Sequence[int]
        ) -> tuple[Tensor, None]:
            return inputs.select(index) * float("nan"), None

    asked_for = job(tmp_path / "out", ("depth",))
    (row,) = predict_files(
        replace(asked_for, predictors={"depth": Broken("depth")}), [photo(tmp_path / "a.png")]
    )
    assert row["status"] == "failed"
    assert not list((tmp_path / "out").glob("a_depth*"))


def test_a_full_disk_stops_the_job_in_one_line_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = [photo(tmp_path / f"{i}.png", i) for i in range(3)]
    list(predict_files(job(tmp_path / "whole"), items))
    fsync, calls = os.fsync, []

    def full(handle: int) -> None:
        calls.append(handle)
        if len(calls) > 9:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(handle)

    rows = []
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OutputError, match="No space left on device") as caught:
            rows.extend(predict_files(job(tmp_path / "out"), items))
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "out").glob(".tmp*"))
    list(predict_files(job(tmp_path / "out"), items))
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_an_output_folder_that_is_a_file_is_reported_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(OutputError, match="cannot create the folder"):
        list(predict_files(job(tmp_path / "out"), [photo(tmp_path / "a.png")]))
    assert (tmp_path / "out").read_text() == "mine"


def test_a_torn_last_row_is_no_row_and_a_foreign_file_is_refused(tmp_path: Path) -> None:
    items = [photo(tmp_path / f"{i}.png", i) for i in range(2)]
    out = tmp_path / "out"
    list(predict_files(job(out), items))
    before = contents(out)
    log = out / "predictions.jsonl"
    for keep in (1, 40, len(log.read_bytes()) - 1):
        *first, last = log.read_text().splitlines(keepends=True)
        begun = {**json.loads(last), "status": "begun", "tasks": {}, "writing": ["depth", "normals"]}
        log.write_text("".join([*first, json.dumps(begun) + "\n", last[: len(last) - keep]]))
        list(predict_files(job(out), items))
        assert contents(out) == before
    log.write_text("someone's notes\nof two lines\n")
    with pytest.raises(ResultLogError, match=r"predictions.jsonl, line 1, is not a row"):
        list(predict_files(job(out), items))
    assert log.read_text() == "someone's notes\nof two lines\n"


@pytest.mark.skipif(sys.platform == "win32", reason="no such locks there")
def test_two_jobs_cannot_write_to_one_folder(tmp_path: Path) -> None:
    items = [photo(tmp_path / f"{i}.png", i) for i in range(2)]
    first = predict_files(job(tmp_path / "out"), items)
    next(first)
    with pytest.raises(ResultLogError, match="another twofold writes"):
        list(predict_files(job(tmp_path / "out"), items))
    assert [row["status"] for row in first] == ["done"]


def test_side_by_side_is_written_also_for_what_is_kept(tmp_path: Path) -> None:
    item = photo(tmp_path / "a.png", size=(24, 16))
    list(predict_files(job(tmp_path / "out"), [item]))
    again = job(tmp_path / "out", side_by_side=True)
    assert [row["status"] for row in predict_files(again, [item])] == ["kept"]
    assert options(again) == [0, 0]
    with Image.open(tmp_path / "out/a_side_by_side.png") as both:
        assert both.height == 16
        assert both.width >= 3 * 24


def killed_at(tick: int, work: Callable[[], Any]) -> bool:
    """Does `work` in a process that dies by SIGKILL at its `tick`-th fsync or rename; False if it lives."""
    child = os.fork()
    if child == 0:
        calls = 0

        def deadly(call: Callable[..., Any]) -> Callable[..., Any]:
            def counted(*arguments: Any) -> Any:
                nonlocal calls
                calls += 1
                if calls == tick:
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*arguments)

            return counted

        for name in ("fsync", "replace"):
            setattr(os, name, deadly(getattr(os, name)))
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    status = os.waitpid(child, 0)[1]
    assert status in (0, signal.SIGKILL)
    return status != 0


def every_row_is_true(out: Path) -> None:
    for row in ResultLog(out).rows.values():
        for task in row["tasks"].values():
            for file in task["files"].values():
                data = (out / file["path"]).read_bytes()
                assert hashlib.sha256(data).hexdigest() == file["sha256"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a process of its own")
@pytest.mark.parametrize("overwrite", [False, True])
def test_killed_anywhere_and_run_again_is_never_killed(tmp_path: Path, overwrite: bool) -> None:
    """For every (or every third) fsync and rename of the job: the process dies there, and the same job is run again."""
    items = [photo(tmp_path / f"{i}.png", i) for i in range(2)]
    list(predict_files(job(tmp_path / "whole"), items))
    whole = contents(tmp_path / "whole")
    tick, died = 0, True
    while died:
        tick += 3 if overwrite else 1
        out = tmp_path / f"out{tick}"
        if overwrite:  # over results of other settings
            list(predict_files(job(out, seed=5), items))
        died = killed_at(tick, lambda out=out: list(predict_files(job(out, overwrite=overwrite), items)))
        if out.exists():
            every_row_is_true(out)
        list(predict_files(job(out, overwrite=overwrite), items))
        assert contents(out) == whole
        shutil.rmtree(out)
    assert tick > 24


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a process of its own")
def test_killed_again_and_again_it_still_ends(tmp_path: Path) -> None:
    items = [photo(tmp_path / f"{i}.png", i) for i in range(2)]
    list(predict_files(job(tmp_path / "whole"), items))
    tries = 0
    while killed_at(14, lambda: list(predict_files(job(tmp_path / "out"), items))):
        tries += 1
    assert tries == 2
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
