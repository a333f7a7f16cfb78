"""Normals with uncertainty (Bae et al.): losses, sampling of training pixels, training and inference of the head."""

import math

import pytest
import torch

import world
from test_fusion import BACKBONE, features, head
from twofold.backbones import new
from twofold.evaluate import score
from twofold.heads import Head, make_head
from twofold.heads.pixel_sampling import at, counts, sample
from twofold.predict.config import OutputConfig
from twofold.predict.diffusion import DiffusionPredictor
from twofold.protocols import OneStep
from twofold.tasks import TASKS
from twofold.tasks.directions import COSTS, expected_angle, mean_cost
from twofold.tasks.ensemble import closest
from twofold.train import (
    DataConfig,
    DenoiserConfig,
    EmaConfig,
    HeadConfig,
    LoopConfig,
    OptimizerConfig,
    Recipe,
    Source,
    ValidationConfig,
)
from twofold.train.loop import train


def at_angle(*radians):
    """Vectors ``1 3 n`` at these angles, in radians, to the viewing axis."""
    t = torch.tensor(radians, dtype=torch.float64)
    return torch.stack([t.sin(), 0 * t, t.cos()])[None]


def ahead(n, length=1.0):
    return torch.tensor([0, 0, length], dtype=torch.float64).reshape(1, 3, 1).expand(1, 3, n)


def known(n):
    return torch.ones(1, 1, n, dtype=torch.bool)


@pytest.mark.parametrize(
    ("kappa", "off", "expected"),
    [(0.01, 0.5, 0.68246259), (1, 0.5, -0.15084093), (5, 0.2, -2.25809639), (30, 0.1, -3.80350526)],
)
def test_angular_loss_equals_the_published_numbers(kappa, off, expected):
    k = torch.full((1, 1, 1), kappa, dtype=torch.float64)
    for length in (1.0, 0.3):  # the target need not be of unit length
        assert mean_cost("angular_vmf", at_angle(off), k, ahead(1, length), known(1)).item() == pytest.approx(
            expected, abs=1e-8
        )


def test_expected_angle_equals_the_published_numbers():
    kappa = torch.tensor([0.01, 0.5, 1, 2, 5, 10, 30], dtype=torch.float64)
    degrees = [89.73220, 76.81515, 64.75207, 46.17214, 22.03687, 11.34570, 3.81548]
    assert expected_angle(kappa).tolist() == pytest.approx(degrees, abs=1e-5)


@pytest.mark.parametrize("kappa", [0.3, 2.0, 9.0])
def test_densities_integrate_to_one_and_have_the_expected_angle_as_mean(kappa):
    """Integrated over the sphere: e^-loss / 2 pi is a density, and its mean angle is `expected_angle`."""
    t = (torch.arange(20000, dtype=torch.float64) + 0.5) / 20000 * math.pi
    k = torch.full((1, 1, len(t)), kappa, dtype=torch.float64)
    ring = t.sin() * math.pi / 20000
    for name in ("angular_vmf", "vmf"):
        cost, counts_ = COSTS[name](at_angle(*t.tolist()), k, ahead(len(t)))
        inside = counts_[0, 0] | (
            t > 1
        )  # angles near the ends are clamped; their mass is below a thousandth here
        assert inside.float().mean() > 0.95
        density = (-cost[0, 0]).exp()
        assert (density * ring).sum().item() == pytest.approx(1, abs=0.02)
        if name == "angular_vmf":
            mean = torch.rad2deg((density * ring * t).sum())
            assert mean.item() == pytest.approx(expected_angle(torch.tensor(kappa)).item(), rel=0.02)


def test_no_gradient_within_2_56_degrees_of_the_axis():
    radians = [0.0, 0.04, 0.0447, 0.0448, 0.3, math.pi - 0.01]
    pred = at_angle(*radians).requires_grad_()
    kappa = torch.full((1, 1, 6), 2.0, dtype=torch.float64, requires_grad=True)
    mean_cost("angular_vmf", pred, kappa, ahead(6), known(6)).sum().backward()
    assert pred.grad is not None and kappa.grad is not None
    has_gradient = pred.grad[0].abs().sum(0) > 0
    assert has_gradient.tolist() == [False, False, False, True, True, False]
    assert (kappa.grad[0, 0] != 0).tolist() == has_gradient.tolist()


def test_losses_equal_their_formulas():
    pred, k = torch.tensor([[[0.6], [0.0], [0.8]]]).double(), torch.ones(1, 1, 1).double()
    assert mean_cost("l1", pred, k, ahead(1), known(1)).item() == pytest.approx(0.8)
    assert mean_cost("l2", pred, k, ahead(1), known(1)).item() == pytest.approx(0.4)
    assert mean_cost("angle", pred, k, ahead(1), known(1)).item() == pytest.approx(math.acos(0.8))
    vmf = -math.log(1) - 1 * (0.8 - 1) + math.log(1 - math.exp(-2))
    assert mean_cost("vmf", pred, k, ahead(1), known(1)).item() == pytest.approx(vmf)


@pytest.mark.parametrize("name", COSTS)
def test_invalid_pixels_do_not_change_the_loss_and_no_valid_pixel_gives_zero(name):
    rng = torch.Generator().manual_seed(0)
    pred = torch.randn(2, 3, 9, generator=rng, requires_grad=True)
    kappa = torch.rand(2, 1, 9, generator=rng) + 0.1
    target = torch.randn(2, 3, 9, generator=rng)
    mask = torch.rand(2, 1, 9, generator=rng) > 0.5
    mask[1] = False
    nan_target = torch.where(mask, target, torch.nan)
    costs = mean_cost(name, pred, kappa, nan_target, mask)
    assert torch.equal(costs, mean_cost(name, pred, kappa, torch.where(mask, target, 0), mask))
    assert costs[1] == 0
    costs.sum().backward()
    assert pred.grad is not None
    assert pred.grad.isfinite().all()
    assert not pred.grad[1].any()


@pytest.mark.parametrize(
    ("edge", "expected"),
    [(128, (6553, 4587, 1966)), (256, (26214, 18349, 7865)), (512, (104857, 73399, 31458))],
)
def test_numbers_of_training_pixels_equal_the_published_ones(edge, expected):
    assert counts(edge * edge) == expected


def sample_pixels(seeds, mask, seed=0):
    kappa = torch.rand(len(seeds), 1, 40, 50, generator=torch.Generator().manual_seed(seed)) + 0.01
    return kappa, sample(kappa, mask, [torch.Generator().manual_seed(s) for s in seeds])


def test_the_most_uncertain_valid_pixels_are_sampled_first_then_others_at_random():
    mask = torch.ones(2, 1, 40, 50, dtype=torch.bool)
    mask[..., :12, :] = False
    kappa, where = sample_pixels([1, 2], mask)
    taken, uncertain, rest = counts(2000)
    assert where.shape == (2, taken)
    for k, m, w in zip(kappa.flatten(1), mask.flatten(1), where, strict=True):
        assert m[w].all()
        assert len(w.unique()) == taken
        order = torch.where(m, k, torch.inf).argsort()[:uncertain]
        assert set(w[:uncertain].tolist()) == set(order.tolist())
        # The others come from all remaining pixels, not only from nearly as uncertain ones.
        assert k[w[uncertain:]].mean() > k[m].mean()
        assert len(w[uncertain:]) == rest


def test_all_valid_pixels_are_sampled_where_there_are_few():
    mask = torch.zeros(1, 1, 40, 50, dtype=torch.bool)
    mask[..., :3, :] = True
    _, where = sample_pixels([1], mask)
    assert mask.flatten()[where[0]].sum() == 150


def test_as_released_other_points_are_sampled_from_valid_and_invalid_pixels():
    """The most uncertain pixels are valid; the random ones are valid as often as the remaining pixels are."""
    mask = torch.zeros(1, 1, 100, 100, dtype=torch.bool)
    mask[..., :50, :] = True
    kappa = torch.rand(1, 1, 100, 100, generator=torch.Generator().manual_seed(0)) + 0.01
    taken, uncertain, rest = counts(10000)
    found = {a: sample(kappa, mask, rngs(1), anywhere=a)[0] for a in (False, True)}
    assert torch.equal(found[False][:uncertain], found[True][:uncertain])
    known = {a: mask.flatten()[w[uncertain:]].float().mean().item() for a, w in found.items()}
    assert known[False] == 1.0
    assert known[True] == pytest.approx((5000 - uncertain) / (10000 - uncertain), abs=0.05)
    assert len(found[True].unique()) == taken == uncertain + rest


def test_pooled_loss_weights_images_by_their_valid_pixels():
    """In closed form: one image with an error of 1 radian at 1 pixel, one with 0.5 radians at 3 pixels."""
    angles = torch.tensor([[1.0, 9, 9], [0.5, 0.5, 0.5]])
    pred = torch.stack([angles.sin(), torch.zeros(2, 3), angles.cos()], 1)
    target = torch.tensor([0.0, 0, 1]).reshape(1, 3, 1).expand(2, 3, 3)
    mask = torch.tensor([[True, False, False], [True, True, True]])[:, None]
    kappa = torch.ones(2, 1, 3)
    each = mean_cost("angle", pred, kappa, target, mask)
    torch.testing.assert_close(each, torch.tensor([1.0, 0.5]))
    pooled = mean_cost("angle", pred, kappa, target, mask, pooled=True)
    assert pooled.mean().item() == pytest.approx((1 + 3 * 0.5) / 4, rel=1e-5)
    assert not mean_cost("angle", pred, kappa, target, mask & False, pooled=True).any()


def test_option_selects_the_released_losses():
    """With all pixels as training pixels, the mean over examples equals the mean over all valid pixels."""
    ours, (target, mask) = head(share=1.0), truth(4, 5)
    theirs = head(share=1.0, compat="official")
    theirs.load_state_dict(ours.state_dict())
    mask[1, :, 8:] = False
    with torch.no_grad():
        each, pooled = (
            net.loss(torch.zeros(0), features(4, 5), BACKBONE, target, mask, rngs(0, 1))
            for net in (ours, theirs)
        )
    pixels = mask.sum((1, 2, 3)).float()
    for name in each:
        expected = (each[name] * pixels).sum() / pixels.sum()
        torch.testing.assert_close(pooled[name].mean(), expected, rtol=1e-2, atol=1e-3)
        assert pooled[name].mean() != each[name].mean()
    assert theirs.config["compat"] == "official"
    ours.set_training_options(theirs.config)  # an existing head takes new training options
    with torch.no_grad():
        again = ours.loss(torch.zeros(0), features(4, 5), BACKBONE, target, mask, rngs(0, 1))
    assert all(torch.equal(again[name], pooled[name]) for name in pooled)
    assert ours.config == theirs.config
    with pytest.raises(ValueError, match="no compat 'other'"):
        head(compat="other")


def test_recipe_options_apply_to_a_trained_head_without_replacing_it():
    """The head and its weights remain; a head of another shape is replaced."""
    from twofold.train.trainable import make_heads

    net = new.tiny()
    found = make_head("bae", net, 3)
    plan = Recipe(
        name="x",
        model=DenoiserConfig(
            head=HeadConfig(name="bae", options={"compat": "official", "importance": 0.5}),
            latent_loss_weight=0.0,
            pixel_loss_weight=1.0,
        ),
        data=DataConfig(sources=(Source(path="x"),), task_weights={"normals": 1.0}),
    )
    made = make_heads(net, plan, {"normals": found}, {"normals": TASKS["normals"]})["normals"]
    assert made is found
    assert (found.official, found.importance, found.config["compat"]) == (True, 0.5, "official")
    other = make_head("bae", net, 3, widths=[256, 16, 16, 16, 16])
    assert make_heads(net, plan, {"normals": other}, {"normals": TASKS["normals"]})["normals"] is not other


def test_sampled_pixels_depend_on_the_generator_of_their_image_only():
    mask = torch.ones(2, 1, 40, 50, dtype=torch.bool)
    kappa, where = sample_pixels([1, 2], mask)
    alone = sample(kappa[1:], mask[1:], [torch.Generator().manual_seed(2)])
    assert torch.equal(where[1:], alone)
    assert not torch.equal(where[0, 560:], sample_pixels([5, 2], mask)[1][0, 560:])


def test_features_are_sampled_at_pixels_with_aligned_corners():
    x = torch.arange(12.0).reshape(1, 1, 3, 4)
    all_pixels = torch.arange(12)[None]
    assert torch.equal(at(x, all_pixels, (3, 4))[0, 0, 0], x.flatten())
    double = torch.nn.functional.interpolate(x, size=(6, 8), mode="bilinear", align_corners=True)
    torch.testing.assert_close(at(x, torch.arange(48)[None], (6, 8))[0, 0, 0], double.flatten())
    corners = torch.tensor([[0, 7, 40, 47]])
    assert at(x, corners, (6, 8), "nearest").flatten().tolist() == [0, 3, 8, 11]
    assert at(torch.ones(1, 1, 1, 1), torch.tensor([[0, 1]]), (1, 2)).flatten().tolist() == [1, 1]


def truth(h, w, count=2):
    rng = torch.Generator().manual_seed(3)
    target = torch.nn.functional.normalize(torch.randn(count, 3, 8 * h, 8 * w, generator=rng), dim=1)
    return target, torch.rand(count, 1, 8 * h, 8 * w, generator=rng) > 0.3


def rngs(*seeds):
    return [torch.Generator().manual_seed(s) for s in seeds]


@pytest.mark.parametrize("share", [0.4, 1.0])
def test_four_losses_have_gradients_for_every_used_weight(share):
    net, (target, mask) = head(share=share).train(), truth(4, 5)
    losses = net.loss(torch.zeros(0), features(4, 5), BACKBONE, target, mask, rngs(0, 1))
    assert list(losses) == ["eighth", "quarter", "half", "whole"]
    assert all(v.shape == (2,) for v in losses.values())
    sum(v.sum() for v in losses.values()).backward()
    without_gradient = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without_gradient


def test_losses_of_an_example_are_independent_of_its_batch():
    """In evaluation mode, without batch statistics."""
    net, (target, mask) = head(), truth(4, 5)
    inputs = features(4, 5)
    with torch.no_grad():
        both = net.loss(torch.zeros(0), inputs, BACKBONE, target, mask, rngs(0, 1))
        one = net.loss(torch.zeros(0), tuple(t[1:] for t in inputs), BACKBONE, target[1:], mask[1:], rngs(1))
        other = net.loss(
            torch.zeros(0), tuple(t[1:] for t in inputs), BACKBONE, target[1:], mask[1:], rngs(9)
        )
        no_valid = net.loss(torch.zeros(0), inputs, BACKBONE, target, mask & False, rngs(0, 1))
    for name in both:
        torch.testing.assert_close(both[name][1:], one[name], rtol=1e-4, atol=1e-5)
        assert not no_valid[name].any()
    assert other["eighth"] == one["eighth"]
    assert other["whole"] != one["whole"]


def test_loss_on_all_points_equals_the_dense_loss():
    net, (target, mask) = head(share=1.0), truth(4, 5)
    inputs = features(4, 5)
    with torch.no_grad():
        losses = net.loss(torch.zeros(0), inputs, BACKBONE, target, mask, rngs(0, 1))
        pred, kappa = net.forward_with_uncertainty(torch.zeros(0), inputs, BACKBONE)
    angles = mean_cost("angle", pred, kappa, target, mask)
    assert torch.equal(pred, net(torch.zeros(0), inputs, BACKBONE))
    dense = head(share=1.0, loss="angle")
    with torch.no_grad():
        found = dense.loss(torch.zeros(0), inputs, BACKBONE, target, mask, rngs(0, 1))["whole"]
    torch.testing.assert_close(found, angles)
    assert not torch.equal(found, losses["whole"])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return world.folder(tmp_path_factory.mktemp("balls") / "data", 4, 32)


def make_predictor(net, made):
    return DiffusionPredictor(
        net, TASKS["normals"], OneStep(timestep=0), made, OutputConfig(prompt=""), size=0
    )


def test_training_changes_the_head_and_not_the_network(data, tmp_path):
    net = new.tiny()
    recipe = Recipe(
        name="warm",
        model=DenoiserConfig(
            head=HeadConfig(name="bae"),
            unet="frozen",
            text_encoder="frozen",
            latent_loss_weight=0.0,
            pixel_loss_weight=1.0,
            protocol=OneStep(timestep=0),
            prompts={"normals": ""},
        ),
        data=DataConfig(sources=(Source(path=str(data)),), task_weights={"normals": 1.0}, size=(32, 32)),
        optimizer=OptimizerConfig(lr=2e-3, warmup_steps=2, weight_decay=0.0),
        ema=EmaConfig(decay=0.0),
        loop=LoopConfig(steps=30, batch_size=4, save_every=0),
        validation=ValidationConfig(data=str(data), every=0, num_samples=2),
    )
    before = {k: v.clone() for k, v in net.state_dict().items()}
    heads: dict[str, Head] = {}
    records = list(train(net, recipe, tmp_path / "run", heads))
    assert {"normals/eighth", "normals/quarter", "normals/half", "normals/whole"} < set(records[0])
    assert all(math.isfinite(r["loss"]) for r in records)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    # Most of an image is the wall. Random normals would be 90 degrees off on average.
    error = score([make_predictor(net, heads["normals"].eval())], [world.sphere(0, 32)])["normals/mean"]
    assert error < 10
    assert records[-1]["validation"]["normals/mean"] < 15


def test_losses_are_float32_under_autocast():
    net, (target, mask) = head().train(), truth(4, 5)
    whole = net.loss(torch.zeros(0), features(4, 5), BACKBONE, target, mask, rngs(0, 1))
    with torch.autocast("cpu", torch.bfloat16):
        losses = net.loss(torch.zeros(0), features(4, 5), BACKBONE, target, mask, rngs(0, 1))
    assert all(v.dtype == torch.float32 for v in losses.values())
    for name, value in losses.items():
        torch.testing.assert_close(value, whole[name], rtol=0.03, atol=0.01)
    sum(v.sum() for v in losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_uncertainty_is_the_expected_error_or_the_ensemble_s_spread():
    net = new.tiny()
    torch.manual_seed(0)
    made = make_head("bae", net, 3).eval()
    noisy = OneStep(timestep=0, add_noise=True)
    predictor = DiffusionPredictor(net, TASKS["normals"], noisy, made, size=0)
    images = [torch.rand(3, 30, 44, generator=torch.Generator().manual_seed(s)) for s in (0, 1)]
    one, two = predictor(images)
    assert one.uncertainty is not None
    assert one.uncertainty.shape == (1, 30, 44)
    assert 0 < one.uncertainty.min() <= one.uncertainty.max() <= 0.5
    assert two.uncertainty is not None
    torch.testing.assert_close(predictor(images[1]).uncertainty, two.uncertainty, rtol=1e-4, atol=1e-5)
    merged = predictor(images[0], ensemble=3)
    assert merged.uncertainty is not None
    assert not torch.allclose(merged.uncertainty, one.uncertainty)
    assert predictor.merge is closest


def test_noise_of_the_first_time_step_is_optional_and_depends_on_the_seed():
    net = new.tiny()
    z = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    seen = []

    def record_input(query):
        seen.append(query.x)
        raise StopIteration

    for protocol, seed in (
        (OneStep(timestep=0), 0),
        *((OneStep(timestep=0, add_noise=True), s) for s in (1, 1, 2)),
    ):
        with pytest.raises(StopIteration):
            protocol.sample(record_input, z, torch.Generator().manual_seed(seed), net.schedule)
    assert torch.equal(seen[0], z)
    assert torch.equal(seen[1], seen[2])
    assert not torch.equal(seen[1], seen[3])
    assert (seen[1] - z).std() == pytest.approx(0.02915, rel=0.4)
    assert OneStep(add_noise=True).is_stochastic
    assert not OneStep().is_stochastic
    with pytest.raises(ValueError, match="add_noise is for an input of the image latent alone"):
        OneStep(add_noise=True, condition="concat")
