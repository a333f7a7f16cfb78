"""Predictions record the meaning of their numbers; noise depends on the image only; ensembles have an uncertainty."""

import pytest
import torch

from twofold.backbones import new
from twofold.backbones.stable_diffusion import StableDiffusion
from twofold.geometry import convert_frame
from twofold.heads import LatentHead
from twofold.predict.config import OutputConfig
from twofold.predict.diffusion import DiffusionPredictor
from twofold.predict.prediction import Prediction
from twofold.protocols import MultiStep, OneStep
from twofold.tasks import TASKS


@pytest.fixture(scope="module")
def wide():
    """The tiny backbone with a network that takes 8 channels, as Marigold's does."""
    net = new.tiny()
    with torch.random.fork_rng():
        torch.manual_seed(1)
        unet = type(net.unet).from_config({**dict(net.unet.config), "in_channels": 8})
    return StableDiffusion(unet.eval(), net.vae, net.text_encoder, net.tokenizer, net.schedule.config).eval()


def marigold(net, task="depth", **more):
    return DiffusionPredictor(
        net, TASKS[task], MultiStep(2, final="prev"), LatentHead(), OutputConfig(prompt=""), **more
    )


def photos(*sizes):
    rng = torch.Generator().manual_seed(0)
    return [torch.rand(3, h, w, generator=rng) for h, w in sizes]


def test_mixed_sizes_together_are_each_alone(wide):
    """Four images of three sizes, each with its own seed, in any order and any batch."""
    predictor = marigold(wide)
    images, seeds = photos((48, 64), (40, 40), (48, 64), (24, 72)), [5, 6, 7, 5]
    alone = [predictor(image, seed=seed).map for image, seed in zip(images, seeds, strict=True)]
    for order in ((0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)):
        for batch in (1, 2, 8):
            found = predictor([images[i] for i in order], seed=[seeds[i] for i in order], batch=batch)
            for i, prediction in zip(order, found, strict=True):
                # 1e-5: matrix products of another batch size may add in another order
                torch.testing.assert_close(prediction.map, alone[i], rtol=0, atol=1e-5)
    assert not torch.allclose(predictor(images[0], seed=6).map, alone[0], atol=1e-3)


def test_the_first_member_of_an_ensemble_is_the_answer_without_one(wide):
    predictor = marigold(wide)
    image = photos((48, 64))[0]
    seen = []
    merge = predictor.merge
    predictor.merge = lambda many: (seen.append(many), merge(many))[1]
    found = predictor(image, seed=5, ensemble=4)
    assert found.uncertainty.shape == (1, 48, 64)
    assert found.uncertainty.min() >= 0
    assert found.settings["ensemble"] == 4
    assert seen[0].shape == (4, 1, 48, 64)
    torch.testing.assert_close(seen[0][0], predictor(image, seed=5).map, rtol=0, atol=1e-5)
    assert len({float(m.mean()) for m in seen[0]}) == 4


def test_ensembles_are_merged_as_the_task_allows(wide):
    """Another way is another map of the same members; one for another kind of map is refused."""
    image = photos((40, 48))[0]
    depth = marigold(wide)
    plain = depth(image, ensemble=3).map
    for how in ("affine", "scale", "compat", "median"):
        found = depth.with_options(3, how)(image)
        assert found.settings["merge"] == how
        assert torch.equal(found.map, plain) == (how == "affine")
    normals = marigold(wide, "normals")
    assert torch.equal(normals.with_options(3, "closest")(image).map, normals(image, ensemble=3).map)
    assert normals.with_options(3, "mean")(image).map.norm(dim=0).sub(1).abs().max() < 1e-5
    for predictor, wrong in ((depth, "closest"), (normals, "affine"), (marigold(wide, "mask"), "affine")):
        with pytest.raises(ValueError, match=f"cannot be merged by '{wrong}'"):
            predictor.with_options(3, wrong)


def test_an_ensemble_of_a_deterministic_protocol_is_refused():
    predictor = DiffusionPredictor(new.tiny(), TASKS["depth"], OneStep(), LatentHead())
    with pytest.raises(ValueError, match="4 predictions would be equal"):
        predictor(photos((32, 32))[0], ensemble=4)
    with pytest.raises(ValueError, match="has no setting 'steps'"):
        predictor.with_options(steps=10)


def test_another_number_of_steps_is_another_predictor(wide):
    predictor = marigold(wide)
    more = predictor.with_options(steps=4, ensemble=2)
    assert (predictor.protocol.steps, more.protocol.steps, more.ensemble) == (2, 4, 2)
    with pytest.raises(
        ValueError, match=r"^this model does not allow these settings: one leading-spaced step.*trailing"
    ):
        predictor.with_options(steps=1, spacing="leading")


def test_normals_are_saved_in_the_requested_frame():
    """For every output frame; a second conversion restores the map."""
    net, image = new.tiny(), photos((32, 40))[0]
    rub = DiffusionPredictor(net, TASKS["normals"], OneStep(), LatentHead())
    lub = DiffusionPredictor(net, TASKS["normals"], OneStep(), LatentHead(), OutputConfig(frame="LUB"))
    mirrored = torch.tensor([-1.0, 1.0, 1.0]).reshape(3, 1, 1)
    torch.testing.assert_close(lub(image).map, rub(image).map * mirrored)
    assert lub(image).frame == "RUB"
    for frame in ("RUB", "LUB", "RDF"):
        found = rub(image).in_frame(frame)
        assert found.frame == frame
        torch.testing.assert_close(found.in_frame("RUB").map, rub(image).map)
        torch.testing.assert_close(found.map, convert_frame(rub(image).map, "RUB", frame))
        torch.testing.assert_close(found.color, rub(image).color)
    rub.frame = "RDF"
    assert rub(image).frame == "RDF"
    with pytest.raises(ValueError, match="no vectors"):
        DiffusionPredictor(net, TASKS["depth"], OneStep(), LatentHead())(image).in_frame("LUB")


@pytest.mark.parametrize("space", ["depth", "disparity", "sqrt_disparity", "log_depth"])
def test_distance_conversions_are_inverse(space):
    metres = 0.5 + 10 * torch.rand(1, 8, 9, generator=torch.Generator().manual_seed(0))
    made = Prediction(TASKS["depth"], metres, torch.zeros(3, 8, 9), space="depth", metric=True)
    there = made.in_space(space)
    assert there.space == space
    torch.testing.assert_close(there.in_space("depth").map, metres, rtol=1e-4, atol=1e-4)


def test_a_map_up_to_scale_and_shift_is_not_converted_without_them():
    metres = torch.tensor([[[1.0, 2.0, 4.0]]])
    unknown = Prediction(TASKS["depth"], (1 / metres - 0.25) / 0.75, torch.zeros(3, 1, 3), space="disparity")
    with pytest.raises(ValueError, match="scale and shift"):
        unknown.in_space("depth")
    torch.testing.assert_close(unknown.in_space("depth", 0.75, 0.25).map, metres)
    with pytest.raises(ValueError, match="smell"):
        unknown.in_space("smell", 1.0)


def test_a_stretched_answer_fills_its_range():
    found = DiffusionPredictor(
        new.tiny(), TASKS["depth"], OneStep(), LatentHead(), OutputConfig(minmax_normalize=True)
    )(photos((32, 40))[0])
    assert (float(found.map.min()), float(found.map.max())) == pytest.approx((0, 1), abs=1e-5)
