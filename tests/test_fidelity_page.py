"""docs/fidelity.md names tests and links that exist. Read as text: nothing is imported."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "fidelity.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(test_\w+\.py)::(test_\w+)`", PAGE)))


@pytest.mark.parametrize("file", sorted({file for file, _ in NAMED}))
def test_every_named_test_exists(file):
    text = (ROOT / "tests" / file).read_text(encoding="utf-8")
    lost = [name for f, name in NAMED if f == file and not re.search(rf"^def {name}\(", text, re.M)]
    assert not lost, f"docs/fidelity.md names tests that are not in {file}: {lost}"


def test_every_mention_of_a_test_names_its_function():
    assert len(NAMED) > 80
    assert len(re.findall(r"test_\w+\.py", PAGE)) == len(re.findall(r"`test_\w+\.py::test_\w+`", PAGE))


def test_a_row_with_a_bound_names_its_check():
    """In every table with a column of bounds; a row that compares nothing has neither."""
    checked = 0
    for table in re.findall(r"(?:^\|.*\n)+", PAGE, re.M):
        head, _, *rows = [[c.strip() for c in line.strip("|\n").split("|")] for line in table.splitlines()]
        if "largest difference" not in head:
            continue
        for row in rows:
            assert len(row) == len(head), row
            bound, check = (row[head.index(name)] for name in ("largest difference", "checked by"))
            assert not bound or "::test_" in check, row[0]
            assert check or "nothing" in " ".join(row), row[0]
            checked += 1
    assert checked > 60


@pytest.mark.parametrize("page", ["README.md", "docs/models.md", "docs/recipes.md", "docs/diff2in1.md"])
def test_pages_that_claim_equality_link_it(page):
    link = "docs/fidelity.md" if page == "README.md" else "fidelity.md"
    assert f"]({link})" in (ROOT / page).read_text(encoding="utf-8")


def test_links_and_scripts_of_the_page_exist():
    for name in re.findall(r"\]\(([\w.]+\.md)\)", PAGE):
        assert (ROOT / "docs" / name).exists(), name
    for name in re.findall(r"scripts/\w+\.py", PAGE):
        assert (ROOT / name).exists(), name
