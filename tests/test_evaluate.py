"""Evaluations: scores do not depend on how the work is divided, and every skipped image is reported."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from scored import Eyes, folder, guess, guesses, scored, stored
from twofold.data.folder import Folder
from twofold.evaluate import (
    EVAL_PROTOCOLS,
    EvalRequest,
    EvaluationError,
    evaluation_from_files,
    evaluation_from_model,
    get_benchmark,
    get_eval_protocol,
    make_report,
    run,
    run_and_report,
    score,
    score_baselines,
    select_task,
)
from twofold.evaluate.measure import (
    align_prediction,
    crop_to_window,
    get_metrics,
    measure,
    resize_to_target,
    truth,
)
from twofold.evaluate.rows import pack, pack_all, unpack, unpack_from
from twofold.evaluate.run import data_identity
from twofold.geometry import convert_frame
from twofold.io import Shard
from twofold.metrics import crop_mask
from twofold.predict.files import Job, predict_files
from twofold.predict.inputs import Input
from twofold.sample import Sample

LS = get_eval_protocol("depth/marigold-ls")
# Scores whose sums add in every way there is: means over images, means over pixels, histograms, confusions, curves.
KINDS = ("depth/marigold-ls", "normal/dsine", "dis/pysod", "seg/miou")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(tmp_path_factory.mktemp("data") / "balls")


@pytest.fixture(scope="module")
def roots(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    top = tmp_path_factory.mktemp("guesses")
    names = ("depth", "normals", "mask", "matting", "semantic", "parts")
    return {name: guesses(data, top / name, name) for name in names}


def eyes(task: str = "depth") -> Any:
    return Eyes(task)


def numbers(report: dict[str, Any]) -> dict[str, Any]:
    return {key: report[key] for key in ("scores", "intervals", "baselines", "ids", "counts", "examples")}


# ---- the folder of results


def test_a_folder_replaced_during_the_run_is_an_error(
    data: Path, roots: dict[str, Path], tmp_path: Path
) -> None:
    """Rows appended to a new file would be taken for all rows, without the header that names the evaluation."""
    job, _ = evaluation_from_files(EvalRequest(Folder(data), LS, tmp_path / "out"), roots["depth"])
    rows = run(job)
    next(rows)
    shutil.rmtree(tmp_path / "out")
    (tmp_path / "out").mkdir()
    with pytest.raises(OSError, match="deleted or replaced"):
        next(rows)


# ---- the same number


@pytest.mark.parametrize("name", KINDS)
def test_no_order_of_work_shows_in_a_score(
    name: str, data: Path, roots: dict[str, Path], tmp_path: Path
) -> None:
    protocol = get_eval_protocol(name)
    root = roots[protocol.target]
    whole = scored(data, root, protocol, tmp_path / "whole")
    assert all(math.isfinite(x) for x in whole["scores"].values())

    job, metadata = evaluation_from_files(EvalRequest(Folder(data), protocol, tmp_path / "shuffled"), root)
    list(run(job, [3, 1, 4, 0, 2]))
    shuffled, _ = make_report(job, metadata, images=False)

    job, metadata = evaluation_from_files(EvalRequest(Folder(data), protocol, tmp_path / "killed"), root)
    rows = run(job)
    next(rows), next(rows)
    rows.close()
    path = tmp_path / "killed" / "rows.jsonl"
    path.write_bytes(
        path.read_bytes() + b'{"id": "set/ball-2", "status": "do'
    )  # a kill in the middle of a line
    resumed = list(run(job))
    killed, _ = make_report(job, metadata, images=False)
    assert [bool(row.get("kept")) for row in resumed] == [True, True, False, False, False]

    for k in (1, 2):
        job, metadata = evaluation_from_files(
            EvalRequest(Folder(data), protocol, tmp_path / "shared", shard=Shard(k - 1, 2)), root
        )
        shared = run_and_report(job, metadata, images=False)
        assert shared["counts"]["pending"] == (2 if k == 1 else 0)
    assert sorted(p.name for p in (tmp_path / "shared").glob("rows*")) == [
        "rows-1-of-2.jsonl",
        "rows-2-of-2.jsonl",
    ]

    assert numbers(whole) == numbers(shuffled) == numbers(killed) == numbers(shared)


def test_a_resumed_run_after_half_a_first_line(data: Path, roots: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"schema": "twof')
    found = scored(data, roots["depth"], LS, tmp_path)
    assert found["counts"]["evaluated"] == 5
    assert numbers(found) == numbers(scored(data, roots["depth"], LS, tmp_path))


def test_the_number_is_that_of_the_metrics_themselves(
    data: Path, roots: dict[str, Path], tmp_path: Path
) -> None:
    found = scored(data, roots["depth"], LS, tmp_path)
    errors = []
    for one in Folder(data):
        p = torch.from_numpy(np.load(roots["depth"] / f"{one.id}.npy"))[one.valid["depth"][0]].double()
        d = one.targets["depth"][one.valid["depth"]].double()
        fit = torch.linalg.lstsq(torch.stack([p, torch.ones_like(p)], 1), d[:, None]).solution[:, 0]
        errors.append(float(((fit[0] * p + fit[1] - d).abs() / d).mean()))
    assert found["scores"]["abs_rel"] == pytest.approx(sum(errors) / len(errors), rel=1e-9)


def test_a_model_has_the_score_that_score_gives_it(data: Path, tmp_path: Path) -> None:
    samples = list(Folder(data))
    for name, task in (("depth/marigold-ls", "depth"), ("normal/dsine", "normals")):
        request = EvalRequest(Folder(data), get_eval_protocol(name), tmp_path / task, count=3)
        job, metadata = evaluation_from_model(request, eyes(task), seed=0)
        found = run_and_report(job, metadata, images=False)
        for metric, value in score([eyes(task)], samples[:3]).items():
            assert found["scores"][metric.split("/")[1]] == pytest.approx(value, rel=1e-6)
        assert found["counts"]["evaluated"] == 3
        assert found["subject"]["digest"] == "d" * 64
    guessed = score_baselines(get_metrics(LS), samples[:3])
    found = json.loads((tmp_path / "depth" / "report.json").read_text())
    assert found["baselines"]["row"] == pytest.approx(guessed["row"])
    assert found["deviations"] == ["seed 0 in place of 1234"]


# ---- perfection


def perfect(protocol: Any, one: Sample) -> torch.Tensor:
    """A prediction that a protocol must score as perfect: the target, up to its alignment."""
    true = one.targets[protocol.target]
    free = {
        "affine": lambda d: 2 - 0.3 * d,
        "disparity": lambda d: 2 / d.clamp(min=0.1) + 0.1,
        "sqrt_disparity": lambda d: 2 / d.clamp(min=0.1).sqrt() + 0.1,
        "log_depth": lambda d: 0.3 * d.clamp(min=0.1).log() - 1,
        "scale": lambda d: 3 * d,
        "median": lambda d: 3 * d,
    }
    return free.get(protocol.align, lambda d: d)(true)


@pytest.mark.parametrize("name", [n for n in EVAL_PROTOCOLS if n not in ("pose/coco-kp", "dis/hce")])
def test_a_perfect_prediction_scores_perfectly(name: str, data: Path, tmp_path: Path) -> None:
    protocol = get_eval_protocol(name)
    for one in Folder(data):
        stored(tmp_path / "perfect", str(one.id), perfect(protocol, one))
    found = scored(data, tmp_path / "perfect", protocol, tmp_path / "out")
    # Histograms are off by half a bin, float32 files by their rounding.
    slack = {
        "median": 0.006,
        "depth_rmse_log": 1e-4,
        "mean_e": 0.01,
        "silog": 1e-3,
        "mean": 1e-3,
        "rmse": 1e-3,
    }
    for metric, value in found["scores"].items():
        best = 0 if found["metrics"][metric]["better"] == "lower" else 1
        best *= 100 if found["metrics"][metric]["unit"] == "%" else 1
        if name == "mtl/invpt-semseg" and metric == "miou":  # by its rule the class that is nowhere has 0
            assert value == pytest.approx(2 / 3)
        elif metric == "saliency_max_f_twice":  # its mistake: even the target does not always reach 1
            assert 0 < value <= 1
        elif metric == "depth_rmse_unmasked":  # its mistake: what is unknown counts
            assert value >= 0
        elif metric.startswith("normals_") and found["metrics"][metric]["unit"] == "deg":
            assert value < 0.5, metric  # predictions are rounded to 8 bits, as their files are
        else:
            assert value == pytest.approx(best, abs=slack.get(metric, 1e-5)), metric
    assert found["counts"]["evaluated"] == 5


def test_hce_of_a_perfect_mask_is_zero(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    pytest.importorskip("skimage")
    for one in Folder(data):
        stored(tmp_path / "perfect", str(one.id), one.targets["mask"])
    assert scored(data, tmp_path / "perfect", get_eval_protocol("dis/hce"), tmp_path / "out")["scores"] == {
        "hce": 0
    }


# ---- every skipped image is reported


def test_damaged_and_missing_predictions_are_listed_and_counted(
    data: Path, roots: dict[str, Path], tmp_path: Path
) -> None:
    root = guesses(data, tmp_path / "broken", "depth")
    ids = Folder(data).ids
    (root / f"{ids[0]}.npy").unlink()
    whole = (root / f"{ids[1]}.npy").read_bytes()
    (root / f"{ids[1]}.npy").write_bytes(whole[: len(whole) // 2])
    bad = np.load(roots["depth"] / f"{ids[2]}.npy")
    bad[20, 20] = np.nan
    np.save(root / f"{ids[2]}.npy", bad)
    np.save(root / f"{ids[3]}.npy", np.ones((10, 48), np.float32))
    found = scored(data, root, LS, tmp_path / "out")
    assert found["counts"]["evaluated"] == 1
    assert found["counts"]["failed"] == {"damaged prediction": 3, "missing prediction": 1}
    assert {row["id"] for row in found["failed"]} == set(ids[:4])
    output = " ".join(row["error"] for row in found["failed"])
    assert all(word in output for word in ("no set/ball-0.npy", "damaged", "NaN", "another aspect ratio"))
    assert any("4 predictions are missing or damaged" in line for line in found["warnings"])
    # What is left has the score it has alone, and mending goes on from there.
    alone = scored(data, roots["depth"], LS, tmp_path / "alone")
    guesses(data, root, "depth")
    assert numbers(scored(data, root, LS, tmp_path / "out")) == numbers(alone)


def test_a_prediction_that_changed_is_scored_anew(data: Path, roots: dict[str, Path], tmp_path: Path) -> None:
    root = guesses(data, tmp_path / "changing", "depth")
    before = scored(data, root, LS, tmp_path / "out")
    one = Folder(data)[0]
    stored(root, str(one.id), guess(one, "depth", seed=7))
    after = scored(data, root, LS, tmp_path / "out")
    assert after["scores"] != before["scores"]
    assert numbers(after) == numbers(scored(data, root, LS, tmp_path / "fresh"))


def test_samples_without_truth_are_skipped_and_reported(
    data: Path, roots: dict[str, Path], tmp_path: Path
) -> None:
    found = scored(data, roots["depth"], LS.with_rules(valid_range=(1.45, 1.55)), tmp_path / "narrow")
    assert found["counts"]["skipped"].get("no valid pixel", 0) + found["counts"]["evaluated"] == 5
    nothing = scored(data, roots["depth"], LS.with_rules(valid_range=(50.0, 60.0)), tmp_path / "none")
    assert nothing["counts"]["skipped"] == {"no valid pixel": 5}
    assert set(nothing["scores"].values()) == {None}
    lacking = get_eval_protocol("pose/coco-kp")
    with pytest.raises(EvaluationError, match=r"cannot be read|COCO"):
        scored(data, roots["depth"] / "none.json", lacking, tmp_path / "pose")


def test_the_folder_keeps_one_evaluation(data: Path, roots: dict[str, Path], tmp_path: Path) -> None:
    scored(data, roots["depth"], LS, tmp_path)
    with pytest.raises(EvaluationError, match="another fingerprint"):
        scored(data, roots["depth"], LS.with_rules(clip=(0.1, 5.0)), tmp_path)
    other = folder(tmp_path / "other", count=3)
    with pytest.raises(EvaluationError, match=r"another data\.sha256"):
        scored(other, roots["depth"], LS, tmp_path)
    (tmp_path / "rows.jsonl").write_text("hello\nyou\n")
    with pytest.raises(EvaluationError, match=r"rows\.jsonl has no rows"):
        scored(data, roots["depth"], LS, tmp_path)


def test_the_digest_of_a_folder_does_not_depend_on_its_path(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "moved")
    header = json.loads((data / "dataset.json").read_text())
    (tmp_path / "moved" / "dataset.json").write_text(json.dumps({**header, "root": str(data.resolve())}))
    assert data_identity(Folder(tmp_path / "moved")) == data_identity(Folder(data))
    (tmp_path / "moved" / "dataset.json").write_text(json.dumps({**header, "classes": ["one"]}))
    assert data_identity(Folder(tmp_path / "moved")) != data_identity(Folder(data))


def test_two_processes_do_not_write_one_file(data: Path, roots: dict[str, Path], tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    job, _ = evaluation_from_files(EvalRequest(Folder(data), LS, tmp_path), roots["depth"])
    rows = run(job)
    next(rows)
    with pytest.raises(EvaluationError, match="--shard"):
        next(run(job))
    rows.close()
    assert len(list(run(job))) == 5


def test_rendered_and_generated_images_are_refused(roots: dict[str, Path], tmp_path: Path) -> None:
    data = folder(tmp_path / "rendered", kind="rendered")
    with pytest.raises(EvaluationError, match="--allow-synthetic"):
        scored(data, roots["depth"], LS, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    found = scored(data, roots["depth"], LS, tmp_path / "out", allow_synthetic=True)
    assert any("rendered" in line for line in found["warnings"])
    # Where the test set is rendered, it is meant to be.
    sintel = get_benchmark("sintel-normals")
    scored(data, roots["normals"], sintel.protocol(), tmp_path / "sintel", benchmark=sintel)


def test_missing_images_of_a_benchmark_are_reported(
    data: Path, roots: dict[str, Path], tmp_path: Path
) -> None:
    bench = get_benchmark("diode-depth")
    found = scored(data, roots["depth"], bench.protocol(), tmp_path, benchmark=bench, count=2)
    assert any("has 771" in line for line in found["warnings"])
    assert any("only 2 of the folder's 5" in line for line in found["warnings"])
    assert found["published"]


# ---- pairing


def test_predictions_pair_by_id_and_not_by_order(data: Path, roots: dict[str, Path], tmp_path: Path) -> None:
    """Files with other names and in another order, by their list; unlisted files are reported."""
    root = tmp_path / "listed"
    root.mkdir()
    lines = []
    for place, one in enumerate(reversed(list(Folder(data)))):
        stored(root, f"a{place}", guess(one, "depth"))
        lines.append(json.dumps({"id": one.id, "path": f"a{place}.npy"}))
    (root / "predictions.jsonl").write_text("\n".join(lines))
    plain = scored(data, roots["depth"], LS, tmp_path / "plain")
    assert scored(data, root, LS, tmp_path / "by-list")["scores"] == plain["scores"]
    more = guesses(data, tmp_path / "more", "depth")
    stored(more, "set/nobody", torch.ones(1, 48, 48))
    found = scored(data, more, LS, tmp_path / "out")
    assert any(
        "1 of the prediction files belong to no requested image" in line and "set/nobody.npy" in line
        for line in found["warnings"]
    )
    # Predictions of images without valid pixels are not unknown files.
    nowhere = scored(data, roots["depth"], LS.with_rules(valid_range=(50.0, 60.0)), tmp_path / "nowhere")
    assert not any("belong to no requested image" in line for line in nowhere["warnings"])
    (root / "predictions.jsonl").write_text('{"name": 1}\n')
    with pytest.raises(EvaluationError, match="line 1, is not an entry"):
        scored(data, root, LS, tmp_path / "broken-list")


def test_vectors_in_another_frame_are_suspected(data: Path, tmp_path: Path) -> None:
    protocol = get_eval_protocol("normal/dsine")
    root = tmp_path / "lub"
    for one in Folder(data):
        stored(root, str(one.id), convert_frame(guess(one, "normals"), "RUB", "LUB"))
    wrong = scored(data, root, protocol, tmp_path / "wrong")
    assert any("LUB in place of RUB" in line for line in wrong["warnings"])
    job, metadata = evaluation_from_files(
        EvalRequest(Folder(data), protocol, tmp_path / "right"), root, frame="LUB"
    )
    right = run_and_report(job, metadata, images=False)
    assert right["scores"]["mean"] < wrong["scores"]["mean"] - 5 and not right["warnings"]
    # A list may contain it for each image.
    rows = (json.dumps({"id": id, "path": f"{id}.npy", "frame": "LUB"}) for id in Folder(data).ids)
    (root / "predictions.jsonl").write_text("\n".join(rows))
    assert scored(data, root, protocol, tmp_path / "listed")["scores"] == right["scores"]


def test_a_list_cannot_lead_out_of_its_folder(data: Path, roots: dict[str, Path], tmp_path: Path) -> None:
    root = tmp_path / "evil"
    root.mkdir()
    path = f"../{roots['depth'].name}"
    lines = (json.dumps({"id": id, "path": f"{path}/{id}.npy"}) for id in Folder(data).ids)
    (root / "predictions.jsonl").write_text("\n".join(lines))
    found = scored(data, root, LS, tmp_path / "out")
    assert found["counts"]["evaluated"] == 0
    assert "outside the folder" in found["failed"][0]["error"]


def test_rows_of_predict_are_paired_by_image_digest(data: Path, tmp_path: Path) -> None:
    source = Folder(data)
    inputs = [Input(source.root / row["file_name"], f"n{i}") for i, row in enumerate(source.rows[:2])]
    job = Job({"depth": eyes()}, {"depth": {}}, tmp_path / "maps", 0, LS.seed)
    assert [row["status"] for row in predict_files(job, inputs)] == ["done", "done"]
    stored_scores = scored(data, tmp_path / "maps", LS, tmp_path / "files", count=2)["scores"]
    request = EvalRequest(source, LS, tmp_path / "model", count=2)
    arguments = run_and_report(*evaluation_from_model(request, eyes()), images=False)
    assert stored_scores == pytest.approx(arguments["scores"], rel=1e-5)


# ---- what counts


def test_pixels_outside_the_crop_do_not_change_the_score(data: Path) -> None:
    protocol = get_benchmark("nyuv2-depth").protocol()
    one = Folder(data)[1]
    inside = crop_mask("nyu_eigen", 48, 48)
    guessed = guess(one, "depth")
    spoiled = torch.where(inside, guessed, 1e6)
    first, second = (measure(x, one, protocol)[0] for x in (guessed, spoiled))
    assert all(torch.equal(first[name], second[name]) for name in first)
    target, valid = truth(one, protocol)
    assert not bool((valid & ~inside).any())
    assert bool(((target > 1e-3) & (target < 10))[valid].all())


def test_truth_beyond_the_range_of_the_data_does_not_count() -> None:
    depth = torch.tensor([0.5, 1.0, 2.0, 10.0, 20.0]).reshape(1, 1, 5)
    one = Sample(torch.zeros(3, 1, 5), {"depth": depth}, {"depth": torch.ones_like(depth, dtype=torch.bool)})
    _, valid = truth(one, LS.with_rules(valid_range=(1.0, 10.0)))
    assert valid.flatten().tolist() == [False, False, True, False, False]


def test_the_window_of_kitti_is_at_the_bottom_in_the_middle() -> None:
    rows = torch.arange(375.0)[:, None].expand(1, 375, 1242)
    columns = torch.arange(1242.0).expand(1, 375, 1242)
    known = torch.ones(1, 375, 1242, dtype=torch.bool)
    one = Sample(
        torch.zeros(3, 375, 1242), {"depth": rows + 1, "matting": columns}, {"depth": known, "matting": known}
    )
    cut = crop_to_window(one, "kitti_benchmark")
    assert tuple(cut.image.shape) == (3, 352, 1216)
    assert (float(cut.targets["depth"][0, 0, 0]), float(cut.targets["matting"][0, 0, 0])) == (24.0, 13.0)
    assert crop_to_window(cut, "kitti_benchmark") is not cut
    assert torch.equal(crop_to_window(cut, "kitti_benchmark").targets["depth"], cut.targets["depth"])
    with pytest.raises(EvaluationError, match="smaller than the window"):
        crop_to_window(cut.__class__(torch.zeros(3, 100, 1216)), "kitti_benchmark")


def test_a_fit_on_fewer_columns_is_still_applied_to_all() -> None:
    target = torch.linspace(1, 5, 64).expand(1, 8, 64).contiguous()
    valid = torch.ones_like(target, dtype=torch.bool)
    few = LS.with_rules(fit_columns=16)
    assert torch.allclose(align_prediction(target * 3 + 1, target, valid, few), target.double(), atol=1e-6)
    bent = target + (torch.arange(64) % 4 == 1) * 2.0
    whole = align_prediction(bent, target, valid, LS)
    assert not torch.allclose(align_prediction(bent, target, valid, few), whole, atol=1e-3)
    assert torch.equal(align_prediction(bent, target, valid, LS.with_rules(fit_columns=64)), whole)


def test_predictions_of_other_sizes_are_resized_to_their_images() -> None:
    ids = torch.tensor([[[0.0, 2.0]]])
    assert set(resize_to_target(ids, torch.zeros(1, 4, 8), "semantic").unique().tolist()) == {0.0, 2.0}
    vectors = resize_to_target(torch.randn(3, 4, 4), torch.zeros(3, 16, 16), "normals")
    assert torch.allclose(vectors.norm(dim=0), torch.ones(16, 16), atol=1e-5)
    with pytest.raises(EvaluationError, match="channels"):
        resize_to_target(torch.zeros(3, 4, 4), torch.zeros(1, 4, 4), "depth")


def test_sums_are_kept_to_the_last_bit() -> None:
    for length in (3, 8, 9, 500):
        part = torch.rand(length, dtype=torch.float64, generator=torch.Generator().manual_seed(length)) / 3
        assert torch.equal(unpack(json.loads(json.dumps(pack(part)))), part)
        parts = {"a": part, "b": part * 2, "c": part.clone(), "d": part * 2, "e": part[:2]}
        packed = json.loads(json.dumps(pack_all(parts)))
        assert all(torch.equal(unpack_from(packed, name), x) for name, x in parts.items())
        assert (packed["c"] == "=a") == (packed["d"] == "=b") == (length > 8)


def test_a_model_is_not_scored_by_what_it_does_not_predict(data: Path, tmp_path: Path) -> None:
    how = SimpleNamespace(task="", space="")
    model: Any = SimpleNamespace(
        name="m", tasks=("depth", "normals"), settings=SimpleNamespace(tasks={"depth": how, "normals": how})
    )
    assert select_task(model, [LS])[0] == "depth"
    assert select_task(model, [get_eval_protocol("normal/bae")])[0] == "normals"
    disparity = get_eval_protocol("depth/marigold-ls-disp")
    assert select_task(model, [disparity, LS]) == ("depth", LS)
    garg = get_benchmark("kitti-garg-depth")
    assert select_task(model, [garg.protocol(p.name) for p in garg.protocols])[1].name == "depth/median"
    for name in ("depth/marigold-ls-disp", "seg/miou"):
        with pytest.raises(EvaluationError, match="predicts depth"):
            select_task(model, [get_eval_protocol(name)])
    with pytest.raises(EvaluationError, match="predicts no dragons"):
        select_task(model, [LS], "dragons")
    with pytest.raises(EvaluationError, match="metres"):
        evaluation_from_model(
            EvalRequest(Folder(data), get_eval_protocol("depth/vpd-metric"), tmp_path), eyes()
        )
    with pytest.raises(EvaluationError, match="'depth'"):
        evaluation_from_model(EvalRequest(Folder(data), disparity, tmp_path), eyes())
