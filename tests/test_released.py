"""GenPercept's training batch, derived again from raw files as its code makes it, against that of its recipes here."""

import json
import math
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import world
from twofold.backbones import new
from twofold.data.folder import Folder
from twofold.train.cached_crops import CachedCropDataset
from twofold.train.distributed import DistributedContext
from twofold.train.encoder import Encoder
from twofold.train.recipe import Recipe
from twofold.train.recipe_loader import recipes
from twofold.train.trainable import make_tasks
from twofold.train.validation import SampleValidator

RECIPES = recipes(Path(__file__).parents[1] / "recipes" / "genpercept.py")
H, W = 48, 64
# 64 to 48 columns has ties, which the nearest pixel breaks to the right: mirrored before is not mirrored after.
SIZE = (32, 48)
# By recipe: its target, and the raw file of it.
TASKS = {
    "depth_as_released": "depth",
    "disparity_as_released": "disparity",
    "normals_as_released": "normals",
    "dis_as_released": "mask",
    "matting_as_released": "matting",
}


def raw(root: Path) -> Path:
    """One sample as data sets store it: depth with holes and out of range, soft masks, normals where it has none."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:H, :W]
    root.mkdir()
    Image.fromarray(rng.integers(0, 256, (H, W, 3), dtype=np.uint8)).save(root / "rgb.png")
    depth = (3000 + 40 * y**1.5 + 25 * x).astype(np.uint16)
    depth[5:9, 10:20] = 0
    depth[20:30, 40:50] = 65300  # beyond 65 m
    Image.fromarray(depth).save(root / "depth.png")
    normals = rng.normal(size=(H, W, 3)).astype(np.float32)
    normals *= rng.uniform(0.9, 1.1, (H, W, 1)).astype(np.float32) / np.linalg.norm(
        normals, axis=2, keepdims=True
    )
    normals[30:34, 5:15] = 0
    np.save(root / "normals.npy", normals)
    soft = np.clip(140 * np.sin(x / 5 + y / 9) + 120, 20, 230).astype(np.uint8)
    Image.fromarray(soft).save(root / "soft.png")
    header = {
        "schema": "twofold-data/1", "name": "raw", "count": 1,
        "targets": {
            "depth": {"codec": "png16", "scale": 0.001, "unit": "m"},
            "normals": {"codec": "npy", "frame": "RUB", "invalid": "zero"},
            "mask": {"codec": "png8", "threshold": 128},
            "matting": {"codec": "png8", "scale": 1 / 255},
        },
    }  # fmt: skip
    files = {"depth": "depth.png", "normals": "normals.npy", "mask": "soft.png", "matting": "soft.png"}
    row = {"id": "a", "file_name": "rgb.png", "targets": {k: {"path": v} for k, v in files.items()}}
    (root / "dataset.json").write_text(json.dumps(header))
    (root / "metadata.jsonl").write_text(json.dumps(row) + "\n")
    return root


def nearest(x: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    rows, columns = (
        np.floor((np.arange(n) + 0.5) * m / n + 1e-6).astype(int)
        for n, m in zip(size, x.shape[-2:], strict=True)
    )
    return x[..., rows, :][..., columns]


def smooth(x: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear with antialiasing: a triangle as wide as a pixel of the smaller image."""

    def weights(n: int, m: int) -> np.ndarray:
        scale = max(m / n, 1.0)
        centre = (np.arange(n) + 0.5) * m / n
        near = 1 - np.abs(np.arange(m)[None] + 0.5 - centre[:, None]) / scale
        near = near.clip(min=0)
        return near / near.sum(1, keepdims=True)

    rows, columns = (weights(n, m) for n, m in zip(size, x.shape[-2:], strict=True))
    return rows @ x @ columns.T


def batch(
    root: Path, task: str, mirrored: bool, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the released trainer gets: image and label ``3 h w`` in [-1, 1], and where it counts ``1 h w``."""
    image = np.asarray(Image.open(root / "rgb.png")).transpose(2, 0, 1) / 255 * 2 - 1
    depth = np.asarray(Image.open(root / "depth.png"))[None] / 1000
    there = (depth > 1e-5) & (depth < 65)
    by = nearest
    if task in ("mask", "matting"):
        by = smooth
        label = np.asarray(Image.open(root / "soft.png")).astype(float)
        label = np.repeat((label - label.min())[None] / (label.max() - label.min()), 3, 0) * 2 - 1
        counts = np.ones((1, H, W), bool)
    elif task == "normals":
        label = np.load(root / "normals.npy").transpose(2, 0, 1).astype(float)
        counts = (label != 0).any(0)[None]
        label[:, ~there[0]] = 0
        label = label / np.linalg.norm(label, axis=0, keepdims=True).clip(min=1e-8)
    else:
        low, high = np.quantile(depth[there], (0.02, 0.98))
        if task == "disparity":
            with np.errstate(divide="ignore"):
                inverse = (1 / depth - 1 / high) / (1 / low - 1 / high)
            inverse[~there] = inverse.min()
            label = (inverse - inverse.min()) / (inverse.max() - inverse.min()) * 2 - 1
            label[~there] = -1
        else:
            label = ((depth - low) / (high - low) * 2 - 1).clip(-1, 1)
        label, counts = np.repeat(label, 3, 0), there
    if mirrored:
        image, label, counts = image[..., ::-1], label[..., ::-1], counts[..., ::-1]
        label = label * np.array([-1, 1, 1]).reshape(3, 1, 1) if task == "normals" else label
    return nearest(image, size), by(label, size), nearest(counts, size)


def examples(recipe: Recipe, net, root: Path, cache: bool) -> CachedCropDataset:
    tasks = make_tasks(recipe)
    readable = SampleValidator(False, root / "skipped.jsonl", DistributedContext("cpu"))
    return CachedCropDataset(
        Encoder(net, tasks, net is not None, True), recipe, tasks, root / "kept" if cache else None, readable
    )


@pytest.fixture(scope="module")
def net():
    return new.tiny()


@pytest.mark.parametrize("cache", [False, True], ids=["drawn", "kept"])
@pytest.mark.parametrize("name", TASKS)
def test_a_recipe_as_released_trains_on_the_released_batch(name, cache, net, tmp_path):
    recipe, root = RECIPES[name](), raw(tmp_path / "raw")
    (source, *_) = recipe.data.sources
    recipe = recipe.replace(
        model={"pixel_loss_weight": 1.0, "latent_loss_weight": 1.0},
        data={"sources": (source.model_copy(update={"path": str(root)}),), "size": SIZE},
    )
    assert recipe.tasks == (TASKS[name],)
    drawn, seen = examples(recipe, net, tmp_path, cache), set()
    for number in count():
        example = world.example(drawn, number)
        expected = [
            [torch.from_numpy(x.copy()) for x in batch(root, TASKS[name], m, SIZE)] for m in (False, True)
        ]
        latents = [net.encode(image[None].float())[0] for image, _, _ in expected]
        mirrored = bool((example.image - latents[1]).abs().max() < (example.image - latents[0]).abs().max())
        seen.add(mirrored)
        _, label, counts = expected[mirrored]
        torch.testing.assert_close(example.image, latents[mirrored], rtol=0, atol=1e-5)
        torch.testing.assert_close(example.canvas, label.float(), rtol=0, atol=4e-5)
        assert example.known is not None
        assert torch.equal(example.known, counts)
        torch.testing.assert_close(example.target, net.encode(label[None].float())[0], rtol=0, atol=1e-4)
        invalid = torch.nn.functional.max_pool2d((~counts).float()[None], 8, 8)[0] > 0
        assert example.mask is not None
        assert torch.equal(example.mask, ~invalid)
        if len(seen) == 2:
            break
    assert not cache or list((tmp_path / "kept").rglob("*.safetensors"))


def test_mirrored_is_mirrored_before_it_is_resized(tmp_path):
    root = raw(tmp_path / "raw")
    first, second = (batch(root, "depth", m, SIZE)[0] for m in (False, True))
    assert np.abs(first[..., ::-1] - second).max() > 0.5


def test_virtual_kitti_is_the_released_window_and_its_sky_the_farthest_depth(tmp_path):
    """The sky is stored as the farthest other depth, beyond 80 m; so the farthest valid pixel is not -1."""
    rng, (h, w) = np.random.default_rng(1), (375, 1242)
    root = tmp_path / "vkitti"
    root.mkdir()
    depth = rng.integers(500, 12000, (h, w)).astype(np.uint16)
    depth[:150] = 65535
    Image.fromarray(depth).save(root / "depth.png")
    Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8)).save(root / "rgb.png")
    how = {"codec": "png16", "scale": 0.01, "infinite": 65535, "unit": "m"}
    (root / "dataset.json").write_text(json.dumps({"schema": "twofold-data/1", "targets": {"depth": how}}))
    row = {"id": "a", "file_name": "rgb.png", "targets": {"depth": {"path": "depth.png"}}}
    (root / "metadata.jsonl").write_text(json.dumps(row) + "\n")
    top, left = h - 352, (w - 1216) // 2
    metres = depth[top:, left : left + 1216] / 100
    metres[metres > 655] = metres[metres < 655].max()
    valid = metres < 80
    assert 80 < metres.max() < 120
    assert 0.1 < valid.mean() < 0.9
    low, high = np.quantile(metres[valid], (0.02, 0.98))
    far, near = 1 / metres.max(), 1 / metres[valid].min()
    expected = {
        "depth": ((metres - low) / (high - low) * 2 - 1).clip(-1, 1),
        "disparity": np.where(valid, (1 / metres - far) / (near - far) * 2 - 1, -1),
    }
    assert expected["disparity"][valid].min() > -0.99
    for task, label in expected.items():
        recipe = RECIPES[f"{task}_as_released"]()
        source = recipe.data.sources[1].model_copy(update={"path": str(root), "share": 1.0})
        recipe = recipe.replace(data={"sources": (source,), "hflip": False})
        example = world.example(examples(recipe, None, tmp_path, False), 0)
        assert example.canvas is not None
        assert example.known is not None
        assert np.abs(example.canvas[1].numpy() - label).max() < 4e-5
        assert (example.known[0].numpy() == valid).all()
        image = np.asarray(Image.open(root / "rgb.png"))[top:, left : left + 1216].transpose(2, 0, 1) / 255
        assert np.abs(example.image.numpy() - image).max() < 1e-6


def test_every_recipe_as_released_has_the_released_loader():
    found = {name: make() for name, make in RECIPES.items() if name.endswith("as_released")}
    assert len(found) == 7
    for name, recipe in found.items():
        assert recipe.data.resample == "genpercept", name
        ranges = {s.path: s.depth_range for s in recipe.data.sources}
        assert ranges.get("data/vkitti2", (1e-5, 80.0)) == (1e-5, 80.0)
        if recipe.tasks[0] in ("depth", "disparity", "normals"):
            assert ranges["data/hypersim"] == (1e-5, 65.0)
    with pytest.raises(ValueError, match="augment"):
        found["depth_as_released"].replace(data={"augment": True})


def test_without_compat_invalid_depth_is_left_out_as_before(tmp_path):
    root = raw(tmp_path / "raw")
    plain, kept = Folder(root)[0], Folder(root, override={"targets": {"depth": {"keep_invalid": True}}})[0]
    ranged = Folder(
        root, override={"targets": {"depth": {"keep_invalid": True, "valid_range": [1e-5, 65.0]}}}
    )[0]
    assert plain.targets["depth"].max() == pytest.approx(65.3)
    assert torch.equal(plain.targets["depth"], kept.targets["depth"])
    assert int((~ranged.valid["depth"]).sum() - (~plain.valid["depth"]).sum()) == 100
    assert ranged.targets["depth"].max() == pytest.approx(65.3)
    assert set(plain.targets["mask"].unique().tolist()) == {0.0, 1.0}
    assert math.isclose(
        Folder(root, override={"targets": {"mask": {"soft": True}}})[0].targets["mask"].min(),
        20 / 255,
        rel_tol=1e-6,
    )
