"""The tutorials: valid notebooks without stored outputs, whose code runs in the order of the documentation."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "tutorials"
# In the order of the documentation: later ones use what earlier ones wrote.
ORDER = ("predict", "fine_tune_masks", "evaluate", "create_and_improve")


def code_cells(name: str) -> list[str]:
    notebook = json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_all_notebooks_are_listed():
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(ORDER)


@pytest.mark.parametrize("name", ORDER)
def test_a_notebook_compiles_and_has_no_outputs(name):
    notebook = json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        assert not cell.get("outputs"), name
    for text in code_cells(name):
        ast.parse(text)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_tutorials_run_in_order(tmp_path, monkeypatch):
    pytest.importorskip("skimage")
    monkeypatch.chdir(tmp_path)
    for name in ORDER:
        scope: dict[str, Any] = {"__name__": "__main__"}
        for number, text in enumerate(code_cells(name)):
            exec(compile(text, f"{name}.ipynb, code cell {number}", "exec"), scope)
