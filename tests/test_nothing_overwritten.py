"""What this library did not write is never replaced nor deleted, whatever the options."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image

from twofold.compat.diff2in1_folders import _check_replaceable, index_official
from twofold.data import FolderError, FolderWriter
from twofold.evaluate import report_file
from twofold.image import as_image
from twofold.io import atomic_folder, check_own_folder, remove_leftovers
from twofold.io.atomic import host_name
from twofold.predict.base import BasePredictor
from twofold.predict.batching import ImageBatch
from twofold.predict.files import Job, predict_files
from twofold.predict.inputs import Input
from twofold.predict.prediction import Prediction
from twofold.predict.result_log import ResultLog
from twofold.tasks import TASKS
from twofold.train.distributed import DistributedContext
from twofold.train.run import lock_run_dir
from twofold.visualization import write_sheet

MINE = b"a file of the user's own"


class Fake(BasePredictor):
    """Predicts the image's colors."""

    def predict_raw(
        self, inputs: ImageBatch, index: Sequence[int], seeds: Sequence[int]
    ) -> tuple[torch.Tensor, None]:
        return inputs.select(index) * 2 - 1, None


def job(out: Path, **changes: bool) -> Job:
    return Job({"depth": Fake(TASKS["depth"])}, {"depth": {"digest": "d"}}, out, **changes)


@pytest.fixture
def item(tmp_path: Path) -> Input:
    Image.new("RGB", (24, 16), (10, 200, 90)).save(tmp_path / "a.png")
    return Input(tmp_path / "a.png", "a")


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_predictions_of_one_stem_do_not_replace_each_other(tmp_path: Path) -> None:
    normals = Prediction(
        TASKS["normals"], torch.eye(3)[2].reshape(3, 1, 1).expand(3, 4, 5), torch.zeros(3, 4, 5), frame="RUB"
    )
    normals.save(tmp_path, "a")
    before = files(tmp_path)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        normals.in_frame("RDF").save(tmp_path, "a")
    assert files(tmp_path) == before
    normals.in_frame("RDF").save(tmp_path, "a", overwrite=True)
    assert files(tmp_path).keys() == before.keys()
    assert files(tmp_path)["a_normals.npy"] != before["a_normals.npy"]

    near = Prediction(TASKS["disparity"], torch.rand(1, 4, 5) + 0.5, torch.zeros(3, 4, 5), space="disparity")
    near.in_space("depth", 1.0).save(tmp_path, "b")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        near.in_space("depth", 2.0).save(tmp_path, "b")


@pytest.mark.parametrize("name", ["a_depth.npy", "a_depth.png", "a_depth_color.png", "a_side_by_side.png"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_predict_keeps_files_that_its_rows_do_not_list(
    name: str, overwrite: bool, tmp_path: Path, item: Input
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_bytes(MINE)
    (row,) = predict_files(job(out, overwrite=overwrite, side_by_side=True), [item])
    assert row["status"] == "failed"
    assert name in row["error"]
    assert {k: v for k, v in files(out).items() if k != "predictions.jsonl"} == {name: MINE}
    (out / name).unlink()
    (row,) = predict_files(job(out, overwrite=overwrite, side_by_side=True), [item])
    assert row["status"] == "done"
    assert "writing" not in row
    (row,) = predict_files(job(out, overwrite=overwrite, side_by_side=True), [item])
    assert row["status"] == ("done" if overwrite else "kept")


def test_what_a_killed_predict_left_is_its_own(
    tmp_path: Path, item: Input, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("twofold.predict.prediction.write_image", killed)
        list(predict_files(job(out), [item]))
    assert (out / "a_depth.npy").is_file()
    assert ResultLog(out).rows["a"]["writing"] == ["depth"]
    (row,) = predict_files(job(out), [item])
    assert row["status"] == "done"


def test_a_folder_called_partial_is_the_users_own(tmp_path: Path) -> None:
    ours = tmp_path / "model.partial"
    ours.mkdir()
    (ours / "notes").write_bytes(MINE)
    dead = tmp_path / f".tmp-{host_name()}-999999999-0123abcd"
    dead.mkdir()
    (dead / "half").touch()
    with atomic_folder(tmp_path / "model") as partial:
        partial.mkdir()
        (partial / "weights").write_bytes(b"w")
    assert files(tmp_path) == {"model.partial/notes": MINE, "model/weights": b"w"}


def test_only_names_of_temporary_files_are_cleared_away(tmp_path: Path) -> None:
    for name in (".tmp-my-notes", ".tmp-my-12-draft.txt", ".tmp-host-12-0123abcd.png"):
        (tmp_path / name).write_bytes(MINE)
        old = time.time() - 7 * 24 * 3600
        os.utime(tmp_path / name, (old, old))
    remove_leftovers(tmp_path)
    assert sorted(files(tmp_path)) == [".tmp-my-12-draft.txt", ".tmp-my-notes"]


def test_samples_are_not_written_among_other_files(tmp_path: Path) -> None:
    (tmp_path / "image").mkdir()
    (tmp_path / "image/a.png").write_bytes(MINE)
    with pytest.raises(FolderError, match="holds other files"):
        FolderWriter(tmp_path, {"name": "x", "license": "CC0-1.0", "targets": {}})
    assert files(tmp_path) == {"image/a.png": MINE}


def test_a_run_does_not_train_among_other_files(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(MINE)
    with pytest.raises(ValueError, match="holds other files"), lock_run_dir(tmp_path, DistributedContext()):
        pass
    assert files(tmp_path) == {"metrics.jsonl": MINE}
    (tmp_path / "recipe.json").touch()
    check_own_folder(tmp_path, ("recipe.json",))


def test_a_sheet_replaces_a_sheet_only(tmp_path: Path) -> None:
    path = tmp_path / "sheet.png"
    write_sheet(path, torch.zeros(3, 4, 5))
    write_sheet(path, torch.ones(3, 4, 5))
    assert as_image(path).min() == 1
    Image.new("RGB", (2, 2)).save(path)
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match="not a contact sheet"):
        write_sheet(path, torch.ones(3, 4, 5))
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["report.json", "report.md", "report.html"])
def test_a_report_replaces_a_report_only(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(MINE)
    with pytest.raises(FileExistsError, match="did not write it"):
        report_file.write_report(tmp_path, {})
    assert files(tmp_path) == {name: MINE}


def test_an_export_replaces_an_export_only(tmp_path: Path) -> None:
    for name in ("img/rgb_syn_1.png", "norm/sn_syn_1.png", "caption/a_real_00001.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    _check_replaceable(tmp_path)
    (tmp_path / "img/mine.png").touch()
    with pytest.raises(FolderError, match=r"mine\.png was not written by an export"):
        _check_replaceable(tmp_path)


def test_an_index_replaces_an_index_only(tmp_path: Path) -> None:
    (tmp_path / "nyu" / "img").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "nyu" / "img" / "a.png")
    for _ in range(2):
        assert len(index_official(tmp_path / "nyu", tmp_path / "index")) == 1
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "metadata.jsonl").write_bytes(MINE)
    with pytest.raises(FileExistsError, match="holds other files"):
        index_official(tmp_path / "nyu", tmp_path / "mine")
    assert files(tmp_path / "mine") == {"metadata.jsonl": MINE}
