"""What holds for every target's specification: storage, mirroring and resizing agree with each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from twofold.data.codecs import DEFAULT_CODECS, write_target
from twofold.data.targets import read_label
from twofold.geometry import unit
from twofold.targets import TARGETS, TargetSpec, target_spec
from twofold.targets.ids import Ids
from twofold.tasks import TASKS

SIZE = (6, 8)


def values(spec: TargetSpec, size: tuple[int, int] = SIZE) -> torch.Tensor:
    """Possible values of a target, exact in its default storage."""
    rng = torch.Generator().manual_seed(0)
    x = torch.rand(spec.channels or 1, *size, generator=rng)
    if spec.is_direction:
        return unit(x - 0.5)
    if spec.is_distance:
        return 0.002 * (1 + (x * 1000).round())
    if spec.is_ids or not spec.is_interpolable:
        return (x * 5).floor() if spec.is_ids else x.round()
    return (x * 65535).round() / 65535


@pytest.mark.parametrize("spec", TARGETS.values(), ids=list(TARGETS))
def test_mirroring_twice_changes_nothing(spec):
    x = values(spec)
    assert torch.equal(spec.flip(spec.flip(x)), x)
    assert not torch.equal(spec.flip(x), x)


@pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
def test_a_task_mirrors_its_target_as_the_target_s_specification_does(task):
    x = values(TARGETS[task.target])
    assert torch.equal(task.flip(x), TARGETS[task.target].flip(x))


@pytest.mark.parametrize("spec", TARGETS.values(), ids=list(TARGETS))
def test_resizing_gives_possible_values_and_ignores_invalid_ones(spec):
    x, valid = values(spec), torch.ones(1, *SIZE, dtype=torch.bool)
    valid[..., :4] = False
    resized, mask = spec.resize(x, valid, (12, 16))
    changed, _ = spec.resize(torch.where(valid, x, 7.0), valid, (12, 16))
    assert torch.equal(resized, changed)
    assert mask.any() and not mask.all() and not resized[~mask.expand_as(resized)].any()
    spec.check(resized, mask)
    if not spec.is_interpolable:
        assert set(resized.unique().tolist()) <= {0.0, *x.unique().tolist()}


@pytest.mark.parametrize("name", DEFAULT_CODECS)
def test_the_default_storage_is_read_back(name: str, tmp_path: Path):
    spec = TARGETS[name]
    x, valid = values(spec), torch.ones(1, *SIZE, dtype=torch.bool)
    if {"ignore", "invalid"} & set(DEFAULT_CODECS[name]):
        valid[..., 0] = False
    x = torch.where(valid, x, 0.0)
    path = write_target(tmp_path / name, name, x, valid, DEFAULT_CODECS[name])
    found, known = read_label(path, name, DEFAULT_CODECS[name])
    assert torch.equal(known, valid)
    torch.testing.assert_close(found, x, rtol=0, atol=5e-4 if spec.is_direction else 1e-6)


def test_an_enlarged_scene_is_nearer():
    x = values(TARGETS["depth"])
    assert torch.equal(TARGETS["depth"].zoom(x, 2.0), x / 2)
    assert torch.equal(TARGETS["normals"].zoom(x, 2.0), x)


@dataclass(frozen=True)
class Levels(Ids):
    """A kind of its own: ids that are stored in tens."""

    def decode(self, stored: Any, how: Any, camera: Any) -> tuple[torch.Tensor, torch.Tensor]:
        ids, valid = super().decode(stored, how, camera)
        return ids / 10, valid

    def encode(self, target: torch.Tensor, valid: torch.Tensor, how: Any) -> torch.Tensor:
        return super().encode(target * 10, valid, how)


def test_a_new_kind_is_one_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    spec = Levels("floors", 1, "floor", "number of the floor", False, {"codec": "png16", "ignore": [65535]})
    monkeypatch.setitem(TARGETS, "floors", spec)
    x, valid = values(spec), torch.ones(1, *SIZE, dtype=torch.bool)
    path = write_target(tmp_path / "floors", "floors", x, valid, spec.storage)
    found, _ = read_label(path, "floors", spec.storage)
    assert torch.equal(found, x)
    assert torch.equal(read_label(path, "semantic", spec.storage)[0], x * 10)
    assert target_spec("unknown").channels == 0
