"""The Python API as a person meets it: what an image may be, which arguments are taken, what is printed."""

from __future__ import annotations

import copy
import inspect
import io
import multiprocessing
import pickle
import pydoc
import typing
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import twofold
import world
from twofold.backbones import new
from twofold.checkpoints import ModelError, open_model
from twofold.environment import has_fast_bfloat16, resolve_device, resolve_dtype
from twofold.evaluate.predictions import ModelPredictions
from twofold.generate import GenerationConfig, SyntheticDataGenerator
from twofold.generate.images import ImageGenerator
from twofold.heads import LatentHead
from twofold.image import ImageError, as_image
from twofold.metrics.generation import Features
from twofold.predict.diffusion import DiffusionPredictor
from twofold.predict.module import ModulePredictor
from twofold.predict.prediction import Prediction
from twofold.protocols import OneStep
from twofold.tasks import TASKS, get_task

LEVELS = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
FLOATS = LEVELS.astype(np.float32) / 255
PIL = Image.fromarray(LEVELS)
WANTED = torch.from_numpy(FLOATS).permute(2, 0, 1)


class Own(nn.Module):
    """A user-defined network: it predicts the image's brightness."""

    def forward(self, images):
        return {"depth": images.mean(1, keepdim=True) * 2 - 1}


@pytest.fixture(scope="module")
def net():
    return new.tiny()


@pytest.fixture(scope="module", params=["diffusion", "network"])
def predictor(request, net):
    if request.param == "network":
        return ModulePredictor(Own(), TASKS["depth"])
    return DiffusionPredictor(net, TASKS["depth"], OneStep(), LatentHead())


# ---- images in memory

SAME = {
    "pil": PIL,
    "uint8 array": LEVELS,
    "float32 array": FLOATS,
    "float64 array": FLOATS.astype(np.float64),
    "float16 array": FLOATS.astype(np.float16),
    "big-endian array": FLOATS.astype(">f4"),
    "array of another order": np.asfortranarray(LEVELS),
    "array turned twice": np.ascontiguousarray(LEVELS[:, ::-1])[:, ::-1],
    "read-only array": np.frombuffer(LEVELS.tobytes(), np.uint8).reshape(LEVELS.shape),
    "uint8 tensor": torch.from_numpy(LEVELS).permute(2, 0, 1),
    "float tensor": WANTED,
    "float64 tensor": WANTED.double(),
    "tensor with a gradient": WANTED.clone().requires_grad_(),
    "opaque array of 4 channels": np.dstack([LEVELS, np.full((24, 32), 255, np.uint8)]),
}


@pytest.mark.parametrize("form", SAME)
def test_every_form_of_an_image_is_the_same_image(form):
    found = as_image(SAME[form])
    assert found.dtype == torch.float32 and found.shape == (3, 24, 32) and not found.requires_grad
    torch.testing.assert_close(found, WANTED, rtol=0, atol=5e-4 if "16" in form else 1e-6)
    torch.testing.assert_close(twofold.read_image(SAME[form]), found)


def test_grey_is_repeated_and_transparency_composited_on_white():
    grey = LEVELS[..., 0]
    for form in (grey, grey[..., None], torch.from_numpy(grey)[None]):
        found = as_image(form)
        assert torch.equal(found, (torch.from_numpy(grey) / 255).expand(3, -1, -1))
    clear = np.zeros((2, 2, 4), np.uint8)
    assert torch.equal(as_image(clear), torch.ones(3, 2, 2))
    assert torch.equal(as_image(clear), twofold.read_image(Image.fromarray(clear)))


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (WANTED * 255, r"from 0 to 255; an image is in \[0, 1\]: they look like levels of 8 bits; divide by 255"),
        (FLOATS * 65535, r"they look like levels of 16 bits; divide by 65535"),
        (WANTED * 2 - 1, r"they look like \[-1, 1\]; use \(image \+ 1\) / 2"),
        (WANTED * 1.1, r"if a resize overshot, use image.clip\(0, 1\)"),
        ((WANTED - 0.45) / 0.22, "they look normalised by a mean and a deviation"),
        (WANTED.masked_fill(WANTED > 0.9, float("nan")), "NaN or infinite values; an image is finite"),
        (np.where(FLOATS > 0.9, np.inf, FLOATS), "NaN or infinite values"),
        (LEVELS.transpose(2, 0, 1), r"not \(3, 24, 32\); it looks like c h w; use image.transpose\(1, 2, 0\)"),
        (torch.from_numpy(LEVELS), r"not \(24, 32, 3\); it looks like h w c; use image.permute\(2, 0, 1\)"),
        (torch.from_numpy(LEVELS[..., 0]), r"use image\[None\]"),
        (LEVELS[None, None], "pass one h w c array"),
        (LEVELS.astype(np.int64), r"not int64; for 8-bit levels use image.astype\(np.uint8\)"),
        (LEVELS.astype(np.uint16), "not uint16"),
        (LEVELS > 3, "not bool"),
        (torch.from_numpy(LEVELS.astype(np.int32)).permute(2, 0, 1), r"not int32; .*image.to\(torch.uint8\)"),
        (np.zeros((0, 4, 3), np.uint8), "is empty"),
        ({"image": LEVELS}, "dict is not an image; pass a path, bytes, a PIL image, a numpy array h w 3, or a tensor"),
    ],
)  # fmt: skip
def test_another_range_type_or_layout_is_refused_with_its_remedy(predictor, wrong, reason):
    with pytest.raises(ImageError, match=reason):
        predictor(wrong)


def test_predictors_take_arrays_alone_in_lists_and_as_batches(predictor):
    expected = predictor(PIL).map
    for image in (LEVELS, FLOATS, WANTED):
        torch.testing.assert_close(predictor(image).map, expected, rtol=0, atol=1e-5)
    for many in ([LEVELS, PIL], np.stack([LEVELS, LEVELS]), torch.stack([WANTED, WANTED])):
        found = predictor(many)
        assert isinstance(found, list) and len(found) == 2
        torch.testing.assert_close(found[1].map, expected, rtol=0, atol=1e-5)
    with pytest.raises(ImageError, match="for several images pass it alone"):
        predictor([np.stack([LEVELS, LEVELS])])


def test_img2img_accepts_the_inputs_of_predictors(net):
    draw = ImageGenerator(net, steps=2)
    expected = draw(["a chair"], image=WANTED[None], strength=0.5)
    for like in (PIL, LEVELS, FLOATS, [LEVELS], LEVELS[None], WANTED):
        torch.testing.assert_close(draw("a chair", image=like, strength=0.5), expected, rtol=0, atol=1e-5)
    with pytest.raises(ImageError, match="divide by 255"):
        draw(["a chair"], image=WANTED[None] * 255, strength=0.5)
    with pytest.raises(ImageError, match="one size"):
        draw(["a", "b"], image=[LEVELS, LEVELS[:20]], strength=0.5)


def test_creation_evaluation_and_fid_refuse_other_ranges(net, predictor):
    from dataclasses import replace

    ball = world.sphere(0, 32)
    levels = replace(ball, image=ball.image * 255)
    with pytest.raises(ImageError, match=r"the image of 'ball-0' has values from .* divide by 255"):
        SyntheticDataGenerator(net, {}, GenerationConfig(steps=1)).generate([levels])
    with pytest.raises(ImageError, match="divide by 255"):
        ModelPredictions(predictor)(levels, {})
    with pytest.raises(ImageError, match="a batch of images has values"):
        Features.of([ball.image[None] * 2 - 1], lambda x: x.flatten(1))


# ---- arguments


@pytest.mark.parametrize("size", ["16", 16, np.int64(16)])
def test_a_size_is_a_number_however_it_is_given(predictor, size):
    assert torch.equal(predictor(PIL, size=size).map, predictor(PIL, size=16).map)
    assert predictor(PIL, size=size).settings["size"] == 16
    assert predictor(PIL, size="native").settings["size"] == 0


@pytest.mark.parametrize("size", [-384, 7, 100_000, 10**30, "huge", "", 16.5, True, "-16", [16]])
def test_another_size_is_refused(predictor, size):
    with pytest.raises(ValueError, match="expected a number of pixels from 8 to 8192, or 'native'"):
        predictor(PIL, size=size)


@pytest.mark.parametrize("seed", [1.5, "one", None, [0.5]])
def test_another_seed_is_refused(predictor, seed):
    with pytest.raises(ValueError, match="expected an integer"):
        predictor(PIL, seed=seed)


def test_numpy_seeds_are_seeds(predictor):
    assert predictor([PIL, PIL], seed=np.arange(2))[1].settings["seed"] == 1
    assert predictor(PIL, seed=np.int64(3)).settings["seed"] == 3


def test_a_model_is_named_by_a_path_and_placed_by_names(tiny_model):
    expected = twofold.load(str(tiny_model), task="depth")(PIL).map
    ways: tuple[dict[str, Any], ...] = (
        {"name": tiny_model},
        {"name": tiny_model, "device": "auto"},
        {"name": tiny_model, "device": torch.device("cpu"), "dtype": "float32"},
    )
    for arguments in ways:
        assert torch.equal(twofold.load(task="depth", **arguments)(PIL).map, expected)
    assert isinstance(open_model(tiny_model).name, str)
    for name in ("bf16", "bfloat16", "torch.bfloat16", torch.bfloat16):
        weights = next(open_model(tiny_model, dtype=name).backbone.parameters())
        assert weights.dtype == torch.bfloat16
    with pytest.raises(ModelError, match="a string or a path, not 3"):
        open_model(3)  # ty: ignore[invalid-argument-type]


@pytest.mark.parametrize("dtype", ["int8", "float8", torch.int64, "auto"])
def test_another_dtype_is_refused(dtype):
    with pytest.raises(ValueError, match="choose float32, bfloat16 or float16"):
        resolve_dtype(dtype)


@pytest.mark.parametrize(
    ("device", "reason"),
    [
        ("gpu", "choose auto, cpu"),
        ("cuda:", "unknown"),
        ("cuda:9", "torch finds no cuda"),
        ("cpu:3", "use cpu"),
    ],
)
def test_another_device_is_refused(monkeypatch, device, reason):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=reason):
        resolve_device(device)


# ---- what comes back


@pytest.mark.parametrize("task", [*TASKS, "semantic[3]", "semantic_logits[sky,ground]"])
def test_a_prediction_can_be_pickled_and_copied(task):
    known = get_task(task)
    made = Prediction(known, torch.rand(known.channels, 4, 5), torch.rand(3, 4, 5), {"model": "x"}, "s")
    for again in (pickle.loads(pickle.dumps(made)), copy.deepcopy(made), copy.copy(made)):
        assert torch.equal(again.map, made.map) and again.settings == made.settings
        assert again.task.name == known.name and again.task.classes == known.classes
        assert task not in TASKS or again.task is known
    assert made in [made] and made not in [copy.copy(made)]
    assert len({made, copy.copy(made)}) == 2


def test_a_prediction_can_come_from_another_process(tiny_model):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.apply(_predicted, (str(tiny_model),))
    torch.testing.assert_close(found.map, _predicted(str(tiny_model)).map, rtol=0, atol=1e-4)


def _predicted(model: str) -> Prediction:
    return twofold.load(model, task="depth")(LEVELS)


def test_reprs_are_one_short_line(tiny_model, net):
    model = open_model(tiny_model)
    predictor = model.predictor("normals")
    things: list[Any] = [
        model, predictor, predictor(PIL), ModulePredictor(Own(), TASKS["depth"]), ImageGenerator(net), TASKS["depth"],
        world.sphere(0, 32),
    ]  # fmt: skip
    for thing in things:
        text = repr(thing)
        assert "\n" not in text and 10 < len(text) < 240, text
        assert type(thing).__name__ in text
    assert "depth, normals" in repr(model)
    assert "task='normals'" in repr(predictor) and "float32 on cpu" in repr(predictor)
    assert "32x24 pixels, normals, frame=RUB, -" in repr(predictor(PIL))
    nothing = Prediction(TASKS["depth"], torch.full((1, 2, 2), torch.nan), torch.zeros(3, 2, 2))
    assert "no finite value" in repr(nothing)


def test_a_notebook_shows_image_and_map():
    for height, width in ((24, 32), (900, 1400)):
        made = Prediction(TASKS["depth"], torch.rand(1, height, width), torch.rand(3, height, width))
        with Image.open(io.BytesIO(made._repr_png_())) as shown:
            assert shown.format == "PNG"
            assert shown.width > 1.9 * min(width, 640) and shown.height < 700


# ---- types and help


def _public() -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name in (n for n in twofold.__all__ if n != "__version__"):
        value = getattr(twofold, name)
        if inspect.isclass(value):
            for key, member in vars(value).items():
                function = (
                    member.fget if isinstance(member, property) else getattr(member, "__wrapped__", member)
                )
                if inspect.isfunction(function) and (not key.startswith("_") or key == "__call__"):
                    found.append((f"{name}.{key}", function))
        elif inspect.isfunction(value):
            found.append((name, value))
    painter = twofold.DiffusionPredictor.__mro__[1]
    return [
        *found,
        ("DiffusionPredictor.__call__", painter.__call__),
        ("ImageGenerator.__call__", ImageGenerator.__call__),
    ]


@pytest.mark.parametrize(("name", "function"), _public())
def test_public_functions_have_return_types(name, function):
    hints = typing.get_type_hints(function)
    assert "return" in hints, f"{name} has no return type"
    assert hints["return"] is not Any, f"{name} returns Any"


def test_help_names_everything_and_its_arguments():
    text = pydoc.plain(pydoc.render_doc(twofold))
    for name in (n for n in twofold.__all__ if n != "__version__"):
        assert name in text
    loading = pydoc.plain(pydoc.render_doc(twofold.load))
    assert "device: device of the weights" in loading and len(loading.splitlines()) < 60
    assert "size: longest edge that images are resized to" in pydoc.plain(
        pydoc.render_doc(twofold.DiffusionPredictor.__call__)
    )


def test_bfloat16_is_fast_with_matrix_instructions_only(monkeypatch):
    assert has_fast_bfloat16("cuda")
    for found, fast in (({"avx2": True}, False), ({"amx_bf16": True}, True), ({"avx512_bf16": True}, True)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=found: found, raising=False)
        assert has_fast_bfloat16("cpu") == fast
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert not has_fast_bfloat16("cpu")
