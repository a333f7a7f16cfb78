"""A generated sample is a function of its source, its index and the configuration, and its row records all of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from twofold.backbones import new
from twofold.backbones.backbone import Output
from twofold.compat.diff2in1 import resize_to_square
from twofold.data.classes import class_names
from twofold.generate import OFFICIAL, GenerationConfig, ScoreThreshold, SyntheticDataGenerator, sample_id
from twofold.generate.captioner import CaptionError
from twofold.generate.captions import get_caption
from twofold.generate.config import noise_seed
from twofold.generate.labels import check_predictors, default_tasks
from twofold.generate.relative import from_depth, to_depth
from twofold.generate.resizing import resize_sample
from twofold.generate.scores import cheap_scores, consistency_scores
from twofold.heads import Head, LatentHead, make_head
from twofold.predict.diffusion import DiffusionPredictor
from twofold.predict.finite import NonFiniteError
from twofold.predict.module import ModulePredictor
from twofold.predict.prediction import Prediction
from twofold.protocols import OneStep
from twofold.sample import Sample
from twofold.tasks import TASKS
from world import origin_of, sphere

QUICK = GenerationConfig(steps=2, guidance=2.0)


@pytest.fixture(scope="module")
def net():
    return new.tiny()


@pytest.fixture(scope="module")
def predictors(net):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        heads = {
            name: make_head("light", net, TASKS[name].out_channels).eval() for name in ("depth", "normals")
        }
    return {
        name: DiffusionPredictor(net, TASKS[name], OneStep(), head, size=32) for name, head in heads.items()
    }


@pytest.fixture(scope="module")
def creator(net, predictors):
    return SyntheticDataGenerator(net, predictors, QUICK, {"made": "here"}, "tiny")


def balls(count=3, size=32):
    return [sphere(seed, size) for seed in range(count)]


def same(a: Sample, b: Sample, atol: float = 0.0):
    """Images within ``atol`` levels of 256, and labels accordingly."""
    assert a.id == b.id
    torch.testing.assert_close(a.image * 255, b.image * 255, rtol=0, atol=atol)
    for name in a.targets:
        torch.testing.assert_close(a.targets[name], b.targets[name], rtol=0, atol=0.02 * atol)
        assert torch.equal(a.valid[name], b.valid[name])


def test_a_sample_depends_on_nothing_beside_it(creator):
    together = creator.generate([*balls(), sphere(9, 48)], [0, 1, 2, 0], batch=4)
    for i, ball in enumerate(balls()):
        alone = creator.generate([ball], i)[0]
        assert torch.equal(creator.generate([ball], i, batch=1)[0].image, alone.image)
        # Of another size of batch, as much as rounding: a pixel may fall into the next of 256 levels.
        same(alone, together[i], atol=1.01)
    backwards = creator.generate([*balls()[::-1], sphere(9, 48)], [2, 1, 0, 0], batch=4)
    for ours, reference in zip(together[:3], backwards[2::-1], strict=True):
        same(ours, reference, atol=1.01)


def test_another_index_seed_or_strength_is_another_sample(creator, net, predictors):
    ball = sphere(0, 32)
    first = creator.generate([ball])[0]
    other = creator.generate([ball], 1)[0]
    strong = creator.with_strength(0.9).generate([ball])[0]
    seeded = SyntheticDataGenerator(net, predictors, replace(QUICK, seed=1), {}, "").generate([ball])[0]
    photos = [first, other, strong, seeded]
    assert [s.id for s in photos] == ["ball-0-T600-0", "ball-0-T600-1", "ball-0-T900-0", "ball-0-T600-0"]
    for i in range(4):
        for j in range(i):
            assert not torch.equal(photos[i].image, photos[j].image)


def test_a_label_is_the_prediction_for_the_stored_image(creator, predictors):
    made = creator.generate([sphere(0, 40)])[0]
    assert torch.equal((made.image * 255).round() / 255, made.image)
    depth, normals = (predictors[n](made.image).map for n in ("depth", "normals"))
    torch.testing.assert_close(from_depth(made.targets["depth"], "depth"), depth, rtol=0, atol=1e-6)
    torch.testing.assert_close(made.targets["normals"], normals, rtol=0, atol=1e-6)


def test_labels_can_be_predicted_from_the_last_denoising_step(net, predictors):
    """At the last time step the network sees the state before it; a head reads these features."""
    ball = sphere(0, 32)
    settings = replace(QUICK, label_mode="denoise", guidance=1.0, scoring="cheap", steps=1, strength=0.001)
    made = SyntheticDataGenerator(net, predictors, settings, {}).generate([ball])[0]
    reencoded = SyntheticDataGenerator(
        net, predictors, replace(settings, label_mode="reencode"), {}
    ).generate([ball])[0]
    assert torch.equal(made.image, reencoded.image)
    assert not torch.equal(made.targets["normals"], reencoded.targets["normals"])
    # The same by hand: one forward pass on the source with the noise of time step 1.
    with torch.no_grad():
        clean = net.encode(ball.image[None] * 2 - 1)
        rng = torch.Generator().manual_seed(origin_of(made).generator["noise_seed"])
        noise = torch.randn(clean.shape[1:], generator=rng)[None]
        x, _, _ = net.schedule.add_noise(clean, noise, torch.tensor([1]))
        output = net(x, torch.tensor([1]), net.embed([ball.caption], pad=True), features=True)
        canvas = predictors["normals"].head(x, output.features, net)
    expected = TASKS["normals"].decode(canvas)[0]
    torch.testing.assert_close(
        made.targets["normals"], torch.nn.functional.normalize(expected, dim=0), rtol=0, atol=1e-4
    )


def test_the_uncertainty_of_a_head_is_a_score(net):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = make_head("bae", net, 3).eval()
    predictors = {"normals": DiffusionPredictor(net, TASKS["normals"], OneStep(), head, size=64)}
    ball = sphere(0, 64)
    for mode in ("reencode", "denoise"):
        settings = replace(QUICK, label_mode=mode, scoring="cheap", steps=1, guidance=1.0)
        made = SyntheticDataGenerator(net, predictors, settings, {}).generate([ball])[0]
        scores = origin_of(made).generator["scores"]
        assert 0 < scores["uncertainty.normals"] < 90
        assert ScoreThreshold.parse("uncertainty.normals<0").violation(scores)


def test_as_the_official_code_creates(net, predictors):
    """Resized to a square, labels are valid everywhere; the forward pass that is read has time step 1."""
    ball = sphere(0, 48)
    wide = replace(
        ball,
        image=ball.image[:, :32],
        targets={n: x[:, :32] for n, x in ball.targets.items()},
        valid={n: torch.zeros_like(x[:, :32]) for n, x in ball.valid.items()},
    )
    settings = replace(OFFICIAL, steps=2, size=32, scoring="cheap")
    maker = SyntheticDataGenerator(net, predictors, settings, {})
    made = maker.generate([wide])[0]
    assert maker.plan.timesteps == (301, 1)
    assert made.image.shape == (3, 32, 32)
    assert all(bool(v.all()) for v in made.valid.values())
    assert origin_of(made).generator["compat"] == "official"
    assert not [name for name in origin_of(made).generator["scores"] if name.startswith("drift")]


def test_what_cannot_label_so_is_refused(net, predictors):
    plain = DiffusionPredictor(net, TASKS["depth"], OneStep(), LatentHead())
    with pytest.raises(ValueError, match="the head of depth reads none"):
        check_predictors({"depth": plain}, "denoise")
    check_predictors({"depth": plain}, "reencode")
    with pytest.raises(ValueError, match="both stored as depth"):
        check_predictors(
            {n: DiffusionPredictor(net, TASKS[n], OneStep(), LatentHead()) for n in ("depth", "disparity")},
            "reencode",
        )


def test_with_little_noise_the_result_is_the_autoencoded_source(creator, net):
    ball = sphere(0, 32)
    with torch.no_grad():
        kept = ((net.decode(net.encode(ball.image[None] * 2 - 1)).clamp(-1, 1) + 1) / 2)[0]
    near, far = (creator.with_strength(s).generate([ball])[0].image for s in (0.001, 0.9))
    assert float((near - kept).abs().mean()) < 0.01
    assert float((near - kept).abs().mean()) < float((far - kept).abs().mean())


def test_labels_are_valid_where_the_source_s_are(creator, net, predictors):
    ball = sphere(0, 32)
    half = torch.zeros(1, 32, 32, dtype=torch.bool)
    half[..., :16] = True
    part = replace(ball, targets={"depth": ball.targets["depth"]}, valid={"depth": half})
    made = creator.generate([part])[0]
    assert torch.equal(made.valid["depth"], half)
    assert bool((made.targets["depth"][~half] == 0).all())
    assert bool(made.valid["normals"].all())
    assert made.origin.generator["masks"] == {"depth": "source", "normals": "all"}
    whole = SyntheticDataGenerator(net, predictors, replace(QUICK, mask="all"), {}).generate([part])[0]
    assert bool(whole.valid["depth"].all())


def test_a_source_is_brought_to_size_without_mixing_in_the_unknown():
    ball = sphere(0, 64)
    hole = ball.valid["depth"].clone()
    hole[..., 20:40, 20:40] = False
    spoilt = torch.where(hole, ball.targets["depth"], 1e6)
    small = resize_sample(Sample(ball.image, {"depth": spoilt}, {"depth": hole}), 32)
    assert small.image.shape == (3, 32, 32)
    assert float(small.targets["depth"].max()) < 2.1
    assert not bool(small.valid["depth"][..., 11:19, 11:19].any())
    assert resize_sample(ball, 64) is ball


def test_squeezed_as_the_original_squeezes():
    """Numbers of the original's own resizing: a test image, and a mask of rows 45-470 and columns 41-600."""
    x, y = torch.arange(640)[None, :], torch.arange(480)[:, None]
    image = (
        torch.stack([(x * 255 // 639).expand(480, -1), (y * 255 // 479).expand(-1, 640), (x + y) % 256]) / 255
    )
    known = torch.zeros(1, 480, 640, dtype=torch.bool)
    known[:, 45:471, 41:601] = True
    normals = torch.tensor([0.6, 0.0, 0.8])[:, None, None] * known
    found = resize_to_square(Sample(image, {"normals": normals}, {"normals": known}), 512)
    assert float((found.image.double() * 2 - 1).mean()) == pytest.approx(-0.00094515, abs=2e-7)
    pixel = torch.tensor([-0.22254902, -0.61004902, -0.31102941])
    torch.testing.assert_close(found.image[:, 100, 200] * 2 - 1, pixel, rtol=0, atol=1e-6)
    assert int(found.valid["normals"].sum()) == 202491
    inside = found.targets["normals"][:, found.valid["normals"][0]]
    torch.testing.assert_close(
        inside, torch.tensor([0.6, 0.0, 0.8])[:, None].expand_as(inside), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("name", ["depth", "disparity", "sqrt_disparity", "log_depth"])
def test_relative_depth_is_the_exact_training_target_of_its_space(name):
    task = TASKS[name]
    d = torch.rand(1, 1, 24, 24, generator=torch.Generator().manual_seed(0))
    valid = torch.ones_like(d, dtype=torch.bool)
    stored = to_depth(d, task.space)
    assert float(stored.min()) > 0
    torch.testing.assert_close(from_depth(stored, task.space), d, rtol=0, atol=1e-6)
    canvas, _ = task.encode(stored, valid)
    low, high = torch.quantile(d, torch.tensor([0.02, 0.98]))
    expected = ((d - low) / (high - low) * 2 - 1).clamp(-1, 1)
    torch.testing.assert_close(canvas[:, :1], expected, rtol=0, atol=1e-4)


def test_guidance_moves_from_the_empty_caption_through_the_caption(net, monkeypatch):
    """One step of a network that predicts a number of its text alone, in closed form: v = empty + g (text - empty)."""

    def number(text):
        return text[:, :, 0].mean(1).reshape(-1, 1, 1, 1)

    monkeypatch.setattr(net, "forward", lambda x, t, text, **_: Output(torch.zeros_like(x) + number(text)))
    settings = GenerationConfig(steps=1, guidance=3.0, strength=0.6, scoring="cheap")
    ball = sphere(0, 32)
    made = SyntheticDataGenerator(net, {}, settings, {"made": "here"}).generate([ball])[0]
    with torch.no_grad():
        clean = net.encode(ball.image[None] * 2 - 1)
        seed = noise_seed(0, str(ball.id), 0)
        noise = torch.randn(clean.shape[1:], generator=torch.Generator().manual_seed(seed))[None]
        alpha, sigma = (float(s) for s in net.schedule.scales(torch.tensor(600)))
        text, empty = (number(net.embed([caption], pad=True)) for caption in (ball.caption, ""))
        assert abs(float(text - empty)) > 0.05
        x0 = alpha * (alpha * clean + sigma * noise) - sigma * (empty + 3 * (text - empty))
        expected = ((net.decode(x0)[0].clamp(-1, 1) + 1) / 2 * 255).round() / 255
    torch.testing.assert_close(made.image, expected, rtol=0, atol=1.01 / 255)
    # The test distinguishes it from exchanged branches.
    swapped = alpha * (alpha * clean + sigma * noise) - sigma * (text + 3 * (empty - text))
    assert not torch.allclose(net.decode(swapped)[0], net.decode(x0)[0], atol=4 / 255)


def test_the_source_is_encoded_in_the_range_of_the_autoencoder(net, monkeypatch):
    """Images in [0, 1] become [-1, 1]; what is missing to the stride is the border repeated."""
    seen, encode = [], net.encode
    monkeypatch.setattr(net, "encode", lambda canvas, *args: (seen.append(canvas), encode(canvas, *args))[1])
    ball = sphere(0, 28)
    SyntheticDataGenerator(
        net, {}, GenerationConfig(steps=1, guidance=1.0, scoring="cheap"), {"made": "here"}
    ).generate([ball])
    expected = torch.nn.functional.pad(ball.image[None], (0, 4, 0, 4), mode="replicate") * 2 - 1
    torch.testing.assert_close(seen[0], expected)


class Mirrorable(torch.nn.Module):
    """Predictions that commute with mirroring: brightness as depth, its slope as normals; and a ramp that does not."""

    stride = 1

    def __init__(self, ramp: bool = False) -> None:
        super().__init__()
        self.ramp = ramp

    def forward(self, images):
        grey = images.mean(1, keepdim=True)
        if self.ramp:
            grey = (
                torch.linspace(0, 1, images.shape[-1]).square().expand(len(images), 1, images.shape[-2], -1)
            )
        across = torch.nn.functional.pad(grey, (1, 1, 0, 0), mode="replicate").diff(dim=-1)
        slope = across[..., 1:] + across[..., :-1]
        return {"depth": grey * 2 - 1, "normals": torch.cat([-4 * slope, 0.3 + 0 * grey, 1 + 0 * grey], 1)}


@pytest.mark.parametrize("name", ["depth", "normals"])
def test_the_consistency_score_compares_maps_that_are_flipped_back(name):
    """Predictions that commute with mirroring are consistent; those that ignore the image are not."""
    images = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    valid = [{TASKS[name].target: torch.ones(1, 16, 24, dtype=torch.bool)}] * 2
    found = {}
    for ramp in (False, True):
        predictor = ModulePredictor(Mirrorable(ramp), TASKS[name])
        plain = {name: predictor(list(images))}
        scores = consistency_scores({name: predictor}, images, [1, 2], plain, valid)
        assert [set(s) for s in scores] == [{f"flip.{name}", f"agreement.{name}"}] * 2
        found[ramp] = scores
        if ramp:  # the same map for every image
            assert all(s[f"agreement.{name}"] == pytest.approx(0, abs=1e-3) for s in scores)
        else:
            assert all(s[f"agreement.{name}"] > 0.1 for s in scores)
    assert all(s[f"flip.{name}"] == pytest.approx(0, abs=1e-3) for s in found[False])
    assert all(s[f"flip.{name}"] > 5 for s in found[True])


def test_distances_to_the_source_are_root_mean_squares():
    """Half of the numbers are off by 0.3 (pixels) and 2 (latents): the root of half of the squares."""
    ball = sphere(0, 32)
    off = torch.zeros_like(ball.image)
    off[..., ::2] = 0.3
    latents = torch.zeros(4, 4, 4), torch.zeros(4, 4, 4)
    latents[1][..., ::2] = 2
    scores = cheap_scores(ball, ball.image + off, latents, {}, {})
    assert scores == {"rms_pixels": pytest.approx(0.3 * 0.5**0.5), "rms_latents": pytest.approx(2 * 0.5**0.5)}


def test_what_is_stored_of_relative_depth_is_read_back():
    d = torch.linspace(0, 1, 11)[None, None]
    for space in ("depth", "disparity", "sqrt_disparity", "log_depth"):
        stored = to_depth(d, space)
        assert float(stored.min()) > 0
        assert bool((stored.diff(dim=-1) > 0).all()) == (space in ("depth", "log_depth"))
        torch.testing.assert_close(from_depth(stored, space), d, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="not a space of distances"):
        from_depth(d, "normals")


def test_scores_know_a_copy_and_a_drift(creator):
    ball = sphere(0, 32)
    near, far = (
        creator.with_strength(s).generate([ball])[0].origin.generator["scores"] for s in (0.001, 0.95)
    )
    assert set(near) == {
        "rms_pixels", "rms_latents", "drift.depth", "drift.normals", "flip.depth", "flip.normals",
        "agreement.depth", "agreement.normals",
    }  # fmt: skip
    assert near["rms_latents"] < far["rms_latents"]
    assert all(value >= 0 for value in (*near.values(), *far.values()))


@pytest.mark.parametrize("name", ["depth", "disparity"])
def test_a_label_with_near_and_far_exchanged_has_drifted(name):
    """It is compared with the best scale of 0 or more, which is 0: the mean of the label."""
    ball, task = sphere(0, 32), TASKS[name]
    depth, known = ball.targets["depth"], ball.valid["depth"]
    right = task.decode(task.encode(depth[None], known[None])[0])[0]
    latents = torch.zeros(4, 4, 4), torch.zeros(4, 4, 4)

    def drift(map):
        prediction = Prediction(task, map, ball.image, space=task.space)
        return cheap_scores(ball, ball.image, latents, {name: prediction}, {"depth": known})[f"drift.{name}"]

    assert drift(0.3 * right + 0.2) == pytest.approx(0, abs=1e-4)
    exchanged = 100 * float((right - right.mean()).abs().mean())
    assert exchanged > 10
    assert drift(1 - right) == pytest.approx(exchanged, rel=1e-4)


def test_drift_is_the_angle_to_the_normals_of_the_source(creator, predictors):
    """A source whose normals equal the prediction for the created image has no drift."""
    ball = sphere(0, 32)
    made = creator.generate([ball])[0]
    record = replace(ball, targets=dict(made.targets), valid=dict(made.valid))
    again = creator.generate([record])[0]
    assert torch.equal(again.image, made.image)
    scores = again.origin.generator["scores"]
    assert scores["drift.normals"] < 0.05
    # The encoding clips at quantiles, so a small difference remains.
    assert scores["drift.depth"] < 2
    turned = replace(record, targets={**record.targets, "normals": -record.targets["normals"]})
    assert creator.generate([turned])[0].origin.generator["scores"]["drift.normals"] == pytest.approx(
        180, abs=0.1
    )


def test_thresholds_are_parsed_and_applied():
    scores = {"drift.depth": 10.0, "drift.normals": 30.0, "rms_pixels": 0.1}
    assert ScoreThreshold.parse(" drift.depth < 20").violation(scores) == ""
    assert ScoreThreshold.parse("drift<20").violation(scores) == "drift<20: drift.normals is 30"
    assert ScoreThreshold.parse("rms_pixels>0.02").violation(scores) == ""
    assert "no such score" in ScoreThreshold.parse("flip<20").violation(scores)
    for text in ("drift.normals<=1e1", "rms_pixels>=0.5"):
        assert str(ScoreThreshold.parse(str(ScoreThreshold.parse(text)))) == str(ScoreThreshold.parse(text))
    for wrong in ("drift", "drift<x", "beauty<3", "rms_pixels.depth<1", "drift<nan", "drift==3"):
        with pytest.raises(ValueError, match=r"threshold|score"):
            ScoreThreshold.parse(wrong)


def test_captions_come_from_the_row_or_the_template():
    ball = sphere(0, 16)
    assert get_caption(ball) == ("a ball before a wall", "row")
    mute = replace(ball, caption="")
    assert get_caption(mute) == ("a photograph", "template:a photograph")
    ids = torch.zeros(1, 16, 16)
    ids[..., :3] = 2
    record = replace(mute, targets={"semantic": ids}, valid={"semantic": ids > -1})
    assert (
        get_caption(record, "a photo of {classes}", classes=["wall", "cup", "ball"])[0]
        == "a photo of wall, ball"
    )
    with pytest.raises(CaptionError, match="no target 'semantic'"):
        get_caption(mute, "a photo of {classes}", classes=["wall"])
    with pytest.raises(CaptionError, match=r"no class with a name.*'classes'"):
        get_caption(record, "a photo of {classes}")
    # Classes without a name do not use up the five that are named.
    many = torch.arange(256.0).reshape(1, 16, 16) // 20
    crowd = replace(mute, targets={"semantic": many}, valid={"semantic": many > -1})
    assert get_caption(crowd, "{classes}", classes={7: "cup", 11: "ball"})[0] == "cup, ball"


def test_class_names_are_read_in_every_form_that_headers_have():
    """Rendered scenes have ids by name, converters a list, others an object for each target."""
    from twofold.render.classes import IDS, class_ids

    assert class_names({"classes": class_ids()})[IDS["chair"]] == "chair"
    assert class_names({"classes": ["wall", "cup"]}) == {0: "wall", 1: "cup"}
    assert class_names({"classes": {"semantic": ["wall", "cup"]}}) == {0: "wall", 1: "cup"}
    assert class_names({"classes": {"0": "wall", "7": "cup"}}) == {0: "wall", 7: "cup"}
    assert class_names({}) == {}
    with pytest.raises(ValueError, match=r"dataset\.json .*fix it"):
        class_names({"classes": "wall"})


def test_ids_of_two_sources_are_never_one():
    sources = ["a/b", "a b", "a-b", "ä", "ö", "x" * 300, "x" * 301, "../a", "a/.b"]
    ids = [sample_id(source, 600, 0) for source in sources]
    assert len(set(ids)) == len(ids)
    assert ids[0] == "a/b-T600-0"


def test_a_network_in_training_mode_is_refused(net, predictors):
    head = predictors["normals"].head
    head.train()
    try:
        with pytest.raises(ValueError, match="normals is in training mode"):
            SyntheticDataGenerator(net, predictors, QUICK, {}).generate([sphere(0, 32)])
    finally:
        head.eval()


def test_what_is_no_number_is_not_taken_for_a_sample(net, predictors):
    class Broken(Head):
        reads_features = True

        def forward(self, x0, features, backbone):
            return torch.full((len(x0), 3, x0.shape[2] * 8, x0.shape[3] * 8), float("nan"))

    broken = DiffusionPredictor(net, TASKS["depth"], OneStep(), Broken(), size=32)
    with pytest.raises(
        NonFiniteError, match=r"generated from 'ball-0'.*depth output is NaN or infinite in 100"
    ):
        SyntheticDataGenerator(net, {"depth": broken}, QUICK, {}).generate([sphere(0, 32)])


def test_networks_that_generate_no_images_are_refused(net, predictors):
    class Two(torch.nn.Module):
        input_channels, latent_channels = 8, 4

    with pytest.raises(ValueError, match=r"takes 8 channels .* generates no images"):
        SyntheticDataGenerator(Two(), {}, QUICK, {})  # ty: ignore[invalid-argument-type]
    assert SyntheticDataGenerator(net, {}, QUICK, {}).generate([sphere(0, 32)])[0].targets == {}


def test_labels_are_those_of_the_sources_and_one_a_target_by_default():
    tasks = {name: TASKS[name] for name in ("disparity", "depth", "normals", "mask")}
    assert default_tasks(tasks, {"depth", "mask", "instance"}) == ["depth", "mask"]
    assert default_tasks(tasks, set()) == ["depth", "normals", "mask"]
    assert default_tasks({"disparity": TASKS["disparity"]}, {"depth"}) == ["disparity"]
