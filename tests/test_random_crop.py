"""Crops of semantic segmentation: zoom in and out, the share of one class, padding, color distortion."""

import colorsys
import runpy

import pytest
import torch

import world
from twofold.backbones import new
from twofold.data.writer import FolderWriter
from twofold.sample import Sample
from twofold.tasks import TASKS, get_task
from twofold.tasks.metric_depth import metric_depth_task
from twofold.train import (
    DataConfig,
    DenoiserConfig,
    EmaConfig,
    HeadConfig,
    LoopConfig,
    OptimizerConfig,
    RandomCrop,
    Recipe,
    Source,
    ValidationConfig,
)
from twofold.train.augment import hsv_to_rgb, photometric, rgb_to_hsv
from twofold.train.denoiser import DenoiserStage
from twofold.train.distributed import DistributedContext
from twofold.train.loop import train
from twofold.train.random_crop import random_crop
from twofold.train.sampler import generator

SIZE = (48, 64)
CLASSES = get_task("semantic_logits")


def scene(height=60, width=90):
    """Depth is a ramp, the image shows it; the left third of the pixels is class 1, the rest class 4."""
    ramp = torch.linspace(1, 2, width).expand(1, height, width).clone()
    known = torch.ones(1, height, width, dtype=torch.bool)
    ids = torch.where(torch.arange(width) < width // 3, 1.0, 4.0).expand(1, height, width).clone()
    normals = torch.tensor([0.6, 0.0, 0.8]).reshape(3, 1, 1).expand(3, height, width).clone()
    return Sample(
        (ramp - 1).expand(3, -1, -1).clone(),
        {"depth": ramp, "semantic": ids, "normals": normals},
        {"depth": known, "semantic": known.clone(), "normals": known},
    )


def drawn(seed, options, sample=None, size=SIZE, classes=CLASSES, mirror=False):
    tasks = {"metres": metric_depth_task(8.0), "classes": CLASSES, "normals": TASKS["normals"]}
    return random_crop(sample or scene(), tasks, classes, size, options, generator(seed), mirror=mirror)


@pytest.mark.parametrize(
    ("options", "shape", "crop", "scale", "expected"),
    [
        # mmsegmentation: (2048, 512) times the ratio, the aspect ratio kept.
        (RandomCrop(), (480, 640), (512, 512), 1.0, (512, 683)),
        (RandomCrop(), (480, 640), (512, 512), 0.5, (256, 341)),
        (RandomCrop(), (1000, 250), (512, 512), 2.0, (4096, 1024)),
        (RandomCrop(), (1000, 200), (512, 512), 1.0, (2048, 410)),  # the long edge decides
        (RandomCrop(relative_to="image"), (425, 560), (448, 576), 0.5, (213, 280)),
        (RandomCrop(relative_to="image"), (425, 560), (448, 576), 1.5, (638, 840)),
    ],
)
def test_images_are_resized_as_published(options, shape, crop, scale, expected):
    assert options.resized(shape, crop, scale) == expected


def test_a_zoom_out_shows_the_whole_image_and_pads_it_at_the_right_and_the_bottom():
    options = RandomCrop(scale=(0.5, 0.5), cat_max_ratio=1, distortion="none")
    image, targets, inside = drawn(0, options)
    # 60 x 90, whose short edge becomes half of 48.
    assert inside[0, :24, :36].all()
    assert inside.sum() == 24 * 36
    assert image.shape == (3, *SIZE)
    assert (image[:, ~inside[0]] == 0.5).all()
    for target, valid in targets.values():
        assert torch.equal(valid, inside)
        assert not target[:, ~inside[0]].any()
    ids = targets["classes"][0][0, :24, :36]
    assert (ids[:, :12] == 1).all()
    assert (ids[:, 12:] == 4).all()


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("mirror", [False, True])
def test_image_and_targets_show_the_same_crop_and_depth_is_nearer_by_the_scale(scale, mirror):
    options = RandomCrop(scale=(scale, scale), distortion="none")
    x = []
    for seed in range(6):
        image, targets, inside = drawn(seed, options, mirror=mirror)
        depth, valid = targets["metres"]
        torch.testing.assert_close((depth * scale - 1)[valid], image[:1][valid], atol=2e-3, rtol=0)
        assert torch.equal(valid, inside)
        ids = targets["classes"][0]
        required = torch.where(depth * scale < 1 + 30 / 90, 1, 4)
        assert (ids == required)[valid].float().mean() > 0.97
        normals = targets["normals"][0][:, inside[0]]
        torch.testing.assert_close(normals.norm(dim=0), torch.ones(normals.shape[1]))
        x += normals[0].sign().unique().tolist()
    assert set(x) == ({-1.0, 1.0} if mirror else {1.0})


def share_of_one_class(ids, valid):
    counts = ids[valid].unique(return_counts=True)[1]
    return float(counts.max() / counts.sum())


def test_a_crop_with_almost_one_class_is_repeated():
    """A third is class 1: of crops at twice the size, many show class 4 alone."""
    found = {}
    for most in (1.0, 0.75):
        options = RandomCrop(scale=(2.0, 2.0), cat_max_ratio=most, distortion="none")
        targets = [drawn(seed, options)[1] for seed in range(60)]
        found[most] = [share_of_one_class(*t["classes"]) for t in targets]
    assert sum(share >= 0.75 for share in found[1.0]) > 30
    assert sum(share >= 0.75 for share in found[0.75]) <= 3  # ten crops were rejected
    # Where no crop would do, one is taken all the same; without classes, any.
    plain = scene()
    plain.targets["semantic"].fill_(4)
    kept = drawn(0, RandomCrop(distortion="none"), plain)[1]["classes"]
    assert share_of_one_class(*kept) == 1
    options = RandomCrop(scale=(2.0, 2.0), distortion="none")
    without = [share_of_one_class(*drawn(s, options, classes=None)[1]["classes"]) for s in range(60)]
    assert without == found[1.0]


def test_what_is_not_labelled_does_not_count_as_a_class():
    sample = scene()
    sample.valid["semantic"][..., :30] = False
    options = RandomCrop(scale=(2.0, 2.0), distortion="none")
    for seed in range(5):
        _, valid = drawn(seed, options, sample)[1]["classes"]
        assert valid.any()
    # Class 4 alone is labelled: no crop has two classes, so that the last of eleven crops is used.
    every = scene()
    every.targets["semantic"].fill_(4)
    for seed in range(5):
        assert torch.equal(
            drawn(seed, options, sample)[1]["metres"][0], drawn(seed, options, every)[1]["metres"][0]
        )


def test_hue_saturation_and_value_are_those_of_colorsys():
    image = torch.rand(3, 8, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    image[:, 0] = torch.linspace(0, 1, 9)  # grey, black and white
    image[:, 1, 0] = torch.tensor([1.0, 0, 0])
    hue, saturation, value = rgb_to_hsv(image)
    for y in range(8):
        for x in range(9):
            expected = colorsys.rgb_to_hsv(*image[:, y, x].tolist())
            found = (hue[y, x].item(), saturation[y, x].item(), value[y, x].item())
            assert found == pytest.approx(expected, abs=1e-12)
            turned = hsv_to_rgb(hue + 0.1, saturation, value)[:, y, x].tolist()
            assert turned == pytest.approx(
                colorsys.hsv_to_rgb((expected[0] + 0.1) % 1, *expected[1:]), abs=1e-6
            )


def test_color_distortion_has_the_published_ranges():
    """Of a mid-grey pixel, brightness and contrast are all there is: by 32 of 255 and by a factor of 0.5 to 1.5."""
    grey = torch.full((3, 1, 1), 0.5)
    red = torch.tensor([0.6, 0.3, 0.3]).reshape(3, 1, 1)
    greys, hues, saturations, same = [], [], [], 0
    for seed in range(600):
        greys.append(float(photometric(grey, generator(seed))[0]))
        turned = photometric(red, generator(seed))
        same += bool(torch.equal(turned, red))
        hue, saturation, _ = rgb_to_hsv(turned)
        hues.append((float(hue) + 0.5) % 1 - 0.5)
        saturations.append(float(saturation))
    low, high = 0.5 - 32 / 255, 0.5 + 32 / 255
    assert 0.5 * low - 1e-6 <= min(greys) < 0.25 < 0.8 < max(greys) <= 1.5 * high + 1e-6
    assert sum(g == 0.5 for g in greys) == pytest.approx(150, abs=45)  # neither: a quarter
    assert -36 / 360 - 1e-3 <= min(hues) < -0.08
    assert 0.08 < max(hues) <= 34 / 360 + 1e-3
    assert 0.15 < min(saturations) < 0.3
    assert max(saturations) > 0.7
    assert same == pytest.approx(600 / 16, abs=25)  # none of the four


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return world.rich_folder(tmp_path_factory.mktemp("rich") / "data", 4, 64)


def recipe(folder, **changes):
    made = Recipe(
        name="crops",
        model=DenoiserConfig(
            head=HeadConfig(name="multitask"),
            unet="frozen",
            text_encoder="frozen",
            latent_loss_weight=0.0,
            pixel_loss_weight=1.0,
        ),
        data=DataConfig(
            sources=(Source(path=str(folder)),),
            size=(48, 48),
            augment=True,
            task_weights={"semantic_logits": 1.0, "depth": 1.0},
            random_crop=RandomCrop(scale=(0.5, 0.6)),
            tasks_per_image="all",
        ),
        optimizer=OptimizerConfig(warmup_steps=0),
        ema=EmaConfig(decay=0.0),
        loop=LoopConfig(steps=2, batch_size=2, save_every=0),
        validation=ValidationConfig(every=0),
    )
    return made.replace(**changes)


def test_examples_of_a_recipe_are_such_crops_and_padding_is_not_pseudo_labelled(data, tmp_path):
    """An image of 64 x 64 at half of 48 to 0.6 of it; a created one without labels has the teacher's inside."""
    writer = FolderWriter(tmp_path / "created", {"name": "created"})
    writer.write(Sample(torch.rand(3, 64, 64), id="created"))
    writer.finish()
    sources = (Source(path=str(data)), Source(path=str(tmp_path / "created"), labels="teacher"))
    stage = DenoiserStage(
        new.tiny(),
        recipe(data, data={"sources": sources}, ema={"decay": 0.9}),
        tmp_path / "run",
        {},
        DistributedContext("cpu"),
    )
    trained = set()
    for image in [*stage.draw(0), *stage.draw(1)]:
        assert set(image) == {"semantic_logits", "depth"}
        for example in image.values():
            assert example.known is not None
            rows, columns = example.known[0].any(1), example.known[0].any(0)
            assert int(rows.sum()) == int(columns.sum()) in range(24, 30)
            assert rows[: int(rows.sum())].all()
            assert columns[: int(columns.sum())].all()
            assert torch.equal(example.image, image["depth"].image)
            trained.add(example.use_teacher_label)
    assert trained == {False, True}


def test_a_latent_cell_with_padding_is_not_trained_on(data, tmp_path):
    plan = recipe(
        data,
        model={
            "head": {"name": "latent"},
            "latent_loss_weight": 1.0,
            "pixel_loss_weight": 0.0,
            "unet": "full",
        },
        data={"task_weights": {"depth": 1.0}},
    )
    stage = DenoiserStage(new.tiny(), plan, tmp_path / "run", {}, DistributedContext("cpu"))
    for image in stage.draw(0):
        mask = image["depth"].mask
        assert mask is not None
        assert mask.shape == (1, 6, 6)
        assert mask[:, :3, :3].all()
        assert mask.sum() == 9


def test_an_interrupted_run_draws_the_same_crops_again(data, tmp_path):
    plan = recipe(data, ema={"decay": 0.5}, loop={"steps": 4, "save_every": 1})
    whole = [r["loss"] for r in train(new.tiny(), plan, tmp_path / "whole")]
    part = train(new.tiny(), plan, tmp_path / "part")
    first = [next(part)["loss"], next(part)["loss"]]
    part.close()
    rest = [r["loss"] for r in train(new.tiny(), plan, tmp_path / "part")]
    assert [*first[: 4 - len(rest)], *rest] == whole
    assert len(rest) < 4


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": {"augment": False}}, "augment=false; set augment=true"),
        (
            {"model": {"unet": "full"}, "data": {"task_weights": {"image": 1.0}, "tasks_per_image": "one"}},
            "no tasks; leave it out",
        ),
        ({"data": {"random_crop": {"scale": [2.0, 0.5]}}}, "must not exceed the second"),
        ({"data": {"random_crop": {"scale": [0.0, 0.5]}}}, "random_crop.scale.0"),
        ({"data": {"random_crop": {"cat_max_ratio": 1.5}}}, "random_crop.cat_max_ratio"),
        ({"data": {"random_crop": {"ratio": 1.5}}}, "a recipe has no data.random_crop.ratio"),
    ],
)
def test_what_does_not_fit_is_refused(data, changes, words):
    with pytest.raises(ValueError, match=words):
        recipe(data).replace(**changes)


def test_the_command_line_sets_them_and_files_keep_them(data, tmp_path):
    plain = recipe(data, data={"random_crop": None})
    changed = plain.override(["data.random_crop.cat_max_ratio=0.5", "data.random_crop.relative_to=image"])
    assert changed.data.random_crop == RandomCrop(cat_max_ratio=0.5, relative_to="image")
    changed.save(tmp_path / "recipe.json")
    assert Recipe.read(tmp_path / "recipe.json") == changed


def test_published_recipes_use_them():
    found = {
        (file, name): runpy.run_path(f"recipes/{file}.py")[name]().data.random_crop
        for file, name in (
            ("diff2in1", "segmentation"), ("diff2in1", "segmentation_second_stage"), ("multitask", "nyud_mt"),
            ("multitask", "nyud_mt_improved"), ("multitask", "pascal_context"),
        )
    }  # fmt: skip
    vpd = RandomCrop(scale=(0.5, 2.0), cat_max_ratio=0.75, relative_to="crop", distortion="photometric")
    for (file, _), crop in found.items():
        assert crop == (vpd if file == "diff2in1" else vpd.model_copy(update={"relative_to": "image"}))
