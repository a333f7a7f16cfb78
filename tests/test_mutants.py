"""The table of `scripts/mutate.py` fits the source: each text is there once, each test exists. It is not run here."""

from __future__ import annotations

import ast
import json
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def script():
    path = ROOT / "scripts" / "mutate.py"
    spec = spec_from_file_location("mutate", path)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    sys.modules["mutate"] = module
    spec.loader.exec_module(module)
    return module


mutate = script()
MUTANTS = mutate.read_table()


def functions(path: Path) -> set[str]:
    return {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}


def test_there_are_enough_mutants_with_unique_names():
    assert len(MUTANTS) >= 90
    assert len({m.name for m in MUTANTS}) == len(MUTANTS)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_a_mutant_fits_the_source(mutant):
    """Where this fails a formula was rewritten: write the new text into scripts/mutants.toml."""
    assert mutant.occurrences(ROOT / "src" / "twofold") == 1, (
        f"{mutant.file} does not hold {mutant.old!r} once"
    )
    assert mutant.new != mutant.old
    assert mutant.tests
    for test in mutant.tests:
        file, _, name = test.partition("::")
        assert (ROOT / file).is_file(), f"{file} is missing"
        assert not name or name.partition("[")[0] in functions(ROOT / file), f"{file} has no test {name}"


@pytest.mark.parametrize(
    ("code", "expected"), [(1, "killed"), (None, "killed"), (0, "survived"), (2, "broken"), (5, "broken")]
)
def test_exit_codes_are_classified(code, expected):
    assert mutate.outcome(code) == expected


def test_a_missing_text_is_reported_and_the_source_unchanged(tmp_path):
    (tmp_path / "twofold").mkdir()
    (tmp_path / "twofold" / "a.py").write_text("x = 1\n")
    log = tmp_path / "log.txt"
    missing = mutate.Mutant("missing", "a.py", "y = 1", "y = 2", ("tests/test_mutants.py",))
    assert mutate.try_mutant(missing, tmp_path, log, 1) == "broken"
    assert "occurs 0 times in a.py" in log.read_text()
    assert (tmp_path / "twofold" / "a.py").read_text() == "x = 1\n"


def test_outcomes_are_kept_until_something_changes(tmp_path):
    mutant = MUTANTS[0]
    path = tmp_path / "results.jsonl"
    line = {"name": mutant.name, "digest": mutant.digest(ROOT), "outcome": "killed"}
    path.write_text(json.dumps(line) + '\n{"name": "to')  # a kill cut the last line short
    assert mutate.read_results(path) == {mutant.digest(ROOT): "killed"}
    for part in ("src/twofold", "tests"):
        for file in (ROOT / part).glob("*.py" if part == "tests" else "diffusion/*.py"):
            there = tmp_path / file.relative_to(ROOT)
            there.parent.mkdir(parents=True, exist_ok=True)
            there.write_bytes(file.read_bytes())
    assert mutant.digest(tmp_path) == mutant.digest(ROOT)
    (tmp_path / "src/twofold" / mutant.file).write_text("changed\n")
    assert mutant.digest(tmp_path) != mutant.digest(ROOT)
