"""Object keypoint similarity by hand and by law, and average precision through two programs."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from twofold.metrics import keypoint_ap, oks
from twofold.metrics.pose import SIGMAS, STATISTICS, detection, rescore

BACKENDS = ("pycocotools", "faster-coco-eval")


@pytest.fixture(params=BACKENDS)
def backend(request) -> str:
    pytest.importorskip({"pycocotools": "pycocotools", "faster-coco-eval": "faster_coco_eval"}[request.param])
    return request.param


def truth(people: list[dict[str, Any]], images: int = 1) -> dict[str, Any]:
    """COCO's annotations; a person has points (17 3), an area, and maybe an image."""
    annotations = [
        {
            "id": p.get("id", i + 1),
            "image_id": p.get("image", 1),
            "category_id": 1,
            "keypoints": p["points"].flatten().tolist(),
            "num_keypoints": int((p["points"][:, 2] > 0).sum()),
            "area": p["area"],
            "bbox": [0, 0, 100, 100],
            "iscrowd": p.get("iscrowd", 0),
        }
        for i, p in enumerate(people)
    ]
    kinds = [{"id": 1, "name": "person", "keypoints": [str(i) for i in range(17)], "skeleton": []}]
    photos = [{"id": i + 1, "width": 200, "height": 200} for i in range(images)]
    return {"images": photos, "annotations": annotations, "categories": kinds}


def nose(dx: float = 0.0, seen: int = 2) -> Tensor:
    points = torch.zeros(17, 3, dtype=torch.float64)
    points[0] = torch.tensor([50 + dx, 50, seen])
    return points


def crowd(seed: int = 0, images: int = 6) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """People of all sizes, some joints unlabelled, and what a fair detector finds of them, with false alarms."""
    rng = torch.Generator().manual_seed(seed)
    people, found = [], []
    for i in range(3 * images):
        size = 20 + 120 * float(torch.rand((), generator=rng))
        points = torch.cat([20 + size * torch.rand(17, 2, generator=rng), torch.zeros(17, 1)], 1).double()
        points[:, 2] = 2 * (torch.rand(17, generator=rng) > 0.3)
        image = 1 + i % images
        people.append({"points": points, "area": 0.5 * size**2, "image": image})
        output = points.clone()
        output[:, :2] += (
            0.05 * size * torch.randn(17, 2, generator=rng) * float(torch.rand((), generator=rng))
        )
        found.append(detection(image, output, float(torch.rand((), generator=rng))))
        if i % 4 == 0:
            found.append(detection(image, 200 * torch.rand(17, 3, generator=rng), 0.5))
    return truth(people, images), found


# ---- similarity


@pytest.mark.parametrize(
    ("dx", "area", "expected"),
    [(1, 1000, 0.8311781), (1, 2000, 0.9116897), (2, 1000, 0.4772834), (0, 1000, 1.0)],
)
def test_a_nose_that_is_off(dx, area, expected):
    true = nose()
    got = oks(nose(dx)[:, :2], true[:, :2], true[:, 2], torch.tensor(area))
    assert got.item() == pytest.approx(expected, abs=1e-7)


def test_no_joint_labelled_is_no_similarity():
    true = nose(seen=0)
    assert math.isnan(oks(true[:, :2], true[:, :2], true[:, 2], torch.tensor(1.0)))


def test_moving_and_scaling_both_changes_nothing():
    rng = torch.Generator().manual_seed(0)
    true = 100 * torch.rand(5, 17, 2, generator=rng, dtype=torch.float64)
    output = true + torch.randn(5, 17, 2, generator=rng, dtype=torch.float64)
    seen, area = (
        torch.randint(0, 3, (5, 17), generator=rng),
        9000 * torch.rand(5, generator=rng, dtype=torch.float64),
    )
    one = oks(output, true, seen, area)
    torch.testing.assert_close(oks(output + 7, true + 7, seen, area), one)
    torch.testing.assert_close(oks(3 * output, 3 * true, seen, 9 * area), one)


def test_similarities_are_those_of_the_published_program():
    pytest.importorskip("pycocotools")
    import contextlib
    import io

    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    annotations, found = crowd()
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = annotations
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes([dict(x) for x in found]), "keypoints")
        evaluation.params.useCats = 1
        evaluation._prepare()
        reference = evaluation.computeOks(2, 1)
    people = [a for a in annotations["annotations"] if a["image_id"] == 2]
    own = sorted((x for x in found if x["image_id"] == 2), key=lambda x: -x["score"])
    true = torch.tensor([a["keypoints"] for a in people], dtype=torch.float64).reshape(-1, 17, 3)
    output = torch.tensor([x["keypoints"] for x in own], dtype=torch.float64).reshape(-1, 17, 3)
    area = torch.tensor([a["area"] for a in people], dtype=torch.float64)
    ours = oks(output[:, None, :, :2], true[None, ..., :2], true[None, ..., 2], area[None])
    torch.testing.assert_close(ours, torch.as_tensor(reference), rtol=1e-12, atol=1e-14)


# ---- average precision


@pytest.mark.parametrize(
    ("dx", "area", "ap", "medium"),
    [(1, 1000, 0.7, math.nan), (1, 2000, 0.9, 0.9), (2, 1000, 0.0, math.nan), (0, 2000, 1.0, 1.0)],
)
def test_one_person(backend, dx, area, ap, medium):
    got = keypoint_ap(
        truth([{"points": nose(), "area": area}]), [detection(1, nose(dx), 0.9)], backend=backend
    )
    assert tuple(got) == STATISTICS
    assert got["AP"] == pytest.approx(ap)
    assert got["AP_M"] == pytest.approx(medium, nan_ok=True)
    assert math.isnan(got["AP_L"])
    assert got["AP50"] == got["AP75"] == pytest.approx(float(ap >= 0.7))


def test_both_programs_agree_and_neither_writes_into_what_it_is_given():
    for name in ("pycocotools", "faster_coco_eval"):
        pytest.importorskip(name)
    annotations, found = crowd()
    before = json.dumps([annotations, found])
    one, two = (keypoint_ap(annotations, found, backend=p) for p in BACKENDS)
    assert 0.1 < one["AP"] < 0.9 and 0.1 < one["AP_M"] < 0.99
    assert one == pytest.approx(two, nan_ok=True, abs=1e-12)
    assert json.dumps([annotations, found]) == before


def test_lists_of_parts_join_in_any_order(backend):
    annotations, found = crowd()
    # Two of one score: their order must not matter.
    found[0] = {**found[0], "score": 0.5}
    shuffled = [found[i] for i in torch.randperm(len(found), generator=torch.Generator().manual_seed(1))]
    assert keypoint_ap(annotations, found, backend=backend) == pytest.approx(
        keypoint_ap(annotations, shuffled, backend=backend), nan_ok=True, abs=1e-12
    )


def test_false_alarms_and_duplicates_never_help(backend):
    annotations, found = crowd()
    one = keypoint_ap(annotations, found, backend=backend)["AP"]
    alarm = detection(1, 150 + 40 * torch.rand(17, 3, generator=torch.Generator().manual_seed(2)), 1.0)
    assert keypoint_ap(annotations, [*found, alarm], backend=backend)["AP"] <= one + 1e-12
    again = [{**x, "score": x["score"] * 0.999} for x in found]
    assert keypoint_ap(annotations, [*found, *again], backend=backend)["AP"] <= one + 1e-12


def test_nobody_found_is_zero(backend):
    assert keypoint_ap(truth([{"points": nose(), "area": 2000}]), [], backend=backend)["AP"] == 0


def test_crowds_are_not_missed(backend):
    people = [{"points": nose(), "area": 2000}, {"points": nose(), "area": 2000, "iscrowd": 1}]
    got = keypoint_ap(truth(people), [detection(1, nose(), 0.9)], backend=backend)
    assert got["AP"] == pytest.approx(1)


def test_a_file_will_do(tmp_path, backend):
    path = tmp_path / "person_keypoints.json"
    path.write_text(json.dumps(truth([{"points": nose(), "area": 2000}])))
    assert keypoint_ap(path, [detection(1, nose(), 0.9)], backend=backend)["AP"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda t, f: t["annotations"][0].update(id=0), "id 0; COCO ids start at 1"),
        (lambda t, f: t["annotations"].append(t["annotations"][0]), "two annotations have the id 1"),
        (lambda t, f: t["annotations"][0].pop("area"), "no area"),
        (lambda t, f: t.pop("categories"), "no 'categories'"),
        (lambda t, f: f[0].update(image_id=7), "image id 7"),
        (lambda t, f: f[0].update(category_id=2), "category 2"),
        (lambda t, f: f[0]["keypoints"].pop(), "50 keypoint numbers"),
        (lambda t, f: f[0].update(score=math.nan), "NaN"),
    ],
)
def test_what_would_be_counted_wrongly_is_refused(change, match):
    annotations, found = truth([{"points": nose(), "area": 2000}]), [detection(1, nose(), 0.9)]
    change(annotations, found)
    with pytest.raises(ValueError, match=match):
        keypoint_ap(annotations, found)


def test_scores_of_boxes_and_joints():
    assert rescore(0.5, torch.tensor([0.9, 0.7, 0.1])) == pytest.approx(0.4)
    assert rescore(0.5, torch.tensor([0.1, 0.2])) == 0
    assert len(SIGMAS) == 17
    with pytest.raises(ValueError, match="unknown backend"):
        keypoint_ap(truth([]), [], backend="coco")  # ty: ignore[invalid-argument-type]
