"""Predictions that Diff-2-in-1's test.py wrote: numbered 8-bit files of squeezed images, red and blue exchanged."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from twofold.cli.main import main
from twofold.data import Folder, FolderWriter
from twofold.evaluate import EvalRequest, evaluation_from_files, get_eval_protocol, run_and_report
from twofold.evaluate.measure import resize_8bit, resize_to_target
from twofold.evaluate.protocol import EvaluationError
from twofold.geometry import unit
from twofold.sample import Sample

SCRIPT, BAE = get_eval_protocol("normal/diff2in1-script"), get_eval_protocol("normal/bae")
SIZE, SQUARE = (48, 64), (51, 51)
IDS = ("b", "c", "a")


def field(seed: int, size: tuple[int, int]) -> Tensor:
    """Smooth unit vectors ``3 h w``, the same at every size."""
    noise = torch.randn(1, 3, 5, 5, generator=torch.Generator().manual_seed(seed))
    vectors = interpolate(noise, size, mode="bicubic", align_corners=False)[0]
    vectors[2] = vectors[2].abs() + 0.5
    return unit(vectors)


def predicted(seed: int) -> Tensor:
    return unit(field(seed, SQUARE) + 0.3 * field(seed + 50, SQUARE))


@pytest.fixture
def data(tmp_path: Path) -> Folder:
    """Normals are known but for a border, frame RUB."""
    writer = FolderWriter(tmp_path / "data", {"name": "rooms", "targets": {"normals": {}}})
    known = torch.zeros(1, *SIZE, dtype=torch.bool)
    known[:, 4:-4, 4:-4] = True
    for seed, id in enumerate(IDS):
        truth = torch.where(known, field(seed, SIZE), 0)
        writer.write(Sample(torch.rand(3, *SIZE), {"normals": truth}, {"normals": known}, id=id))
    writer.finish()
    return Folder(tmp_path / "data")


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """The folder of test.py: x points left, OpenCV takes RGB for BGR, numbers count file names in order."""
    root = tmp_path / "ab1"
    root.mkdir()
    for number, id in enumerate(sorted(IDS), 1):
        vectors = predicted(IDS.index(id)) * torch.tensor([-1.0, 1, 1]).reshape(3, 1, 1)
        levels = ((vectors + 1) / 2 * 255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(np.ascontiguousarray(levels[..., ::-1])).save(root / f"sn_pred_{number}.png")
        Image.new("RGB", SQUARE).save(root / f"sn_gt_{number}.png")
    return root


def printed(data: Folder, written: Path) -> tuple[float, float, float]:
    """Mean, RMSE and the share below 11.25 degrees as evaluation.py takes them of the files."""
    errors = []
    for number, id in enumerate(sorted(IDS), 1):
        sample = data[data.ids.index(id)]
        levels = torch.from_numpy(np.asarray(Image.open(written / f"sn_pred_{number}.png")).copy()).float()
        resized = interpolate(levels.permute(2, 0, 1)[None], SIZE, mode="bilinear", align_corners=False)[0]
        vectors = (resized.round().flip(0) / 255 * 2 - 1) * torch.tensor([-1.0, 1, 1]).reshape(3, 1, 1)
        # The targets of these tests are stored without rounding.
        cosine = torch.cosine_similarity(vectors, sample.targets["normals"], dim=0).clamp(-1, 1)
        errors.append((cosine.double().acos() * 180 / 3.14)[sample.valid["normals"][0]])
    e = torch.cat(errors)
    return float(e.mean()), float(e.square().mean().sqrt()), 100 * float((e < 11.25).double().mean())


def test_files_have_the_scores_that_the_script_prints(data: Folder, written: Path, tmp_path: Path) -> None:
    job, metadata = evaluation_from_files(
        EvalRequest(data, SCRIPT, tmp_path / "out"), written, layout="diff2in1"
    )
    found = run_and_report(job, metadata, images=False)
    assert found["counts"]["evaluated"] == 3
    mean, rmse, below = printed(data, written)
    scores = found["scores"]
    assert scores["normals_mean_of_bytes"] == pytest.approx(mean, abs=2e-3)
    assert scores["normals_rmse_of_bytes"] == pytest.approx(rmse, abs=2e-3)
    assert scores["normals_below_11.25_of_bytes"] == pytest.approx(below, abs=0.1)
    assert not any("frame" in line for line in found["warnings"])
    # By the other protocol: not rounded again, and with pi.
    job, metadata = evaluation_from_files(
        EvalRequest(data, BAE, tmp_path / "bae"), written, layout="diff2in1"
    )
    ours = run_and_report(job, metadata, images=False)["scores"]["mean"]
    assert ours == pytest.approx(mean * 3.14 / math.pi, abs=0.05)
    assert ours != pytest.approx(mean * 3.14 / math.pi, abs=1e-4)


def test_levels_are_rounded_before_and_after_resizing() -> None:
    """In closed form: halfway between levels 10 and 11 and between 11 and 13."""
    line = torch.tensor([10.2, 11.4, 12.6])[None, None].expand(3, 2, 3) / 127.5 - 1
    levels = (resize_8bit(line, (2, 5)) + 1) * 127.5
    # Columns of 3 at 5: weights 0, 0.6 + 0.4 ..., of levels 10, 11 and 13.
    assert levels[0, 0].round(decimals=3).tolist() == [10, 10, 11, 12, 13]
    same = (resize_8bit(line, (2, 3)) + 1) * 127.5
    assert same[0, 0].round(decimals=3).tolist() == [10, 11, 13]


def run(*words: str) -> object:
    """The exit code of a command line."""
    with pytest.raises(SystemExit) as stopped:
        main(list(words))
    return stopped.value.code


def test_the_command_scores_the_folder_as_it_is(
    data: Folder, written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["evaluate", "--data", str(data.root), "--predictions", str(written)]
    script = [*arguments, "--protocol", "normal/diff2in1-script", "--layout", "diff2in1"]
    assert run(*script, "--json", "--out", str(tmp_path / "a")) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["scores"]["normals_mean_of_bytes"] == pytest.approx(printed(data, written)[0], abs=2e-3)
    assert (report["subject"]["layout"], report["subject"]["frame"]) == ("diff2in1", "LUB")
    assert report["counts"]["evaluated"] == 3
    for words, message in (
        ([*script, "--frame", "LUB"], "no effect with --layout diff2in1"),
        ([*script, "--stretch"], "no effect with --layout diff2in1"),
        ([*arguments, "--protocol", "normal/bae", "--layout", "other"], "choose diff2in1"),
        ([*arguments, "--protocol", "depth/marigold-ls", "--layout", "diff2in1"], "is for normals"),
        (
            ["evaluate", "--data", str(data.root), "--protocol", "normal/bae", "--stretch"],
            "without --predictions",
        ),
    ):
        assert run(*words, "--out", str(tmp_path / "z")) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "z").exists()


def test_files_that_would_pair_with_other_images_are_refused(
    data: Folder, written: Path, tmp_path: Path
) -> None:
    request = EvalRequest(data, BAE, tmp_path / "out")
    (written / "sn_pred_3.png").rename(written / "sn_pred_4.png")
    with pytest.raises(
        EvaluationError, match=r"3 files sn_pred_K.png and the data has 3.*sn_pred_3.png is missing"
    ):
        evaluation_from_files(request, written, layout="diff2in1")
    (written / "sn_pred_4.png").rename(written / "sn_pred_3.png")
    Image.new("RGB", SQUARE).save(written / "sn_pred_4.png")
    with pytest.raises(EvaluationError, match=r"4 files.*sn_pred_4.png belongs to no image"):
        evaluation_from_files(request, written, layout="diff2in1")


@pytest.mark.parametrize("listed", [False, True])
def test_maps_of_squeezed_images_are_stretched_where_it_is_passed(
    data: Folder, tmp_path: Path, listed: bool
) -> None:
    root = tmp_path / "maps"
    root.mkdir()
    for seed, id in enumerate(IDS):
        np.save(root / f"{id}.npy", predicted(seed).permute(1, 2, 0).numpy())
    if listed:
        rows = [json.dumps({"id": id, "path": f"{id}.npy", "stretch": True}) for id in IDS]
        (root / "predictions.jsonl").write_text("\n".join(rows))
    plain = run_and_report(
        *evaluation_from_files(EvalRequest(data, BAE, tmp_path / "plain"), root), images=False
    )
    request = EvalRequest(data, BAE, tmp_path / "stretched")
    found = run_and_report(*evaluation_from_files(request, root, stretch=not listed), images=False)
    if not listed:
        assert plain["counts"]["evaluated"] == 0
        assert "it is 51x51, and its image is 64x48" in plain["failed"][0]["error"]
        assert "--stretch" in plain["failed"][0]["error"]
    errors = []
    for sample in data:
        sized = resize_to_target(
            predicted(IDS.index(str(sample.id))), sample.targets["normals"], "normals", stretch=True
        )
        cosine = (sized * sample.targets["normals"]).sum(0).clamp(-1, 1)
        errors.append(torch.rad2deg(cosine.double().acos())[sample.valid["normals"][0]])
    assert found["scores"]["mean"] == pytest.approx(float(torch.cat(errors).mean()), abs=0.02)
    assert found["counts"]["resized"] == 3
