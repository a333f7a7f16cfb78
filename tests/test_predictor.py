"""Invariants of prediction: it depends on (image, settings, seed) and nothing else."""

from dataclasses import replace
from itertools import combinations

import pytest
import torch

from twofold.backbones import new
from twofold.heads import Head, LatentHead, make_head
from twofold.predict.batching import member_seed
from twofold.predict.config import OutputConfig
from twofold.predict.diffusion import DiffusionPredictor
from twofold.protocols import ModelInput, OneStep
from twofold.tasks import TASKS
from twofold.tasks.ensemble import median


@pytest.fixture(scope="module")
def net():
    return new.tiny()


@pytest.fixture(params=[name for name, task in TASKS.items() if task.is_image])
def predictor(request, net):
    return DiffusionPredictor(net, TASKS[request.param], OneStep(), LatentHead(), size=96)


def photos(*sizes):
    rng = torch.Generator().manual_seed(0)
    return [torch.rand(3, h, w, generator=rng) for h, w in sizes]


def test_four_together_are_four_alone(predictor):
    images = photos((60, 80), (60, 80), (50, 90), (60, 80))
    together = predictor(images)
    for image, found in zip(images, together, strict=True):
        # 1e-5: matrix products of another batch size may add in another order
        torch.testing.assert_close(predictor(image).map, found.map, rtol=0, atol=1e-5)


def test_a_map_has_the_size_of_its_image_and_the_range_of_its_task(predictor):
    for image in photos((61, 83), (7, 300), (200, 9)):
        found = predictor(image).map
        assert found.shape == (predictor.task.channels, *image.shape[-2:])
        assert found.dtype == torch.float32
        if predictor.task.frame is None:
            assert 0 <= found.min() <= found.max() <= max(1, len(predictor.task.classes) - 1)
        else:
            torch.testing.assert_close(found.norm(dim=0), torch.ones(image.shape[-2:]), rtol=0, atol=1e-5)


def test_guidance_moves_from_the_empty_prompt_through_the_prompt(net):
    """Ho & Salimans 2022, eq. 6: empty + g (prompt - empty); beyond the prompt for g > 1."""
    query = ModelInput(
        torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([500, 500]),
        torch.zeros(2, 4, 8, 8), torch.zeros(2, 1, 1, 1), torch.ones(2, 1, 1, 1), "x0",
    )  # fmt: skip
    guided = DiffusionPredictor(
        net, TASKS["depth"], OneStep(), LatentHead(), OutputConfig(prompt="a red chair", guidance=3.0)
    )
    with torch.no_grad():
        empty, prompt = (
            net(query.x, query.t, net.embed([p]).expand(2, -1, -1)).prediction for p in ("", "a red chair")
        )
        found = guided.denoise(query).x0
    assert float((prompt - empty).abs().max()) > 1e-3
    torch.testing.assert_close(found, empty + 3 * (prompt - empty))


def test_vectors_of_another_frame_leave_as_rub(net):
    """The network's vectors are taken for LUB: x is negated, y and z stay (in the same image, by the same weights)."""
    image = photos((40, 48))[0]
    rub, lub = (
        DiffusionPredictor(net, TASKS["normals"], OneStep(), LatentHead(), OutputConfig(frame=frame))(
            image
        ).map
        for frame in ("RUB", "LUB")
    )
    torch.testing.assert_close(lub, rub * torch.tensor([-1.0, 1.0, 1.0]).reshape(3, 1, 1))
    assert float(rub[0].abs().mean()) > 0.01


def test_ensemble_members_have_different_seeds(net):
    """The first is the prediction without an ensemble; the map is the median of all."""
    protocol = OneStep(add_noise=True, timestep=500)
    alone = DiffusionPredictor(net, replace(TASKS["depth"], merge=median), protocol, LatentHead())
    image = photos((40, 48))[0]
    members = torch.stack([alone(image, seed=member_seed(3, k)).map for k in range(3)])
    assert torch.equal(members[0], alone(image, seed=3).map)
    assert min(float((a - b).abs().max()) for a, b in combinations(members, 2)) > 1e-4
    found = alone(image, seed=3, ensemble=3)
    torch.testing.assert_close(found.map, members.median(0).values, rtol=0, atol=1e-5)
    assert found.uncertainty is not None and float(found.uncertainty.max()) > 1e-4


class Painted(Head):
    """A head with three constant output channels."""

    reads_features = False

    def forward(self, x0, features, backbone):
        return torch.tensor([3.0, 0.5, -0.1]).reshape(1, 3, 1, 1).expand(len(x0), 3, 40, 48)


@pytest.mark.parametrize(("clip", "mean"), [("mean", 1.0), ("channels", (1 + 0.5 - 0.1) / 3)])
def test_channels_or_their_mean_are_held_in_range(net, clip, mean):
    """(3 + 0.5 - 0.1) / 3 is beyond 1; with each channel held first, the mean is 1.4 / 3."""
    found = DiffusionPredictor(net, TASKS["depth"], OneStep(), Painted(), OutputConfig(clip=clip))(
        photos((40, 48))[0]
    )
    torch.testing.assert_close(found.map, torch.full((1, 40, 48), (mean + 1) / 2))


def test_the_seed_does_not_matter_to_a_deterministic_protocol(predictor):
    image = photos((64, 64))[0]
    assert torch.equal(predictor(image, seed=1).map, predictor(image, seed=2).map)


def test_padding_does_not_move_what_is_seen(net):
    """A checkerboard whose size is no multiple of the stride comes back in place through the autoencoder alone."""

    class Echo(Head):
        def forward(self, x0, features, backbone):
            return self.image

    head = Echo()
    predictor = DiffusionPredictor(net, TASKS["depth"], OneStep(), head)
    for h, w in ((375, 1242), (427, 640), (61, 45)):
        y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        board = (((y // 16 + x // 16) % 2).float()).expand(3, -1, -1)
        from twofold.image import pad_to_multiple

        head.image = pad_to_multiple(board[None], 8)[0] * 2 - 1
        torch.testing.assert_close(predictor(board).map, board[:1], rtol=0, atol=1e-6)


def test_size_is_the_longest_edge_worked_at(predictor):
    sizes = []
    posterior = predictor.backbone.posterior
    predictor.backbone.posterior = lambda x: sizes.append(tuple(x.shape[-2:])) or posterior(x)
    image = photos((60, 120))[0]
    predictor(image, size=48)
    predictor(image, size=0)
    predictor(image)
    predictor.backbone.posterior = posterior
    assert sizes == [(24, 48), (64, 120), (48, 96)]  # after padding


def test_paths_and_pil_images_are_as_good_as_tensors(predictor, tmp_path):
    from PIL import Image

    image = Image.new("RGB", (40, 30), (200, 30, 90))
    image.save(tmp_path / "a.png")
    assert torch.equal(predictor(tmp_path / "a.png").map, predictor(image).map)


def test_saved_files_hold_the_map(predictor, tmp_path):
    from twofold.image import read_map

    found = predictor(photos((40, 30))[0])
    paths = found.save(tmp_path, "x")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(p.name for p in paths.values())
    import numpy as np

    stored = np.load(paths["npy"])
    assert stored.dtype == np.float32
    assert (stored == found.array).all()
    if predictor.task.classes:
        assert torch.equal(read_map(paths["png"]), found.map)
    elif predictor.task.channels == 1:
        torch.testing.assert_close(read_map(paths["png"]) / 65535, found.map, rtol=0, atol=0.6 / 65535)


def test_shares_are_resized_smoothly_and_ids_are_not(net):
    """A mask is a probability and can be interpolated; a class id cannot."""
    image = photos((90, 120))[0]
    for name in ("mask", "saliency", "semantic", "parsing"):
        predictor = DiffusionPredictor(net, TASKS[name], OneStep(), LatentHead(), size=40)
        small = TASKS[name].decode(
            predictor.predict_images(torch.nn.functional.interpolate(image[None], (30, 40)))
        )
        levels = set(predictor(image).map.unique().tolist())
        assert (len(levels) > small.numel()) == (TASKS[name].classes == ())
        if TASKS[name].classes:
            assert all(level == round(level) for level in levels)


@torch.no_grad()
def test_tasks_that_are_not_images_require_heads_on_features(net):
    """The map is what the head makes of the features at the time step of the protocol, decoded."""
    image = photos((48, 64))[0]
    for name, kind in (("keypoints", "keypoint"), ("keypoints", "light"), ("parsing_logits", "dpt")):
        task, head = TASKS[name], make_head(kind, net, TASKS[name].out_channels).eval()
        predictor = DiffusionPredictor(net, task, OneStep(), head)
        z = net.encode(image[None] * 2 - 1)
        output = net(z, torch.tensor([1]), net.embed([task.prompt]), features=head.reads_features)
        expected = task.decode(head(-output.prediction, output.features, net))[0]
        assert expected.shape == (task.channels, 48, 64)
        torch.testing.assert_close(predictor(image).map, expected, rtol=1e-4, atol=1e-5)


def test_bfloat16_is_close_to_float32():
    net = new.tiny()
    image = photos((64, 64))[0]
    full = DiffusionPredictor(net, TASKS["depth"], OneStep(), LatentHead(), size=64)(image).map
    half = DiffusionPredictor(
        new.tiny().to(torch.bfloat16), TASKS["depth"], OneStep(), LatentHead(), size=64
    )(image).map
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, full, rtol=0, atol=0.05)
