"""Every benchmark from end to end: a small copy of its data in its native layout is converted, predicted and scored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from scored import stored
from trees import indoor, matting, multi, outdoor, people, seg
from twofold.data.convert import CONVERTERS, convert
from twofold.data.folder import Folder
from twofold.evaluate import BENCHMARKS, EvalRequest, evaluation_from_files, get_benchmark, run_and_report
from twofold.sample import Sample

# How a tree of each converter is made.
TREES = {
    "nyuv2-marigold": indoor.nyuv2_marigold,
    "nyuv2-bae": indoor.nyuv2_bae,
    "kitti-eigen": outdoor.kitti,
    "scannet-marigold": indoor.scannet,
    "diode": indoor.diode,
    "eth3d": outdoor.eth3d,
    "dis5k": seg.dis5k,
    "ade20k": seg.ade20k,
    "p3m10k": lambda root: matting.p3m10k(root, True),
    "aim500": lambda root: matting.aim500(root, False),
    "nyud-mt": multi.nyud_mt,
    "pascal-mt": multi.pascal_mt,
    "coco-keypoints": people.coco,
    "dsine-nyuv2": lambda root: indoor.dsine(root, "nyuv2"),
    "dsine-scannet": lambda root: indoor.dsine(root, "scannet"),
    "dsine-ibims": lambda root: indoor.dsine(root, "ibims"),
    "dsine-sintel": lambda root: indoor.dsine(root, "sintel"),
    "dsine-vkitti": lambda root: indoor.dsine(root, "vkitti"),
}
# Splits that the small trees have in place of one of the same form.
INSTEAD = {"DIS-TE2": "DIS-TE1", "DIS-TE3": "DIS-TE1", "DIS-TE4": "DIS-TE1", "pascal-mt val": "train"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Folder]:
    """Converted folders, by converter and split; created at their first use."""
    made: dict[tuple[str, str], Folder] = {}

    class Made(dict):
        def __missing__(self, key: tuple[str, str]) -> Folder:
            name, split = key
            split = INSTEAD.get(split, INSTEAD.get(f"{name} {split}", split))
            root = tmp_path_factory.mktemp(name)
            tree = TREES[name](root / "tree") or root / "tree"
            self[key] = Folder(convert(CONVERTERS[name], tree, split, root / "folder"))
            return self[key]

    return Made(made)


def perfect(one: Sample, target: str, align: str) -> torch.Tensor:
    true = one.targets[target]
    finite = torch.where(true.isfinite(), true, 0.0)
    return finite * 0.5 - 3 if align == "affine" else finite


@pytest.mark.parametrize("name", [n for n in BENCHMARKS if n != "coco-keypoints"])
def test_a_perfect_prediction_scores_perfectly_on_every_benchmark(
    name: str, folders: dict[tuple[str, str], Folder], tmp_path: Path
) -> None:
    bench = get_benchmark(name)
    protocol = bench.protocol()
    folder = folders[bench.converter, bench.split]
    whole = Folder(folder.root, targets=(protocol.target,))
    for one in whole:
        if protocol.target not in one.targets:
            continue  # images without people have no body parts
        stored(tmp_path / "maps", str(one.id), perfect(one, protocol.target, protocol.align))
    request = EvalRequest(folder, protocol, tmp_path / "out", bench, allow_synthetic=True)
    drawn = name != "ade20k"  # a palette of 150 colours takes its time
    report = run_and_report(*evaluation_from_files(request, tmp_path / "maps"), images=drawn)
    have = report["counts"]
    assert have["evaluated"] >= 1 and not have["failed"], report["failed"]
    assert any(f"{bench.name} has {bench.count}:" in line for line in report["warnings"])
    assert report["published"] or name in UNPUBLISHED
    first = next(iter(report["scores"]))
    best = 0.0 if report["metrics"][first]["better"] == "lower" else 1.0
    if first == "miou" and "semseg" in name:  # classes that a few pixels do not have count as 0
        assert report["scores"]["accuracy"] == 1
    else:
        assert report["scores"][first] == pytest.approx(best, abs=1e-4)
    assert (tmp_path / "out" / "report.html").read_text().count("<img") == (
        4 * min(3, have["evaluated"]) if drawn else 0
    )


# Nothing of them is in the tables of published numbers.
UNPUBLISHED = ("kitti-garg-depth", "vkitti-normals", "p3m-500-p")


def test_the_truth_of_people_found_is_perfect(folders: dict[tuple[str, str], Folder], tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    bench = get_benchmark("coco-keypoints")
    folder = folders[bench.converter, bench.split]
    found = []
    for row in folder.rows:
        how = folder.descriptor(row, "keypoints")
        flat = [x for x, y, v in how["points"] for x in (x, y, v)]
        found.append({"image_id": how["image_id"], "category_id": 1, "keypoints": flat, "score": 1.0})
    (tmp_path / "results.json").write_text(json.dumps(found))
    request = EvalRequest(folder, bench.protocol(), tmp_path / "out", bench)
    report = run_and_report(*evaluation_from_files(request, tmp_path / "results.json"))
    assert report["scores"]["AP"] == pytest.approx(1)
    assert report["published"]


def test_every_benchmark_is_tried() -> None:
    assert {b.converter for b in BENCHMARKS.values()} == set(TREES)
