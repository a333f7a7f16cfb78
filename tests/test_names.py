"""Names from data never become paths outside the folder they belong to."""

from __future__ import annotations

import html
import json
import os
import re
import sys
from pathlib import Path

import pytest

from twofold.io import (
    UnsafeNameError,
    check_name,
    escape,
    escape_html,
    escape_markdown,
    quoted,
    safe_output_path,
    to_json,
)

REFUSED = {
    "": "is empty",
    ".": "component '.'",
    "..": "component '..'",
    "/": "absolute",
    "/etc/passwd": "absolute",
    "a/b": "has a '/'",
    "../a": "has a '/'",
    "a\nb": "control characters",
    "a\x1b[2Jb": "control characters",
    "a\0b": "control characters",
    "a\x85b": "control characters",
    "a\u2028b": "control characters",
    "a\udcffb": "UTF-8",
    "a" * 256: "256 bytes",
    "é" * 128: "256 bytes",
    "a\\b": "characters",
    "C:x": "absolute",
    "ab:c": "characters",
    "what?": "characters",
    "CON": "reserved",
    "nul.txt": "reserved",
    "com1": "reserved",
    "LPT9.tar.gz": "reserved",
    "trailing.": "dot or a space",
    "trailing ": "dot or a space",
}


@pytest.mark.parametrize("name", REFUSED, ids=ascii)
def test_unsafe_names_are_refused_in_one_printable_line(name: str, tmp_path: Path) -> None:
    for check in (lambda: check_name(name, "the task"), lambda: safe_output_path(tmp_path, name, "the task")):
        with pytest.raises(UnsafeNameError) as caught:
            check()
        message = str(caught.value)
        assert REFUSED[name] in message
        assert message.startswith("the task ")
        assert message.isprintable()
        assert len(message) < 300


@pytest.mark.parametrize("name", [None, 3, True, ["a"], {"a": 1}, b"a", 1.5])
def test_names_are_text(name: object) -> None:
    with pytest.raises(UnsafeNameError, match="must be text, not"):
        check_name(name)


@pytest.mark.parametrize("name", ["../a", "a/../b", "a//b", "a/./b", "a/", "/a", "./a", "a/" + "b" * 256])
def test_components_of_nested_names_are_checked_one_by_one(name: str, tmp_path: Path) -> None:
    with pytest.raises(UnsafeNameError):
        safe_output_path(tmp_path, name, nested=True)


def test_ordinary_names_pass(tmp_path: Path) -> None:
    for name in ("depth", "a.b", "..png", ".hidden", "Küche", "写真", "a b", "depth+normals", "x" * 255):
        assert safe_output_path(tmp_path, name) == tmp_path / name
    assert safe_output_path(tmp_path, "shots/kitchen", nested=True) == tmp_path / "shots" / "kitchen"
    assert safe_output_path(tmp_path / "new", "a") == tmp_path / "new" / "a"


@pytest.mark.skipif(os.name == "nt", reason="there these names are refused always")
def test_names_of_this_file_system_need_not_be_portable(tmp_path: Path) -> None:
    for name in ("12:30", "aux", "a\\b", "what?", "v1."):
        assert safe_output_path(tmp_path, name, portable=False) == tmp_path / name
    for name in ("..", "", "a\n", "/a", "a\udcff"):
        with pytest.raises(UnsafeNameError):
            safe_output_path(tmp_path, name, portable=False)


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_links_out_of_the_folder_are_refused_and_links_within_are_not(tmp_path: Path) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    (out / "real").mkdir(parents=True)
    other.mkdir()
    (other / "file").touch()
    (out / "file").symlink_to(other / "file")
    (out / "dangling").symlink_to(other / "absent")
    (out / "folder").symlink_to(other)
    (out / "up").symlink_to("..")
    (out / "self").symlink_to(".")
    (out / "within").symlink_to("real")
    for name in ("file", "dangling", "folder", "folder/file", "up", "up/other/file", "self"):
        with pytest.raises(UnsafeNameError, match="through a link"):
            safe_output_path(out, name, nested=True)
    assert safe_output_path(out, "within/a", nested=True) == out / "within" / "a"
    (tmp_path / "alias").symlink_to(out)  # the folder itself may be reached through one
    assert safe_output_path(tmp_path / "alias", "a") == tmp_path / "alias" / "a"


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_links_to_themselves_are_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "out" / "a")
    with pytest.raises(UnsafeNameError):
        safe_output_path(tmp_path / "out", "a/b", nested=True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Küche 写真 'x'", "Küche 写真 'x'"),
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("a\r\nb\tc", "a\\r\\nb\\tc"),
        ("photo\u202egpj.exe", "photo\\u202egpj.exe"),
        ("\u200e\u2066\u2028\ufeff", "\\u200e\\u2066\\u2028\\ufeff"),
        ("\x9b2J", "\\x9b2J"),
        ("bad\udcff", "bad\\udcff"),
        (Path("a\nb"), "a\\nb"),
    ],
    ids=ascii,
)
def test_displayed_text_is_printable_and_unambiguous(text: object, expected: str) -> None:
    assert escape(text) == expected
    assert escape(text).isprintable()
    assert quoted(text) == f"'{expected}'"


def test_long_text_is_cut() -> None:
    assert quoted("a" * 100, limit=10) == "'aaaaaaa...'"


HOSTILE = "a`b`|c<img src=x onerror=alert(1)>*d*[e](http://f)\n# g\x1b[31m\u202eh_i_ _j_ &lt;"


def test_text_in_markdown_is_text() -> None:
    markdown = pytest.importorskip("markdown_it").MarkdownIt()
    for line in (escape_markdown(HOSTILE), f"# {escape_markdown(HOSTILE)}", f"- {escape_markdown(HOSTILE)}"):
        page = markdown.render(line)
        found = re.sub(r"</?(p|h1|ul|li)>", "", page).strip()
        assert not set(re.findall(r"<(\w+)", found)), page
        shown = html.unescape(found)
        assert shown.strip() == HOSTILE.replace("\n", " ").replace("\x1b", "\\x1b").replace(
            "\u202e", "\\u202e"
        )


def test_text_in_html_is_text() -> None:
    assert escape_html(HOSTILE).isprintable()
    assert not set('<>"') & set(escape_html(HOSTILE))
    assert html.unescape(escape_html("<b> 'x'\n")) == "<b> 'x'\\n"


@pytest.mark.parametrize(
    "value", [{"name": HOSTILE}, ["bad\udcff", "写真", "\U000e0041"], {"a": [1, None, 2.5]}]
)
@pytest.mark.parametrize("indent", [None, 1])
def test_json_is_printable_utf8_and_reads_back(value: object, indent: int | None) -> None:
    text = to_json(value, indent)
    text.encode()
    assert text.replace("\n", "").isprintable()
    assert json.loads(text) == value
    assert ("写真" in text) == ("写真" in str(value))


def test_json_refuses_unsupported_values() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        to_json({"a": float("nan")})
    assert to_json({"a": float("nan")}, allow_nan=True) == '{"a": NaN}'
