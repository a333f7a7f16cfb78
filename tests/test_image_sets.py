"""`twofold metrics`: distances of image sets in closed form, and which of them may be compared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

import world
from twofold.backbones.efficientnet import EfficientNetLite0
from twofold.backbones.image_encoder import ImageAdapter
from twofold.checkpoints import open_model
from twofold.cli.main import run
from twofold.evaluate.feature_network import FeatureNetwork, feature_network
from twofold.evaluate.image_sets import (
    ImageSet,
    ImageSource,
    check_comparable,
    image_set_distances,
    write_distances,
)
from twofold.evaluate.protocol import EvaluationError
from twofold.image import ImageError

# Features of an image: the mean of each colour channel.
MEANS = FeatureNetwork("means", "0" * 64, "channel means", 8, 3, lambda images: images.mean((2, 3)))


def grey(*levels: float) -> ImageSet:
    """Images of one grey level each."""
    read = [ImageSource(f"{i}", lambda v=v: torch.full((3, 4, 6), v)) for i, v in enumerate(levels)]
    return ImageSet("grey", read)


def broken() -> Tensor:
    raise ImageError("x.png is damaged")


def save(folder: Path, levels: dict[str, int]) -> Path:
    folder.mkdir(parents=True)
    for name, level in levels.items():
        Image.new("RGB", (20, 12), (level,) * 3).save(folder / name)
    return folder


def test_fid_of_shifted_sets_is_the_squared_distance_of_their_means():
    result = image_set_distances(grey(0.2, 0.4, 0.6), grey(0.5, 0.7, 0.9), MEANS)
    # Equal covariances: only the means differ, by 0.3 in each of 3 features.
    assert result["fid"] == pytest.approx(3 * 0.3**2, abs=1e-6)


def test_fid_of_sets_of_equal_mean_is_that_of_their_deviations():
    result = image_set_distances(grey(0.4, 0.6), grey(0.3, 0.7), MEANS)
    # The three features are equal: one direction of variance 3 s², with s² = 0.02 and 0.08 over n - 1.
    assert result["fid"] == pytest.approx((0.06**0.5 - 0.24**0.5) ** 2, abs=1e-6)


def test_kid_is_that_of_the_polynomial_kernel():
    result = image_set_distances(grey(0.2, 0.4), grey(0.6, 0.8), MEANS)
    kernel = lambda x, y: (x * y + 1) ** 3  # noqa: E731 - of features that are three times the same
    between = sum(kernel(x, y) for x in (0.2, 0.4) for y in (0.6, 0.8)) / 4
    expected = kernel(0.2, 0.4) + kernel(0.6, 0.8) - 2 * between
    assert result["kid"] == pytest.approx(expected, abs=1e-6)
    assert result["kid_subsets"] == {
        "mean": pytest.approx(expected, abs=1e-6),
        "std": pytest.approx(0, abs=1e-9),
        "subsets": 100,
        "size": 2,
    }


def test_batches_decide_no_number():
    sets = [(grey(0.1, 0.2, 0.5), grey(0.3, 0.9, 0.4, 0.8)) for _ in range(2)]
    one, two = (image_set_distances(a, b, MEANS, batch=n) for (a, b), n in zip(sets, (1, 3), strict=True))
    assert one == two


def test_the_result_names_everything_it_depends_on():
    result = image_set_distances(grey(0.2, 0.4), grey(0.6, 0.8, 0.7), MEANS, seed=5)
    assert result["network"] == {
        "name": "means",
        "sha256": "0" * 64,
        "layer": "channel means",
        "pixels": 8,
        "dimensions": 3,
    }
    assert (result["real"]["images"], result["generated"]["images"], result["seed"]) == (2, 3, 5)
    reordered = image_set_distances(grey(0.4, 0.2), grey(0.6, 0.8, 0.1), MEANS)
    assert reordered["real"]["sha256"] == result["real"]["sha256"]
    assert reordered["generated"]["sha256"] != result["generated"]["sha256"]


def test_an_image_that_cannot_be_read_is_counted_and_in_no_number():
    images = grey(0.2, 0.4)
    images.sources = [*images.sources, ImageSource("x.png", broken)]
    result = image_set_distances(images, grey(0.3, 0.5), MEANS)
    assert images.failed == [("x.png", "x.png is damaged")]
    assert result["real"]["failed"] == 1 and result["real"]["images"] == 2
    assert result["fid"] == image_set_distances(grey(0.2, 0.4), grey(0.3, 0.5), MEANS)["fid"]


@pytest.mark.parametrize(("levels", "words"), [((), "no readable image"), ((0.5,), "at least 2")])
def test_sets_without_a_distance_are_refused(levels, words):
    with pytest.raises(EvaluationError, match=words):
        image_set_distances(grey(*levels), grey(0.1, 0.2), MEANS)


# ---- which results may be compared


def result(**changes) -> dict:
    found = image_set_distances(grey(0.2, 0.4), grey(0.6, 0.8), MEANS)
    for key, value in changes.items():
        part, _, name = key.partition("_")
        found[part][name] = value
    return found


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"network_sha256": "1" * 64}, "another feature network .sha256"),
        ({"network_layer": "mean of squares"}, "another feature network .layer"),
        ({"network_pixels": 64}, "another feature network .pixels"),
        ({"real_sha256": "1" * 64}, "other real images"),
    ],
)
def test_results_of_other_networks_or_images_are_refused(changes, words):
    with pytest.raises(EvaluationError, match=f"result 2 is of {words}"):
        check_comparable([result(), result(**changes)])


def test_results_of_one_feature_network_are_comparable():
    assert check_comparable([result(), result(network_name="the same under another name")]) == []
    (warning,) = check_comparable([result(), result(generated_images=3)])
    assert "FID is not comparable" in warning


# ---- feature networks


def test_features_of_a_unet_are_means_of_its_coarsest_decoding_map(tiny_model):
    model = open_model(tiny_model)
    network = feature_network(model, 64)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    net = model.backbone
    with torch.no_grad():
        rows = network.compute(images)
        latent = net.encode(images * 2 - 1)
        text = net.embed([""]).expand(2, -1, -1)
        maps = net(latent, torch.zeros(2, dtype=torch.long), text, features=True).features
    torch.testing.assert_close(rows, maps[0].mean((2, 3)))
    assert rows.shape == (2, network.dimensions) and network.sha256 == model.digest
    assert network.prepare(torch.rand(3, 30, 50)).shape == (3, 64, 64)
    with pytest.raises(EvaluationError, match="multiple of 64"):
        feature_network(model, 100)


def test_features_of_an_image_encoder_are_means_of_its_coarsest_map(tiny_model):
    model = open_model(tiny_model)
    encoder = EfficientNetLite0().eval()
    model.backbone.image_adapter = ImageAdapter.for_unet(encoder, model.backbone.unet, model.backbone.stride)
    network = feature_network(model, 64)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        rows, expected = network.compute(images), encoder(images)[-1].mean((2, 3))
    torch.testing.assert_close(rows, expected)
    assert network.dimensions == 320 and "efficientnet" in network.layer


def test_a_network_with_more_inputs_is_refused(tmp_path, tiny_model):
    model = open_model(tiny_model)
    model.backbone.input_channels *= 2
    with pytest.raises(EvaluationError, match="no image encoder, and its U-Net takes more"):
        feature_network(model)


# ---- the command


@pytest.fixture
def here(tmp_path, monkeypatch, tiny_model):
    monkeypatch.chdir(tmp_path)
    save(Path("real"), {"a.png": 40, "b.png": 90, "c.jpg": 200})
    save(Path("made"), {"a.png": 60, "b.png": 80})
    return ["--model", str(tiny_model), "--pixels", "64"]


def test_the_command_prints_and_writes_one_result(here, capsys):
    assert run(["metrics", "fid", "real", "made", *here, "--out", "out/a.json", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert json.loads(Path("out/a.json").read_text()) == found
    assert (found["real"]["images"], found["generated"]["images"]) == (3, 2)
    assert found["fid"] > 0
    assert run(["metrics", "fid", "real", "made", *here, "--out", "out/a.json"]) == 2
    assert "is not overwritten" in capsys.readouterr().err
    assert run(["metrics", "fid", "real", "real", *here, "--count", "2"]) == 0
    text = capsys.readouterr().out
    assert "real       2 images" in text and "FID is biased upwards" in text


def test_a_damaged_image_is_reported_and_ends_with_1(here, capsys):
    Path("made/x.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    assert run(["metrics", "fid", "real", "made", *here, "--json"]) == 1
    out, err = capsys.readouterr()
    assert "x.png" in err and json.loads(out)["generated"] | {"sha256": "", "path": ""} == {
        "images": 2,
        "failed": 1,
        "sha256": "",
        "path": "",
    }


def test_a_data_folder_is_its_images_alone(here, capsys):
    """Not the maps beside them."""
    world.folder(Path("data"), 3, 16)
    assert run(["metrics", "fid", "real", "data", *here, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["generated"]["images"] == 3


def test_a_generated_folder_is_its_images_alone(here, capsys):
    """Not the contact sheet beside them."""
    command = ["generate", "a room", "--count", "2", "--steps", "1", "--size", "32x32", "--out", "drawn"]
    assert run([*command, "--model", here[1]]) == 0
    assert Path("drawn/sheet.png").is_file()
    capsys.readouterr()
    assert run(["metrics", "fid", "real", "drawn", *here, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["generated"]["images"] == 2


def test_the_command_compares_and_refuses(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, changes in (("a", {}), ("b", {"network_name": "same"}), ("c", {"network_pixels": 128})):
        write_distances(Path(f"{name}.json"), result(**changes))
    assert run(["metrics", "compare", "a.json", "b.json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and lines[1] == lines[2] and lines[1].endswith("2  grey")
    assert run(["metrics", "compare", "a.json", "c.json"]) == 2
    assert "another feature network (pixels 128 instead of 8)" in capsys.readouterr().err
    for wrong in ("{}", "[", '{"schema": "twofold-image-sets/1", "network": 3}'):
        Path("w.json").write_text(wrong)
        assert run(["metrics", "compare", "a.json", "w.json"]) == 2
        assert "w.json" in capsys.readouterr().err


def test_distances_in_the_embedded_model_s_features_grow_with_noise():
    network = feature_network(open_model("embedded"), 64)
    rng = torch.Generator().manual_seed(0)
    balls = [world.sphere(seed, 64).image for seed in range(8)]
    noise = [torch.randn(ball.shape, generator=rng) for ball in balls]

    def images(level: float) -> ImageSet:
        noisy = [(ball + level * n).clamp(0, 1) for ball, n in zip(balls, noise, strict=True)]
        return ImageSet("balls", [ImageSource("ball", lambda x=x: x) for x in noisy])

    none, little, much = (image_set_distances(images(0), images(level), network) for level in (0.0, 0.1, 0.4))
    assert none["fid"] == pytest.approx(0, abs=1e-3)
    assert 2 * little["fid"] < much["fid"] and little["kid"] < much["kid"]
