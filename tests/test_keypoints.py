"""Keypoints: heatmaps and back to a fraction of a pixel, mirrors, scores, and the head."""

import json
import math
from types import SimpleNamespace

import pytest
import torch

import golden
from twofold.heads import HEADS, KeypointHead, make_head
from twofold.metrics import KEYPOINTS, peaks, skipped
from twofold.targets.people import JOINTS, MIRRORED, heatmaps
from twofold.tasks import get_task
from twofold.tasks.keypoints import heatmap_mse, keypoints

SIZE = (64, 48)


def people(count=2, seed=0):
    """Joints inside the image, and which are labelled, about four in five."""
    rng = torch.Generator().manual_seed(seed)
    points = 4 + torch.rand(count, 17, 2, generator=rng) * torch.tensor([40.0, 56.0])
    return points, torch.rand(count, 17, generator=rng) > 0.2


def everywhere(x):
    return torch.ones_like(x[..., :1, :, :], dtype=torch.bool)


@pytest.mark.parametrize("sigma", [1.0, 2.0, 8.0])
def test_joints_come_back_to_a_hundredth_of_a_pixel(sigma):
    points, labelled = people()
    maps = heatmaps(points, labelled, SIZE, sigma)
    assert maps.shape == (2, 17, *SIZE)
    found = peaks(keypoints.decode(keypoints.encode(maps, everywhere(maps))[0]))
    assert (found[..., :2] - points)[labelled].abs().max() < 0.01
    assert bool((found[..., 2][~labelled] == 0).all())
    assert 0.77 < found[..., 2][labelled].min() <= 1


def test_a_peak_at_the_edge_or_of_nothing_is_a_pixel():
    maps = heatmaps(torch.tensor([[0.0, 0.0], [48.0, 64.0]]), torch.tensor([True, True]), SIZE)
    assert peaks(maps)[:, :2].tolist() == [[0.5, 0.5], [47.5, 63.5]]
    assert bool(peaks(torch.zeros(3, 5, 6)).isfinite().all())
    assert peaks(torch.ones(1, 5, 6)).tolist() == [[0.5, 0.5, 1]]


def test_a_mirror_changes_left_and_right():
    points, labelled = people()
    maps = heatmaps(points, labelled, SIZE)
    assert torch.equal(keypoints.flip(keypoints.flip(maps)), maps)
    there = torch.stack([48 - points[..., 0], points[..., 1]], -1)[:, list(MIRRORED)]
    torch.testing.assert_close(
        keypoints.flip(maps), heatmaps(there, labelled[:, list(MIRRORED)], SIZE), rtol=1e-4, atol=1e-5
    )
    for i, name in enumerate(JOINTS):
        swapped = name.replace("left", "L").replace("right", "left").replace("L", "right")
        assert JOINTS[MIRRORED[i]] == swapped


def test_unlabelled_keypoints_have_no_loss():
    points, labelled = people()
    maps = heatmaps(points, labelled, SIZE)
    required, mask = keypoints.encode(maps, torch.rand(2, 1, *SIZE) > 0.3)
    output = torch.full_like(required, 0.3, requires_grad=True)
    heatmap_mse(output, required, mask).backward()
    assert output.grad is not None
    assert not output.grad.masked_select(~mask).any()
    assert not output.grad[~labelled].any()
    expected = (0.3 - required)[(mask & labelled[..., None, None]).expand_as(required)].square().mean()
    torch.testing.assert_close(keypoints.loss(output, required, mask), expected)
    assert keypoints.loss(required, required, mask).item() == 0


def test_found_joints_are_counted():
    points, labelled = people(3)
    labelled[2] = False
    true = heatmaps(points, labelled, SIZE)
    metric, valid = KEYPOINTS["pck"], everywhere(true)
    assert metric.compute(metric.measure(true.clamp(min=0), true, valid)) == 1
    moved = points.clone()
    moved[0, :, 0] += 4  # 5 % of 64 pixels are 3.2
    total = metric.measure(heatmaps(moved, labelled, SIZE).clamp(min=0), true, valid)
    assert metric.compute(total) == pytest.approx(labelled[1].sum().item() / labelled.sum().item())
    assert skipped(total) == 1
    parts = zip(heatmaps(moved, labelled, SIZE).clamp(min=0), true, valid, strict=True)
    assert torch.equal(total, torch.stack([metric.measure(m, t, v) for m, t, v in parts]).sum(0))
    with pytest.raises(ValueError, match="NaN"):
        metric.measure(true * math.nan, true, valid)


def test_it_is_a_task():
    assert get_task("twofold.tasks.keypoints:keypoints") is keypoints
    assert keypoints.out_channels == 17
    maps = heatmaps(people()[0], people()[1], SIZE)
    image = keypoints.show(maps[0])
    assert image.shape == (3, *SIZE)
    assert 0 <= image.min() <= image.max() <= 1
    merged = keypoints.merge(keypoints.decode(maps[:1]).expand(4, -1, -1, -1))
    assert merged.uncertainty.max() == 0


def test_the_head_is_as_published():
    with torch.device("meta"):
        head = KeypointHead()
    count = 16 * 1280 * 256 + 16 * 256 * 256 + 2 * 2 * 256 + 17 * 257
    assert sum(p.numel() for p in head.parameters()) == count


@pytest.mark.parametrize("h, w", [(8, 6), (7, 9), (1, 1)])
@torch.no_grad()
def test_heatmaps_are_stride_times_the_latent_and_of_each_image_alone(h, w):
    half = (-(-h // 2), -(-w // 2))
    taps = tuple(torch.randn(2, 24, *s) for s in ((1, 1), half, (h, w), (h, w)))
    head = KeypointHead(17, 24, 16).eval()
    output = head(torch.zeros(2, 4, h, w), taps, SimpleNamespace(stride=8))
    assert output.shape == (2, 17, 8 * h, 8 * w)
    alone = head(torch.zeros(1, 4, h, w), tuple(f[1:] for f in taps), SimpleNamespace(stride=8))
    torch.testing.assert_close(output[1:], alone, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="got 2 maps"):
        head(torch.zeros(2, 4, h, w), taps[:2], SimpleNamespace(stride=8))


@torch.no_grad()
def test_the_head_is_recreated_from_its_config():
    net = golden.backbone()
    head = make_head("keypoint", net, keypoints.out_channels).double().eval()
    taps = net(torch.zeros(1, 4, 7, 9).double(), torch.tensor([1]), golden.text(), features=True).features
    output = head(torch.zeros(1, 4, 7, 9), taps, net)
    assert output.shape == (1, 17, 56, 72)
    again = HEADS["keypoint"](**json.loads(json.dumps(head.config)))
    again.load_state_dict(head.state_dict())
    assert torch.equal(again.double().eval()(torch.zeros(1, 4, 7, 9), taps, net), output)


def test_eight_people_are_overfitted():
    torch.manual_seed(0)
    head = KeypointHead(17, 32, 32)
    points, labelled = people(8)
    true = heatmaps(points, labelled, SIZE)
    required, mask = keypoints.encode(true, everywhere(true))
    taps = tuple(torch.randn(8, 32, *s) for s in ((2, 2), (4, 3), (8, 6), (8, 6)))
    optimizer = torch.optim.Adam(head.parameters(), lr=0.01)
    for _ in range(150):
        output = head(torch.zeros(8, 4, 8, 6), taps, SimpleNamespace(stride=8))
        loss = keypoints.loss(output, required, mask)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 5e-3
    metric = KEYPOINTS["pck"]
    found = metric.measure(keypoints.decode(output.detach()), true, everywhere(true))
    assert metric.compute(found) > 0.8
