"""How a batch is split, and whether latents are kept, changes nothing in the weights."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import world
from twofold.backbones import new
from twofold.data.folder import Folder
from twofold.data.writer import FolderWriter
from twofold.io.atomic import host_name
from twofold.sample import Sample
from twofold.tasks import TASKS, Task, keypoints
from twofold.train import (
    DataConfig,
    DenoiserConfig,
    HeadConfig,
    LoopConfig,
    OptimizerConfig,
    Recipe,
    Source,
    ValidationConfig,
    encoder as encoders,
)
from twofold.train.encoder import Encoder, resize_and_crop
from twofold.train.latent_cache import LatentCache
from twofold.train.loop import train

COUNT = 4  # samples


def holed(seed: int) -> Sample:
    """A ball with holes in its labels: none, a few, most, all but a corner."""
    ball = world.sphere(seed, 32)
    keep = torch.rand(1, 32, 32, generator=torch.Generator().manual_seed(seed)) < (1, 0.97, 0.4, 0)[seed % 4]
    keep[..., :9, :9] = True
    ids = (ball.targets["depth"] < 1.9).float() * 5 + (torch.arange(32) // 12)
    targets = {**ball.targets, "semantic": ids}
    valid = dict.fromkeys(targets, keep)
    return replace(ball, targets={n: torch.where(keep, t, 0) for n, t in targets.items()}, valid=valid)


def joints(seed: int) -> dict:
    """Of a row: 17 joints, every third not labelled."""
    places = (torch.rand(17, 2, generator=torch.Generator().manual_seed(seed)) * 31).tolist()
    return {"points": [[x, y, 2 * (k % 3 > 0)] for k, (x, y) in enumerate(places)]}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("batches") / "holed"
    writer = FolderWriter(root, {"name": "holed", "targets": {"depth": {}, "normals": {}, "semantic": {}}})
    for seed in range(COUNT):
        writer.write(holed(seed))
    writer.finish()
    rows = [json.loads(line) for line in (root / "metadata.jsonl").read_text().splitlines()]
    for seed, row in enumerate(rows):
        row["targets"]["keypoints"] = joints(seed)
    (root / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


@pytest.fixture
def recipe(data) -> Recipe:
    return Recipe(
        name="batches",
        model=DenoiserConfig(head=HeadConfig(name="light"), pixel_loss_weight=1.0),
        data=DataConfig(
            sources=(Source(path=str(data)),),
            size=(24, 24),
            task_weights={"image": 1.0, "depth": 2.0, "normals": 1.0},
        ),
        optimizer=OptimizerConfig(lr=1e-3, warmup_steps=0),
        loop=LoopConfig(steps=1, batch_size=8),
        validation=ValidationConfig(every=0),
    )


def trained(recipe: Recipe, run: Path) -> tuple[dict[str, torch.Tensor], list[dict]]:
    """Weights and records after a run from the same tiny network."""
    net, heads = new.tiny(), {}
    records = list(train(net, recipe, run, heads))
    parts = {**net.components(), **heads}
    return {f"{k}.{n}": v for k, m in parts.items() for n, v in m.state_dict().items()}, records


def apart(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    assert a.keys() == b.keys()
    return max(float((a[k].double() - b[k].double()).abs().max()) for k in a)


@pytest.mark.parametrize("micros, change", [
    ((2, 3, 8), {}),
    ((3,), {
        "model": {"head": {"name": "latent"}, "latent_loss_weight": 0.0},
        "loss": {"depth": {"ssi": 1.0, "gradient": 1.0}},
    }),
    ((5,), {
        "model": {"pixel_loss_weight": 0.0, "head": {"name": "latent"}},
        "data": {"block_size": 3, "task_weights": {"image": 1.0, "depth": 1.0}},
        "loop": {"steps": 2},
    }),
])  # fmt: skip
def test_a_batch_in_parts_is_the_whole_batch(recipe, micros, change, tmp_path):
    """Of a mixture, with labels that have holes in some samples and none in others; losses are logged alike.

    Adam divides a gradient by its own size, so that rounding errors of a gradient of nearly 0 would become whole
    steps: eps is raised to what leaves them the rounding errors they are.
    """
    plan = recipe.replace(optimizer={"eps": 1e-3}).replace(**change)
    whole, records = trained(plan, tmp_path / "whole")
    for micro in micros:
        parts, others = trained(plan.replace(loop={"micro_batch_size": micro}), tmp_path / str(micro))
        assert apart(parts, whole) < 1e-6
        for a, b in zip(records, others, strict=True):
            record = {k for k, v in a.items() if isinstance(v, float)} - {"seconds"}
            assert record > {"loss", "norm", "lr"}
            assert all(a[k] == pytest.approx(b[k], rel=1e-4) for k in record)
    start = new.tiny().components()
    moved = [
        float((whole[f"{k}.{n}"] - v).abs().max())
        for k, m in start.items()
        for n, v in m.state_dict().items()
    ]
    assert max(moved) > 1e-4, "or nothing was learned, and all of this says nothing"


@pytest.mark.parametrize("change", [
    {"model": {"head": {"name": "latent"}}, "data": {"size": (16, 16)}},
    {"model": {"head": {"name": "keypoint"}, "latent_loss_weight": 0.0}, "data": {"task_weights": {"keypoints": 1.0}}},
    {
        "model": {"head": {"name": "upernet"}, "latent_loss_weight": 0.0},
        "data": {"task_weights": {"semantic_logits": 1.0, "image": 1.0}},
    },
])  # fmt: skip
def test_kept_latents_are_those_that_would_be_made(recipe, change, tmp_path):
    """Bit for bit, with losses on pixels too, of targets that are images, class ids and heatmaps."""
    plan = recipe.replace(loop={"steps": 3, "batch_size": 2}).replace(**change)
    kept, records = trained(plan, tmp_path / "kept" / "run")
    made, others = trained(plan.replace(data={"cache_latents": False}), tmp_path / "made" / "run")
    assert [r["loss"] for r in records] == [r["loss"] for r in others]
    assert apart(kept, made) == 0
    assert (tmp_path / "kept" / "latents").is_dir()
    assert not (tmp_path / "made" / "latents").exists()


@pytest.fixture
def calls(monkeypatch) -> list[tuple[int, ...]]:
    """The calls of the autoencoder."""
    arguments: list[tuple[int, ...]] = []
    encode = encoders.encode_canvases

    def counted(backbone, canvases):
        arguments.extend(tuple(x.shape) for x in canvases)
        return encode(backbone, canvases)

    monkeypatch.setattr(encoders, "encode_canvases", counted)
    return arguments


def test_nothing_is_encoded_twice(recipe, tmp_path, calls):
    """A run's neighbour finds the latents; what a killed process left half written beside them is cleared away."""
    plan = recipe.replace(loop={"steps": 1, "batch_size": 2})
    trained(plan, tmp_path / "first")
    assert len(calls) == COUNT * 2 * 3, "both mirror images of a picture and two targets"
    calls.clear()
    (shelf,) = (tmp_path / "latents").iterdir()
    (shelf / f".tmp-{host_name()}-999999999-0000abcd.safetensors").write_bytes(b"half of a latent")
    limited = (plan.data.sources[0].model_copy(update={"limit": 3}),)
    trained(
        plan.replace(
            data={"task_weights": {"normals": 3.0, "depth": 0.1}, "sources": limited}, optimizer={"lr": 0.5}
        ),
        tmp_path / "second",
    )
    assert not calls
    assert len(list(shelf.iterdir())) == COUNT


def test_without_a_cache_only_trained_targets_are_encoded(recipe, tmp_path, calls):
    """An example of depth does not need the latents of the normals."""
    trained(recipe.replace(data={"cache_latents": False}, loop={"steps": 1}), tmp_path / "run")
    assert len(calls) == 2 + 2 * (4 + 2), "pictures alone of 2, and 6 with one target each"


def store(folder: Path, names: dict[str, Task], cache: Path, **how: Any) -> LatentCache:
    output: dict[str, Any] = {
        "latent": True,
        "pixels": True,
        "size": (24, 24),
        "resample": "bilinear",
        "spelled": "",
        **how,
    }
    size, resample, spelled = (output.pop(k) for k in ("size", "resample", "spelled"))
    encoder = Encoder(output.pop("net", new.tiny()), names, **output)
    kept = Folder(folder, targets=tuple(t.target for t in names.values()))
    return LatentCache(encoder, kept, size, resample, cache, spelled)


def given(x: torch.Tensor | None) -> torch.Tensor:
    """What a part may lack, and does not here."""
    assert x is not None
    return x


def prepared(*args: Any, **how: Any) -> LatentCache:
    """A store with all of its folder in it."""
    kept = store(*args, **how)
    for i in range(COUNT):
        write(kept, i)
    return kept


def write(kept: LatentCache, i: int) -> None:
    """Encode one sample."""
    kept.write([(i, kept.prepare(i))])


@pytest.mark.parametrize("change", [
    {"size": (16, 24)}, {"resample": "nearest"}, {"spelled": "genpercept"}, {"latent": False}, {"pixels": False},
    {"keep_image": True}, {"net": new.tiny(seed=1)}, {"names": {"depth": TASKS["depth"]}},
    {"names": {"depth": TASKS["disparity"], "normals": TASKS["normals"]}},
])  # fmt: skip
def test_latents_of_other_settings_are_not_taken(data, change, tmp_path, calls):
    names = {"depth": TASKS["depth"], "normals": TASKS["normals"]}
    first = store(data, names, tmp_path)
    write(first, 0)
    arguments: dict[str, Any] = {"names": names, "cache": tmp_path, **change}
    other = store(data, **arguments)
    calls.clear()
    write(other, 0)
    assert calls
    assert other.root != first.root
    write(store(data, names, tmp_path), 0)
    assert len(list(first.root.iterdir())) == 1, "the first is found again"


def test_a_changed_file_is_encoded_again_and_it_alone(data, tmp_path, calls):
    """Image, target or row of a sample; and all of them if the header changes the meaning of their numbers.

    Also for files outside of the folder, as those of converted data sets.
    """
    shutil.copytree(data, tmp_path / "files")
    (tmp_path / "rows").mkdir()
    header = json.loads((data / "dataset.json").read_text())
    output = {**header, "root": str(tmp_path / "files")}
    (tmp_path / "rows" / "dataset.json").write_text(json.dumps(output))
    shutil.copy(data / "metadata.jsonl", tmp_path / "rows")
    for folder, files in ((tmp_path / "files", tmp_path / "files"), (tmp_path / "rows", tmp_path / "files")):
        cache = tmp_path / "cache" / folder.name

        def encoded(folder=folder, cache=cache) -> int:
            calls.clear()
            prepared(folder, {"depth": TASKS["depth"]}, cache)
            return len(calls) // 4

        assert encoded() == COUNT
        assert encoded() == 0
        os.utime(files / "image" / "ball-3.png")
        assert encoded() == 1
        os.utime(next((files / "depth").glob("ball-1.*")))
        assert encoded() == 1
        os.utime(next((files / "normals").glob("ball-2.*")))
        assert encoded() <= 1, "of a target that is not taught"
        text = (folder / "metadata.jsonl").read_text()
        (folder / "metadata.jsonl").write_text(text.replace("ball-2.png", "ball-1.png"))
        assert encoded() == 1
        header = json.loads((folder / "dataset.json").read_text())
        header["targets"]["depth"]["scale"] *= 2
        (folder / "dataset.json").write_text(json.dumps(header))
        assert encoded() == COUNT


def test_canvases_come_back_as_they_were(data, tmp_path):
    """Images, class ids, heatmaps with their -1, and bytes of the image itself, mirrored and not."""
    names = {t: TASKS[t] for t in ("depth", "normals", "semantic", "semantic_logits", "keypoints")}
    kept = store(data, names, tmp_path, latent=False, keep_image=True)
    for i in range(COUNT):
        write(kept, i)
        sample = resize_and_crop(kept.folder[i], (24, 24), 8)
        for mirrored in (False, True):
            made, found = world.encoded(kept.encoder, sample, mirrored), kept.read(i, mirrored)
            assert found.caption == made.caption == "a ball before a wall"
            assert torch.equal(found.image, made.image)
            assert torch.equal(given(found.image_uint8), given(made.image_uint8))
            for name in names:
                a, b = found.targets[name], made.targets[name]
                assert torch.equal(given(a.canvas), given(b.canvas)), name
                assert torch.equal(given(a.known), given(b.known)), name
    targets = kept.read(1, False).targets
    assert {0.0, 1.0, 6.0} < set(given(targets["semantic_logits"].canvas).unique().tolist())
    heatmaps = given(targets["keypoints"].canvas)
    assert heatmaps.shape == (17, 24, 24)
    assert set(heatmaps[::3].unique().tolist()) == {-1.0}


def test_three_heatmaps_that_are_alike_stay_three(tmp_path):
    """Three equal channels are stored as one for images only."""
    task = replace(keypoints, name="joints", target_key="joints", channels=3, flip=lambda x: x.flip(-1))
    writer = FolderWriter(tmp_path / "data", {"name": "joints", "targets": {"joints": {"codec": "npy"}}})
    ball = world.sphere(0, 32)
    alike = torch.rand(1, 32, 32).expand(3, -1, -1).contiguous()
    writer.write(replace(ball, targets={"joints": alike}, valid={"joints": ball.valid["depth"]}))
    writer.finish()
    kept = store(tmp_path / "data", {"joints": task}, tmp_path, latent=False)
    write(kept, 0)
    found = given(kept.read(0, True).targets["joints"].canvas)
    made = world.encoded(kept.encoder, resize_and_crop(kept.folder[0], (24, 24), 8), True).targets["joints"]
    assert found.shape == (3, 24, 24) and torch.equal(found, given(made.canvas))
