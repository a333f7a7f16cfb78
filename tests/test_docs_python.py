"""Every Python program in the documentation compiles, imports what exists, and runs where it is whole."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest
from PIL import Image

import twofold
from doc_blocks import ROOT, Block, blocks
from twofold.cli.train import find_recipe
from twofold.train import Recipe

PYTHON = [block for block in blocks() if block.language == "python"]
# Pages whose programs other tests run, with what they need.
RUN_ELSEWHERE = {
    "docs/create.md": "test_synthetic_data_folder.py",
    "docs/data.md": "test_cli_data.py",
    "docs/diff2in1.md": "test_diff2in1_commands.py",
    "docs/generate.md": "test_dpm.py",
}
# Programs that read what a command of their page wrote.
NOT_RUN = {'open_network("runs/mine/checkpoint"': "tests/test_network.py opens such a checkpoint"}


def is_setting(block: Block) -> bool:
    """GenerationConfig of a recipe, shown without it."""
    return re.match(r"\w+=", block.text) is not None


def tree_of(block: Block) -> ast.Module:
    return ast.parse(f"dict({block.text})" if is_setting(block) else block.text, str(block))


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_a_program_compiles_and_its_names_exist(block):
    for node in ast.walk(tree_of(block)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)
        elif isinstance(node, ast.ImportFrom):
            assert node.module and not node.level, block
            module = importlib.import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name), f"{block}: {node.module} has no {alias.name}"
        elif (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "twofold"
        ):
            assert hasattr(twofold, node.attr), f"{block}: twofold has no {node.attr}"
        elif isinstance(node, ast.keyword) and is_setting(block):
            assert node.arg in Recipe.model_fields, f"{block}: a recipe has no {node.arg}"


def recipes_of_pages() -> list[Block]:
    return [block for block in PYTHON if "# mine.py" in block.text]


@pytest.mark.parametrize("block", recipes_of_pages(), ids=str)
def test_a_recipe_of_a_page_is_one(block, tmp_path):
    (tmp_path / "mine.py").write_text(block.text)
    assert find_recipe(str(tmp_path / "mine.py")).name == "mine"


def whole() -> list[Block]:
    return [
        block
        for block in PYTHON
        if block.page not in RUN_ELSEWHERE
        and block not in recipes_of_pages()
        and not is_setting(block)
        and not any(text in block.text for text in NOT_RUN)
    ]


@pytest.mark.parametrize("block", whole(), ids=str)
def test_a_program_runs(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Image.Image, "show", lambda *_, **__: None)  # no window
    Image.new("RGB", (64, 48), (90, 120, 60)).save("photo.jpg")
    exec(compile(block.text, str(block), "exec"), {})


def test_every_exception_has_its_program():
    assert len(PYTHON) > 10 and len(whole()) > 2
    for page, test in RUN_ELSEWHERE.items():
        assert any(block.page == page for block in PYTHON), page
        assert Path(page).name in (ROOT / "tests" / test).read_text(), f"{test} does not run {page}"
    for text in NOT_RUN:
        assert any(text in block.text for block in PYTHON), text
