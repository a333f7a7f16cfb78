"""End to end on small scenes with exact normals: a warm-up trains, self-improving continues with few labels.

The network is tiny and random and only its head is trained. So this tests that the stages fit together, and that what
they ask of one another can be learned from; it does not say that created pictures are worth anything, which a generator
that has learned nothing cannot show.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import world
from twofold.backbones import new
from twofold.checkpoints import ModelSettings, save_model
from twofold.data.folder import Folder
from twofold.data.writer import FolderWriter
from twofold.generate import GenerationConfig
from twofold.train import (
    DataConfig,
    DenoiserConfig,
    EmaConfig,
    HeadConfig,
    LoopConfig,
    OptimizerConfig,
    Recipe,
    Source,
    ValidationConfig,
)
from twofold.train.improve import improve
from twofold.train.improvement import Improvement
from twofold.train.run import run_recipe

SETTINGS = GenerationConfig(strength=0.3, steps=2, guidance=1.0, scoring="cheap")


def recipe(root: Path, balls: int, **changes: Any) -> Recipe:
    """Normals of so many balls by a light head, scored on eight others."""
    save_model(new.tiny(), ModelSettings(name="tiny", size=32), root / "model", torch.float32)
    world.folder(root / "balls", balls, 32)
    writer = FolderWriter(root / "held-out", {"name": "held-out", "targets": {"depth": {}, "normals": {}}})
    for seed in range(100, 108):
        writer.write(world.sphere(seed, 32))
    writer.finish()
    made = Recipe(
        name="warm",
        model=DenoiserConfig(
            init_from=str(root / "model"),
            unet="frozen",
            text_encoder="frozen",
            head=HeadConfig(name="light"),
            latent_loss_weight=0.0,
            pixel_loss_weight=1.0,
        ),
        data=DataConfig(
            task_weights={"normals": 1.0}, size=(32, 32), sources=(Source(path=str(root / "balls")),)
        ),
        optimizer=OptimizerConfig(lr=5e-3, warmup_steps=0),
        ema=EmaConfig(decay=0.9),
        loop=LoopConfig(batch_size=8, save_every=0),
        validation=ValidationConfig(data=str(root / "held-out"), every=0),
    )
    return made.replace(**changes)


def mean_angle(events: list[dict[str, Any]]) -> float:
    """Degrees on the held-out balls after the last step."""
    return [e for e in events if "validation" in e][-1]["validation"]["normals/mean"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_self_improving_with_three_quarters_of_the_labels_beats_the_warm_up(tmp_path):
    warm = recipe(tmp_path, 64, data={"label_limit": 48}, loop={"steps": 16})
    records = list(run_recipe(warm, tmp_path / "warm"))
    losses = [r["loss"] for r in records]
    assert sum(losses[-4:]) < sum(losses[:4]) / 2
    better = warm.replace(
        name="better",
        model={"init_from": str(tmp_path / "warm" / "checkpoint")},
        optimizer={"lr": 3e-3},
        ema={"decay": 0.95, "update_every": 8},
        loop={"steps": 100},
    )
    plan = Improvement.of(better, generation=SETTINGS, share=0.5)
    events = list(improve(plan, tmp_path / "run"))
    created = Folder(tmp_path / "run" / "round-1" / "created-0")
    labelled = {f"ball-{i}" for i in range(64)} & {world.origin_of(s).parents[0] for s in created}
    assert len(created) == len(labelled) == 48
    print(f"mean angle {mean_angle(records):.2f}, then {mean_angle(events):.2f}")
    assert mean_angle(events) < mean_angle(records)


def manifest(place: Path) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The header of a folder of created samples, and its rows by id."""
    rows = [json.loads(line) for line in (place / "metadata.jsonl").read_text().splitlines()]
    return json.loads((place / "dataset.json").read_text()), {row["id"]: row for row in rows}


def files(place: Path) -> dict[str, bytes]:
    """Every file that is not about the folder as a whole."""
    whole = ("dataset.json", "metadata.jsonl", "rejected.jsonl")
    found = {p.relative_to(place).as_posix(): p for p in place.rglob("*") if p.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if name not in whole}


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> tuple[Improvement, Path]:
    """One round on three balls, and where it is."""
    root = tmp_path_factory.mktemp("plain")
    warm = recipe(root, 3, loop={"steps": 1, "batch_size": 2}, validation={"data": None})
    list(run_recipe(warm, root / "warm"))
    begun = warm.replace(model={"init_from": str(root / "warm" / "checkpoint")}, ema={"update_every": 1})
    plan = Improvement.of(begun, generation=SETTINGS)
    list(improve(plan, root / "run"))
    return plan, root / "run"


def test_another_round_does_not_change_the_first_and_records_its_differences(plain, tmp_path):
    plan, run = plain
    list(improve(plan.model_copy(update={"rounds": 2}), tmp_path / "run"))
    first, second = (tmp_path / "run" / f"round-{n}" / "created-0" for n in (1, 2))
    assert manifest(first) == manifest(run / "round-1" / "created-0")
    assert files(first) == files(run / "round-1" / "created-0")
    weights = "training/checkpoint/heads/normals/model.safetensors"
    assert (tmp_path / "run/round-1" / weights).read_bytes() == (run / "round-1" / weights).read_bytes()
    (one, rows), (two, others) = manifest(first), manifest(second)
    assert {k for k in one if one[k] != two[k]} == {"created"}
    assert {k for k, v in one["created"].items() if two["created"][k] != v} == {"seed", "weights"}
    assert two["created"]["seed"] == plan.generation.seed + 1
    assert rows.keys() == others.keys()
    assert all(r["provenance"]["generator"]["seed"] == 1 for r in others.values())


def test_a_threshold_removes_rows_and_changes_no_sample(plain, tmp_path):
    plan, run = plain
    header, rows = manifest(run / "round-1" / "created-0")
    scores = {k: r["provenance"]["generator"]["scores"]["rms_pixels"] for k, r in rows.items()}
    low, high = sorted(scores.values())[-2:]
    keep = (f"rms_pixels<{(low + high) / 2}",)
    list(improve(plan.model_copy(update={"filters": keep}), tmp_path / "run"))
    place = tmp_path / "run" / "round-1" / "created-0"
    record, kept = manifest(place)
    assert len(kept) == 2
    assert kept == {k: rows[k] for k in kept}
    whole = files(run / "round-1" / "created-0")
    assert {k: whole[k] for k in files(place)} == files(place)
    (rejected,) = [json.loads(line) for line in (place / "rejected.jsonl").read_text().splitlines()]
    assert {rejected["id"]} == rows.keys() - kept.keys()
    assert rejected["provenance"] == rows[rejected["id"]]["provenance"]
    assert {k for k in header if header[k] != record[k]} == {"count", "created"}
    assert {k for k, v in header["created"].items() if record["created"][k] != v} == {"filters"}
