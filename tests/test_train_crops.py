"""Windows and crops of training by hand: image, target and mask show the same place, mirrored or not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import world
from twofold.backbones import new
from twofold.data.writer import FolderWriter
from twofold.geometry import unit
from twofold.sample import Provenance, Sample
from twofold.tasks import TASKS
from twofold.train import (
    DataConfig,
    DenoiserConfig,
    EmaConfig,
    LoopConfig,
    OptimizerConfig,
    Recipe,
    Source,
    ValidationConfig,
)
from twofold.train.augment import zoom
from twofold.train.cached_crops import CachedCropDataset
from twofold.train.distributed import DistributedContext
from twofold.train.encoder import Encoder, cell_mask, resize_and_crop
from twofold.train.online_dataset import MemorySample, cropped
from twofold.train.sampler import generator
from twofold.train.validation import SampleValidator


def plan(path: Path, mirror: bool) -> Recipe:
    return Recipe(
        name="crops",
        model=DenoiserConfig(),
        data=DataConfig(
            sources=(Source(path=str(path)),), size=(16, 16), task_weights={"depth": 1.0}, hflip=mirror
        ),
        optimizer=OptimizerConfig(warmup_steps=0),
        ema=EmaConfig(decay=0.0),
        loop=LoopConfig(steps=8, batch_size=2),
        validation=ValidationConfig(every=0),
    )


def striped(size: tuple[int, int], normals: bool = False) -> Sample:
    """An image whose colours encode row and column of each pixel, and targets that encode them as well."""
    h, w = size
    rows, columns = torch.meshgrid(torch.arange(h) / h, torch.arange(w) / w, indexing="ij")
    image = torch.stack([rows, columns, torch.zeros(h, w)])
    depth = (1 + rows + 10 * columns)[None]
    vectors = unit(torch.stack([columns - 0.4, rows, torch.ones(h, w)]))
    known = torch.ones(1, h, w, dtype=torch.bool)
    known[:, :, : w // 4] = False
    targets = {"depth": depth, "normals": vectors} if normals else {"depth": depth}
    return Sample(image, targets, dict.fromkeys(targets, known), id="striped", origin=Provenance("rendered"))


def test_a_cell_is_known_where_all_its_pixels_are():
    known = torch.ones(1, 1, 4, 4)
    known[..., 0, 0] = 0
    known[..., 2:, 2:] = 0
    assert cell_mask(known > 0.5, 2)[0, 0].tolist() == [[False, True], [True, False]]


def test_a_mirrored_part_is_that_of_the_mirrored_sample():
    sample = striped((16, 16), normals=True)
    mirrored = replace(
        sample, image=sample.image.flip(-1),
        targets={k: TASKS[k].flip(v) for k, v in sample.targets.items()},
        valid={k: v.flip(-1) for k, v in sample.valid.items()},
    )  # fmt: skip
    tasks = {name: TASKS[name] for name in ("depth", "normals")}
    encoder = Encoder(None, tasks, latent=False, pixels=True)
    found, expected = world.encoded(encoder, sample, True), world.encoded(encoder, mirrored)
    assert torch.equal(found.image, expected.image)
    for name in tasks:
        a, b = found.targets[name], expected.targets[name]
        assert a.canvas is not None and b.canvas is not None and a.known is not None and b.known is not None
        torch.testing.assert_close(a.canvas, b.canvas)
        assert torch.equal(a.known, b.known)
        assert not torch.equal(a.known, a.known.flip(-1))


@pytest.mark.parametrize("mirror", [False, True])
def test_a_window_shows_the_same_place_in_image_and_target(mirror, tmp_path):
    """Colours encode the column; the encoded target contains it as depth."""
    writer = FolderWriter(tmp_path / "striped", {"name": "striped", "targets": {"depth": {"codec": "npy"}}})
    writer.write(striped((16, 48)))
    writer.finish()
    recipe = plan(tmp_path / "striped", mirror)
    encoder = Encoder(None, {"depth": TASKS["depth"]}, latent=False, pixels=True)
    distributed = DistributedContext("cpu")
    windows = CachedCropDataset(
        encoder, recipe, encoder.tasks, None, SampleValidator(False, tmp_path / "skipped.jsonl", distributed)
    )
    lefts = set()
    for number in range(12):
        one = world.example(windows, number)
        assert one.image.shape == (3, 16, 16) and one.canvas is not None and one.known is not None
        columns = (one.image[1] * 48).round()
        lefts.add(int(columns[0, 0]))
        assert torch.equal(one.known[0], columns >= 12)
        known = one.known[0]
        depth = 1 + one.image[0] + 10 * one.image[1]
        # The canvas is depth up to scale and shift, clipped at its quantiles.
        inner = known & (one.canvas[0].abs() < 0.999)
        p, d = one.canvas[0][inner], depth[inner]
        if inner.sum() > 8:
            correlation = torch.corrcoef(torch.stack([p, d]))[0, 1]
            assert float(correlation) > 0.999
    assert len(lefts) > 3


def test_a_window_of_pixels_is_that_of_its_cells(tmp_path):
    """Eight pixels a cell: the canvas is cut where the latents of image and target are."""
    writer = FolderWriter(tmp_path / "striped", {"name": "striped", "targets": {"depth": {"codec": "npy"}}})
    writer.write(striped((16, 48)))
    writer.finish()
    recipe, net = plan(tmp_path / "striped", False), new.tiny()
    encoder = Encoder(net, {"depth": TASKS["depth"]}, latent=True, pixels=True)
    windows = CachedCropDataset(
        encoder,
        recipe,
        encoder.tasks,
        None,
        SampleValidator(False, tmp_path / "skipped.jsonl", DistributedContext("cpu")),
    )
    whole = world.encoded(encoder, striped((16, 48)))
    part, lefts = whole.targets["depth"], set()
    assert whole.image.shape == (4, 2, 6) and part.target is not None and part.canvas is not None
    for number in range(12):
        one = world.example(windows, number)
        assert one.target is not None and one.canvas is not None
        # The stored image has 256 levels.
        apart = [float((whole.image[..., left : left + 2] - one.image).abs().max()) for left in range(5)]
        left = apart.index(min(apart))
        torch.testing.assert_close(one.target, part.target[..., left : left + 2])
        torch.testing.assert_close(one.canvas, part.canvas[..., 8 * left : 8 * left + 16])
        lefts.add(left)
    assert len(lefts) > 2


def test_a_labelled_sample_covers_the_training_size_and_keeps_its_shape():
    """Scaled by the larger of the two ratios; height 30 to 45 makes width 60 to 90, cut to multiples of 8."""
    found = resize_and_crop(striped((30, 60)), (45, 64), 8)
    assert found.image.shape[-2:] == (40, 88)
    assert found.targets["depth"].shape[-2:] == found.valid["depth"].shape[-2:] == (40, 88)
    bare = resize_and_crop(Sample(torch.rand(3, 30, 60), {}, {}), (45, 64), 8)
    assert bare.image.shape[-2:] == (40, 88)  # the short edge is that of the size


@pytest.mark.parametrize("name", ["depth", "normals"])
def test_a_crop_shows_the_same_place_in_image_and_target(name):
    """As the window's, of zoomed and mirrored crops; x of normals is negated in a mirror image."""
    sample = striped((64, 64), normals=True)
    held = MemorySample((sample.image * 255).round().byte(), sample.targets, sample.valid, "")
    mirrored = set()
    for step in range(10):
        image, targets = cropped(held, {name: TASKS[name]}, (32, 32), generator("crop", step))
        target, known = targets[name]
        flipped = bool(image[1, 0, 0] > image[1, 0, -1])
        mirrored.add(flipped)
        inner = known[0] & (image[1] > 0.3)
        rows, columns = image[0], image[1]
        if name == "depth":
            expected = (1 + rows + 10 * columns)[None]
        else:
            expected = unit(torch.stack([columns - 0.4, rows, torch.ones_like(rows)]))
            expected = TASKS["normals"].flip(expected).flip(-1) if flipped else expected
        # Colours are bytes: 1/255 of a column is 10/255 of a metre.
        assert (expected - target).abs().amax(0)[inner].max() < 0.06
        apart = known[0] != (columns > 0.25)
        assert bool(((columns - 0.25).abs()[apart] < 0.05).all())  # at the border, by rounding of bytes
    assert mirrored == {False, True}


def test_a_zoomed_box_has_the_drawn_scale_and_the_aspect_of_the_size():
    """Of 100 x 200 pixels the largest box of 1 : 1 has 100; its scale is sampled between the two given."""
    boxes = [zoom((100, 200), (32, 32), (0.5, 0.8), generator("zoom", n)) for n in range(200)]
    heights = [h for _, _, h, _ in boxes]
    assert all(h == w for _, _, h, w in boxes)
    assert 50 <= min(heights) < 53 and 77 < max(heights) <= 80
    assert all(0 <= top <= 100 - h and 0 <= left <= 200 - w for top, left, h, w in boxes)
    assert max(left + w for _, left, _, w in boxes) > 180 and min(left for _, left, _, _ in boxes) < 20
