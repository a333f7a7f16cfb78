"""Broken samples: the run stops with one line that names the first, or skips them with a report."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import world
from twofold.backbones import new
from twofold.cli.main import run
from twofold.data.writer import FolderWriter
from twofold.image import write_image
from twofold.train import (
    DataConfig,
    DenoiserConfig,
    LoopConfig,
    OptimizerConfig,
    Recipe,
    Source,
    ValidationConfig,
)
from twofold.train.encoder import BadSample
from twofold.train.loop import train

SOUND = ("ball-0", "ball-7")
# How each of the others is broken, and the expected message.
BROKEN = {
    "ball-1": "image",
    "ball-2": "does not exist",
    "ball-3": "16x24, the image 16x16",
    "ball-4": "depth has no valid pixel",
    "ball-5": "classes are 0 to 37",
    "ball-6": "normals has no valid pixel",
}
MODES = {"kept": {}, "not kept": {"data": {"cache_latents": False}}, "augmented": {"data": {"augment": True}}}


def break_them(root: Path) -> None:
    """Each of `BROKEN` in its own way."""
    photo = root / "image" / "ball-1.png"
    photo.write_bytes(photo.read_bytes()[:200])
    (root / "depth" / "ball-2.npy").unlink()
    np.save(root / "depth" / "ball-3.npy", np.ones((16, 24), np.float32))
    np.save(root / "depth" / "ball-4.npy", np.zeros((16, 16), np.float32))
    np.save(root / "semantic" / "ball-5.npy", np.full((16, 16), 77, np.int32))
    np.save(root / "normals" / "ball-6.npy", np.full((16, 16, 3), np.nan, np.float32))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("broken") / "balls"
    codecs = {"codec": "npy"}
    named = {"depth": codecs, "normals": {**codecs, "frame": "RUB"}, "semantic": codecs}
    writer = FolderWriter(root, {"name": "balls", "targets": named})
    for seed in range(8):
        ball = world.sphere(seed, 16)
        targets = {**ball.targets, "semantic": (ball.targets["depth"] < 1.9).float()}
        writer.write(replace(ball, targets=targets, valid=dict.fromkeys(targets, ball.valid["depth"])))
    writer.finish()
    break_them(root)
    return root


def part(data: Path, folder: Path, *ids: str) -> Source:
    """A folder of some of the samples, whose files stay where they are."""
    folder.mkdir()
    header = json.loads((data / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps({**header, "root": str(data)}))
    lines = (data / "metadata.jsonl").read_text().splitlines(keepends=True)
    (folder / "metadata.jsonl").write_text("".join(x for x in lines if json.loads(x)["id"] in ids))
    return Source(path=str(folder))


@pytest.fixture
def recipe(data, tiny_model) -> Recipe:
    return Recipe(
        name="broken",
        model=DenoiserConfig(init_from=str(tiny_model)),
        data=DataConfig(
            sources=(Source(path=str(data)),),
            size=(16, 16),
            task_weights={"depth": 1.0, "normals": 1.0, "semantic": 1.0},
        ),
        optimizer=OptimizerConfig(warmup_steps=0),
        loop=LoopConfig(steps=3, batch_size=3),
        validation=ValidationConfig(every=0),
    )


def trained(recipe: Recipe, folder: Path, *options: str) -> int:
    """`twofold train`, as a person calls it."""
    folder.mkdir(parents=True, exist_ok=True)
    recipe.save(folder / "recipe.json")
    return run(
        ["train", str(folder / "recipe.json"), "--out", str(folder / "run"), "--tracker", "none", *options]
    )


def one_line(capsys) -> str:
    """Standard error without progress bars."""
    output = [
        x for x in capsys.readouterr().err.replace("\r", "\n").splitlines() if x.startswith("twofold: ")
    ]
    assert len(output) == 1
    return output[0]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("id", BROKEN)
def test_a_broken_sample_stops_the_run_by_its_name(recipe, data, mode, id, tmp_path, capsys):
    """Among sound ones, in every way of making examples; nothing is trained on what is left of it."""
    plan = recipe.replace(data={"sources": (part(data, tmp_path / "balls", id, *SOUND),)}).replace(
        **MODES[mode]
    )
    assert trained(plan, tmp_path) == 2
    output = one_line(capsys)
    assert id in output
    assert BROKEN[id] in output
    assert "--skip-bad" in output
    assert not (tmp_path / "run" / "checkpoint").exists()


@pytest.mark.parametrize("mode", MODES)
def test_broken_samples_are_skipped_and_listed_with_the_option(recipe, mode, tmp_path, capsys):
    assert trained(recipe.replace(**MODES[mode]), tmp_path, "--skip-bad") == 0
    out = capsys.readouterr().out
    assert f"skipped {len(BROKEN)} unusable samples: {tmp_path / 'run' / 'skipped.jsonl'}" in out
    listed = [json.loads(line) for line in (tmp_path / "run" / "skipped.jsonl").read_text().splitlines()]
    assert [row["sample"] for row in listed] == [f"balls/{id}" for id in BROKEN]
    for row in listed:
        assert BROKEN[row["sample"].split("/")[1]] in row["why"]
        assert "\n" not in row["why"]
    assert (tmp_path / "run" / "checkpoint").is_dir()


def test_a_run_that_was_stopped_goes_on_without_the_broken(recipe, data, tmp_path, capsys):
    """In the same folder, as the message advises."""
    plan = recipe.replace(
        data={"sources": (part(data, tmp_path / "balls", "ball-2", *SOUND),)}, loop={"steps": 1}
    )
    assert trained(plan, tmp_path) == 2
    assert trained(plan, tmp_path, "--skip-bad") == 0
    assert "skipped 1 unusable sample" in capsys.readouterr().out
    assert trained(plan.replace(loop={"steps": 2}), tmp_path, "--skip-bad") == 2
    assert "another recipe" in one_line(capsys)


@pytest.mark.parametrize("mode", MODES)
def test_a_folder_with_only_broken_samples_is_an_error(recipe, data, mode, tmp_path, capsys):
    plan = recipe.replace(data={"sources": (part(data, tmp_path / "balls", *BROKEN),)}).replace(**MODES[mode])
    assert trained(plan, tmp_path, "--skip-bad") == 2
    assert re.search(r"no sample of .*balls can be used", one_line(capsys))


def test_broken_samples_for_validation_are_met_before_training(recipe, data, tmp_path, capsys):
    """Not when the first validation comes."""
    sound = part(data, tmp_path / "sound", *SOUND)
    held = part(data, tmp_path / "held", "ball-0", "ball-2")
    plan = recipe.replace(
        data={"sources": (sound,)}, loop={"steps": 1}, validation={"data": held.path, "every": 1}
    )
    assert trained(plan, tmp_path) == 2
    assert "ball-2" in one_line(capsys)
    assert not (tmp_path / "run" / "state.pt").exists()
    assert trained(plan, tmp_path / "again", "--skip-bad") == 0
    assert "skipped 1 unusable sample" in capsys.readouterr().out


def test_a_list_of_an_interrupted_run_does_not_outlive_the_repair(recipe, data, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "skipped.jsonl").write_text(
        '{"sample": "balls/ball-0", "why": "it was broken once"}\n'
    )
    plan = recipe.replace(
        data={"sources": (Source(path=str(data), limit=1),)}, loop={"steps": 1, "batch_size": 1}
    )
    assert trained(plan, tmp_path, "--skip-bad") == 0
    assert "left out" not in capsys.readouterr().out


def test_a_crop_without_valid_pixels_has_no_loss(recipe, tmp_path):
    """A sample that is valid in one corner only is usable, for any crop."""
    ball = world.sphere(0, 64)
    corner = torch.zeros(1, 64, 64, dtype=torch.bool)
    corner[:, :6, :6] = True
    writer = FolderWriter(tmp_path / "corner", {"name": "corner", "targets": {"depth": {}, "semantic": {}}})
    targets = {"depth": torch.where(corner, ball.targets["depth"], 0), "semantic": corner.float()}
    writer.write(replace(ball, targets=targets, valid={"depth": corner, "semantic": corner}))
    writer.finish()
    plan = recipe.replace(
        model={"init_from": "new", "pixel_loss_weight": 1.0},
        data={
            "sources": (Source(path=str(tmp_path / "corner")),),
            "augment": True,
            "task_weights": {"depth": 1.0, "semantic": 1.0},
        },
        loop={"steps": 8, "batch_size": 1},
    )
    losses = [r["loss"] for r in train(new.tiny(), plan, tmp_path / "run")]
    assert min(losses) == 0 < max(losses)


def mask_folder(root, level: int, count: int = 3, odd: int | None = None):
    """``count`` images with one mask each that is ``level`` everywhere; ``odd`` in a corner of the last."""
    rows = []
    root.mkdir(parents=True)
    for i in range(count):
        write_image(root / f"{i}.png", torch.rand(3, 64, 64))
        mask = np.full((64, 64), level, np.uint8)
        if odd is not None and i == count - 1:
            mask[:30, :30] = odd
        Image.fromarray(mask).save(root / f"{i}_mask.png")
        rows.append({"file_name": f"{i}.png", "targets": {"mask": {"path": f"{i}_mask.png"}}})
    (root / "dataset.json").write_text(json.dumps({"targets": {"mask": {"codec": "png8", "threshold": 128}}}))
    (root / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


@pytest.mark.parametrize("augment", [True, False])
@pytest.mark.parametrize(
    ("level", "odd", "words"),
    [
        (0, None, "of 3 mask labels 3 are empty .* 0 full"),
        (255, None, "0 are empty .* 3 full"),
        (0, 255, ""),
    ],
)
def test_masks_without_contrast_are_refused_before_training(recipe, level, odd, words, augment, tmp_path):
    root = mask_folder(tmp_path / "masks", level, odd=odd)
    plan = recipe.replace(
        model={"init_from": "new"},
        data={"sources": (Source(path=str(root)),), "augment": augment, "task_weights": {"mask": 1.0}},
        loop={"steps": 2, "batch_size": 1},
        validation={"best_metric": ""},
    )
    if not words:
        assert len(list(train(new.tiny(), plan, tmp_path / "run"))) >= 2
        return
    with pytest.raises(BadSample, match=f"mask cannot be trained.*{words}"):
        list(train(new.tiny(), plan, tmp_path / "run"))
    both = plan.replace(
        data={"sources": (Source(path=str(mask_folder(tmp_path / "good", 0, odd=255))), *plan.data.sources)}
    )
    with pytest.warns(UserWarning, match=f"masks: .*{words}"):
        list(train(new.tiny(), both, tmp_path / "both"))


def test_masks_of_0_and_1_stop_training_by_their_name(recipe, tmp_path):
    root = mask_folder(tmp_path / "masks", 0, odd=1, count=1)
    plan = recipe.replace(
        model={"init_from": "new"},
        data={"sources": (Source(path=str(root)),), "task_weights": {"mask": 1.0}},
        loop={"steps": 2, "batch_size": 1},
        validation={"best_metric": ""},
    )
    with pytest.raises(BadSample, match=r"0_mask\.png: it has values 0 and 1 in 8 bits"):
        list(train(new.tiny(), plan, tmp_path / "run"))
