"""What is opened when results exist already: no weights are loaded where nothing is left to predict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from twofold.cli import predict as command
from twofold.cli.main import run


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The device of each model that the command opens."""
    found: list[str] = []
    open_predictors = command.open_predictors

    def recorded(*options: Any) -> Any:
        predictors, device = open_predictors(*options), options[-1]
        found.append(device)
        for predictor in predictors.values():
            assert {p.device.type for p in predictor.parameters()} == {device}
        return predictors

    monkeypatch.setattr(command, "open_predictors", recorded)
    return found


def image(path: Path, seed: int) -> str:
    levels = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    Image.fromarray(levels).save(path)
    return str(path)


def test_a_finished_folder_loads_no_weights(
    tmp_path: Path, tiny_model: Path, devices: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    given = [image(tmp_path / "a.png", 0)]
    options = ["--model", str(tiny_model), "--out", str(tmp_path / "out"), "--device", "cpu", "--json"]

    def statuses() -> list[str]:
        capsys.readouterr()
        assert run(["predict", *given, *options]) == 0
        return [json.loads(line)["status"] for line in capsys.readouterr().out.splitlines()]

    assert statuses() == ["done"]
    assert devices == ["cpu"]
    devices.clear()
    assert statuses() == ["kept"]
    assert devices == ["meta"]
    devices.clear()
    given.append(image(tmp_path / "b.png", 1))
    assert statuses() == ["kept", "done"]
    assert devices == ["meta", "cpu"]
