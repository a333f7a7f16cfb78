"""Crops of images that are shrunk and enlarged, as semantic segmentation is trained; and what padding means."""

from typing import Any

import pytest
import torch

import world
from twofold.backbones import new
from twofold.train.augment import rescaled_box
from twofold.train.denoiser import DenoiserStage
from twofold.train.order import generator
from twofold.train.recipe import Recipe, Source
from twofold.train.team import Team


def test_the_short_edge_is_the_window_s_times_a_factor():
    """At factor 1 a square window is all of the short edge; at 2 half of it; at a half all of the image, shrunk."""
    for factor, box, size in (
        (1.0, (40, 40), (32, 32)),
        (2.0, (20, 20), (32, 32)),
        (0.5, (40, 60), (16, 24)),
    ):
        found, new_size = rescaled_box((40, 60), (32, 32), (factor, factor), generator(0))
        assert (found[2:], new_size) == (box, size)
    # The long edge is at most four times as long.
    _, new_size = rescaled_box((10, 400), (32, 32), (1.0, 1.0), generator(0))
    assert new_size == (3, 32)


def test_windows_and_factors_are_spread_and_stay_inside():
    boxes = [rescaled_box((50, 70), (32, 32), (0.5, 2.0), generator(n)) for n in range(300)]
    for (top, left, h, w), (height, width) in boxes:
        assert 0 <= top <= 50 - h and 0 <= left <= 70 - w and height <= 32 and width <= 32
        assert h / height == pytest.approx(w / width, rel=0.12), "shapes are kept"
    factors = torch.tensor([size[0] / box[2] * 50 / 32 for box, size in boxes])
    assert 0.45 < factors.min() < 0.6 and 1.8 < factors.max() < 2.1
    assert len({box for box, _ in boxes}) > 200


def test_a_crop_of_one_class_is_drawn_again():
    """Left of the picture is one class and nothing else; the right has two."""
    ids = torch.zeros(1, 40, 400)
    ids[..., 360:380], ids[..., 380:] = 1, 2
    view: Any = {"shape": (40, 400), "size": (40, 40), "scales": (1.0, 1.0)}

    def mixed(most: float) -> float:
        hits = 0
        for n in range(200):
            (top, left, h, w), _ = rescaled_box(**view, rng=generator(n), ids=ids, most=most)
            hits += len(ids[..., top : top + h, left : left + w].unique()) > 1
        return hits / 200

    plain, chosen = mixed(1.0), mixed(0.75)
    assert plain < 0.3 and chosen > 2 * plain
    # Unknown pixels are no class: a window that shows one class beside them does not count as mixed.
    unknown = torch.where(ids == 0, ids, -1)
    (_, left, _, w), _ = rescaled_box(**view, rng=generator(0), ids=unknown, most=0.75)
    assert 0 <= left <= 400 - w


def recipe(root, **changes) -> Recipe:
    made = Recipe(
        name="x", stage="denoiser", sources=(Source(path=str(root)),), mix={"semantic_logits": 1.0, "normals": 1.0},
        prompts={"semantic_logits": "", "normals": ""}, tasks_per_image="all", size=(32, 32), augment=True,
        rescale=(0.5, 0.5), head="light", latent_weight=0.0, image_weight=1.0, unet="frozen", text="frozen", batch=4,
        ema=0.9, ema_every=4, mirror=False, validate_every=0,
    )  # fmt: skip
    return made.replace(**changes)


@pytest.mark.parametrize("labels", ["stored", "teacher"])
def test_what_is_padded_is_grey_and_nothing_is_learned_there(tmp_path, labels):
    root = world.rich_folder(tmp_path / "balls", 2, 32)
    source = {"path": str(tmp_path / "balls"), "labels": labels}
    stage = DenoiserStage(new.tiny(), recipe(root, sources=[source]), tmp_path / "run", {}, Team("cpu"))
    seen = []
    encoder: Any = stage.examples
    encoder = encoder.encoder
    encode = encoder.picture
    object.__setattr__(encoder, "picture", lambda image: seen.append(image) or encode(image))
    for image in stage.draw(0):
        for example in image.values():
            assert example.known is not None and example.known.shape[-2:] == (32, 32)
            assert example.known[..., :16, :16].any()
            assert not example.known[..., 16:, :].any() and not example.known[..., 16:].any()
    for image in seen:
        assert image.shape == (3, 32, 32)
        assert (image[:, 16:] == 0.5).all() and (image[..., 16:] == 0.5).all()
        assert image[:, :16, :16].std() > 0


def test_what_cannot_be_rescaled_is_refused(tmp_path):
    with pytest.raises(ValueError, match="needs augment=true"):
        recipe(tmp_path, augment=False)
    with pytest.raises(ValueError, match="the smaller first"):
        recipe(tmp_path, rescale=(2.0, 0.5))
    with pytest.raises(ValueError, match="set rescale"):
        recipe(tmp_path, rescale=None, cat_max_ratio=0.75)


def test_the_segmentation_recipe_crops_as_vpd():
    import runpy
    from pathlib import Path

    made = runpy.run_path(str(Path(__file__).parents[1] / "recipes" / "diff2in1.py"))["segmentation"]()
    assert (made.rescale, made.cat_max_ratio, made.size) == ((0.5, 2.0), 0.75, (512, 512))
