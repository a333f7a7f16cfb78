"""Labels that are all empty, full or one id make any score perfect: the report warns."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from scored import scored, stored
from twofold.cli.main import run as command
from twofold.data.folder import Folder
from twofold.data.writer import FolderWriter
from twofold.evaluate import get_eval_protocol
from twofold.sample import Provenance, Sample

ALL = torch.ones(1, 16, 16, dtype=torch.bool)
HALF = torch.zeros(1, 16, 16)
HALF[..., :8] = 1


def written(root: Path, target: str, labels: list[torch.Tensor]) -> Path:
    classes = {"classes": ["wall", "floor"]} if target == "semantic" else {}
    writer = FolderWriter(root, {"name": "labels", "targets": {target: {}}, **classes})
    for i, label in enumerate(labels):
        image = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(i))
        writer.write(Sample(image, {target: label}, {target: ALL}, id=f"s-{i}", origin=Provenance("real")))
    writer.finish()
    return root


def warnings(data: Path, out: Path, protocol: str) -> list[str]:
    target = get_eval_protocol(protocol).target
    for one in Folder(data):
        stored(out / "predictions", str(one.id), one.targets[target])
    return scored(data, out / "predictions", get_eval_protocol(protocol), out / "evaluation")["warnings"]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([HALF * 0, HALF * 0], "of 2 mask labels 2 are empty"),
        ([HALF * 0 + 1, HALF * 0], "of 2 mask labels 1 are empty (0 everywhere) and 1 full"),
        ([HALF, HALF * 0], ""),
    ],
)
def test_masks(labels, message, tmp_path):
    found = warnings(written(tmp_path / "data", "mask", labels), tmp_path, "dis/pysod")
    assert [message in line for line in found] == ([True] if message else [])


def test_ids(tmp_path):
    found = warnings(written(tmp_path / "one", "semantic", [HALF * 0, HALF * 0]), tmp_path / "a", "seg/miou")
    assert ["all 2 semantic labels hold the id 0" in line for line in found] == [True]
    assert warnings(written(tmp_path / "two", "semantic", [HALF, HALF * 0]), tmp_path / "b", "seg/miou") == []


def test_the_terminal_warns(tmp_path, capsys):
    data = written(tmp_path / "data", "mask", [HALF * 0, HALF * 0])
    for one in Folder(data):
        stored(tmp_path / "predictions", str(one.id), one.targets["mask"])
    arguments = [
        "evaluate",
        "--predictions",
        str(tmp_path / "predictions"),
        "--data",
        str(data),
        "--no-images",
    ]
    assert command([*arguments, "--protocol", "dis/pysod", "--out", str(tmp_path / "out")]) == 0
    assert "warning: of 2 mask labels 2 are empty" in " ".join(capsys.readouterr().out.split())
