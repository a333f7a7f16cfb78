"""Commands and programs in the documentation: README.md, docs/*.md and the model card."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = (
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "src" / "twofold" / "backbones" / "embedded" / "README.md",
)
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
# Text of commands shown within a sentence.
_INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_PROGRAMS = ("twofold", "python", "make", "pip", "torchrun", "bash")


@dataclass(frozen=True)
class Block:
    """A fenced block: its page, the line of the page it starts at, its language ("" for none) and its text."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Command:
    """A command line of the documentation.

    Attributes:
        place: page and line.
        words: program and arguments, as a shell splits them; variables set in front are left out.
        whole: it stands in a block of commands; otherwise it is a mention in a sentence, which may be shortened.
    """

    place: str
    words: tuple[str, ...]
    whole: bool

    def __str__(self) -> str:
        return f"{self.place}: {shlex.join(self.words)}"


def blocks() -> list[Block]:
    """All fenced blocks of all pages."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        name = str(page.relative_to(ROOT))
        for match in _FENCE.finditer(text):
            found.append(Block(name, text.count("\n", 0, match.start()) + 1, match[1], match[2]))
    return found


def programs(page: str) -> list[Block]:
    """The Python programs of a page, in its order."""
    return [block for block in blocks() if block.page == page and block.language == "python"]


def commands_of(block: Block) -> list[Command]:
    """The commands of an ``sh`` block, one a line, without comments."""
    found = []
    for line in block.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words and re.fullmatch(r"[A-Z][A-Z0-9_]*=.*", words[0]):
            words.pop(0)
        if words:
            found.append(Command(str(block), tuple(words), True))
    return found


def commands() -> list[Command]:
    """All commands: every line of the ``sh`` blocks, and mentions in sentences that begin with a known program."""
    found = [command for block in blocks() if block.language == "sh" for command in commands_of(block)]
    for page in PAGES:
        text = _FENCE.sub(lambda match: "\n" * match[0].count("\n"), page.read_text(encoding="utf-8"))
        for match in _INLINE.finditer(text):
            words = match[1].split()
            if len(words) > 1 and words[0] in _PROGRAMS:
                place = f"{page.relative_to(ROOT)}:{text.count(chr(10), 0, match.start()) + 1}"
                found.append(Command(place, tuple(shlex.split(match[1])), False))
    return found


def mentioned_options() -> list[tuple[str, str]]:
    """(place, option) of every ``--option`` shown in a sentence, except within a whole command."""
    found = []
    for page in PAGES:
        text = _FENCE.sub(lambda match: "\n" * match[0].count("\n"), page.read_text(encoding="utf-8"))
        for match in _INLINE.finditer(text):
            if match[1].startswith("--"):
                place = f"{page.relative_to(ROOT)}:{text.count(chr(10), 0, match.start()) + 1}"
                found += [(place, option) for option in re.findall(r"--[a-z][\w-]*", match[1])]
    return found
