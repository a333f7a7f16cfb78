"""Paths and patterns become images with unique names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from twofold.predict.inputs import find_inputs


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make(*paths: str) -> None:
    for path in paths:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(b"x")


def names(given: list[str], out: str = "predictions") -> list[str]:
    found, problems = find_inputs(given, Path(out))
    assert not problems
    return [item.name for item in found]


def test_a_file_is_named_by_its_stem(here: Path) -> None:
    make("deep/down/photo.one.jpg")
    assert names(["deep/down/photo.one.jpg"]) == ["photo.one"]
    assert names([str(here / "deep/down/photo.one.jpg")]) == ["photo.one"]


def test_a_folder_keeps_its_sub_folders_and_is_searched_in_order(here: Path) -> None:
    make(
        "shots/b.png",
        "shots/a/c.jpg",
        "shots/a/notes.txt",
        "shots/.hidden/d.jpg",
        "shots/.e.jpg",
        "shots/F.JPG",
    )
    assert names(["shots"]) == ["F", "b", "a/c"]
    assert names(["shots/"]) == ["F", "b", "a/c"]


def test_equal_stems_in_two_folders_do_not_collide(here: Path) -> None:
    make("x/a/photo.jpg", "x/b/photo.jpg", "y/b/photo.jpg", "other.jpg")
    assert names(["x/a/photo.jpg", "x/b/photo.jpg", "other.jpg"]) == ["a/photo", "b/photo", "other"]
    assert names(["x", "y"]) == ["a/photo", "x/b/photo", "y/b/photo"]


def test_equal_stems_with_different_suffixes_keep_them(here: Path) -> None:
    make("p.jpg", "p.png", "q.jpg")
    assert names(["p.jpg", "p.png", "q.jpg"]) == ["p.jpg", "p.png", "q"]
    make("s/p.jpg", "s/p.jpg.png", "s/p.png")
    assert sorted(names(["s"])) == ["p.jpg", "p.jpg.png", "p.png"]


def test_names_differ_even_where_case_does_not_count(here: Path) -> None:
    make("a/Photo.jpg", "b/photo.jpg")
    assert names(["a/Photo.jpg", "b/photo.jpg"]) == ["a/Photo", "b/photo"]


def test_a_pattern_keeps_what_is_below_its_fixed_part(here: Path) -> None:
    make("x/a/photo.jpg", "x/b/photo.jpg", "x/b/notes.txt", "x/b/deep/e.png")
    assert names(["x/*/photo.jpg"]) == ["a/photo", "b/photo"]
    assert sorted(names(["x/**/*"])) == ["a/photo", "b/deep/e", "b/photo"]
    assert sorted(names(["x/*"])) == ["a/photo", "b/deep/e", "b/photo"]


def test_an_existing_file_with_wildcards_in_its_name_is_a_file(here: Path) -> None:
    make("photo[1].jpg", "photo1.jpg")
    found, _ = find_inputs(["photo[1].jpg"], Path("out"))
    assert [item.path for item in found] == [Path("photo[1].jpg")]


def test_each_file_counts_once(here: Path) -> None:
    make("x/a.jpg")
    assert names(["x/a.jpg", "x", "./x/a.jpg", "x/*.jpg", str(here / "x")]) == ["a"]


def test_results_are_not_predicted(here: Path) -> None:
    make("shots/a.jpg", "shots/predictions/a_depth.png")
    assert names(["shots"], out="shots/predictions") == ["a"]
    assert names(["shots/**/*"], out="shots/predictions") == ["a"]
    found, problems = find_inputs(["shots"], Path("shots"))
    assert not found
    assert "holds the results" in problems[0].error


def test_a_file_of_any_suffix_may_be_named(here: Path) -> None:
    make("photo.weird")
    assert names(["photo.weird"]) == ["photo"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("nothing.jpg", "nothing.jpg does not exist"),
        ("empty", "empty holds no images"),
        ("*.webp", "no file matches *.webp"),
        ("bad\0name", "bad\\x00name does not exist"),
        ("", "an empty path"),
        ("line\nbreak.jpg", "line\\nbreak.jpg does not exist"),
    ],
)
def test_unusable_inputs_are_reported_in_one_line(here: Path, given: str, message: str) -> None:
    Path("empty").mkdir()
    make("good.jpg")
    found, problems = find_inputs([given, "good.jpg"], Path("out"))
    assert [item.name for item in found] == ["good"]
    (problem,) = problems
    assert message in problem.error
    assert "\n" not in problem.error


def test_a_folder_that_may_not_be_read_is_reported(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make("shots/a.jpg", "shots/locked/b.jpg")
    scandir = os.scandir

    def refuse(path):  # root may read everything, so the system's refusal is played
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found, problems = find_inputs(["shots"], Path("out"))
    assert [item.name for item in found] == ["a"]
    assert "shots/locked cannot be read: Permission denied" in problems[0].error
