"""Hook of mkdocs: pages that are generated from the source.

``index.md`` is the README, ``model-card.md`` the card of the embedded model; ``commands/`` has a page for each command,
from its ``--help``; ``api/`` has a page for each package, from docstrings.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "twofold"
CARD = PACKAGE / "backbones" / "embedded" / "README.md"
# Where links of a page lead that is shown elsewhere on the site, by the page's own folder.
MOVED = {CARD: "model-card.md", ROOT / "README.md": "index.md", ROOT / "CHANGELOG.md": "changelog.md"}
_LINK = re.compile(r"(!?\[[^\]]*\])\(([^)#:\s]+)(#[^)]*)?\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the generated sections to the navigation."""
    nav: list[Any] = config["nav"]
    nav.insert(-1, {"Commands": [f"commands/{name}.md" for name, _ in commands()]})
    nav.insert(-1, {"API": [f"api/{name}.md" for name, _ in packages()]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    pages = {
        "index.md": relinked(ROOT / "README.md"),
        "model-card.md": relinked(CARD),
        "changelog.md": relinked(ROOT / "CHANGELOG.md"),
        "contributing.md": relinked(ROOT / "CONTRIBUTING.md"),
    }
    pages |= {f"commands/{name}.md": text for name, text in commands()}
    pages |= {f"api/{name}.md": api_page(name, modules) for name, modules in packages()}
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Rewrite links of pages in ``docs/`` to files outside of it."""
    source = page.file.abs_src_path
    return relink(markdown, Path(source)) if source else markdown


def relinked(path: Path) -> str:
    """A Markdown file with links that are valid on the site."""
    return relink(path.read_text(encoding="utf-8"), path)


def relink(markdown: str, path: Path) -> str:
    """Rewrite links relative to ``path`` to pages of the site, or to plain text for other files."""

    def replaced(match: re.Match[str]) -> str:
        label, target, anchor = match[1], (path.parent / match[2]).resolve(), match[3] or ""
        if target in MOVED:
            return f"{label}({MOVED[target]}{anchor})"
        if (ROOT / "docs") in target.parents:
            return f"{label}({target.relative_to(ROOT / 'docs')}{anchor})"
        return f"{label[1:-1]} (`{os.path.relpath(target, ROOT)}`)" if target.exists() else match[0]

    return _LINK.sub(replaced, markdown)


def commands() -> Iterator[tuple[str, str]]:
    """Name and page of every command; those of a group are on its page."""
    import click
    import typer

    from twofold.cli.main import app

    root: Any = typer.main.get_command(app)
    for name, command in root.commands.items():
        found = {f"twofold {name}": command}
        found |= {f"twofold {name} {k}": v for k, v in getattr(command, "commands", {}).items()}
        sections = []
        for number, (title, one) in enumerate(found.items()):
            context = click.Context(one, info_name=title, max_content_width=100, terminal_width=100)
            heading = f"# {title}" if number == 0 else f"## {title}"
            sections.append(f"{heading}\n\n```text\n{one.get_help(context)}\n```\n")
        yield name, "\n".join(sections)


def packages() -> Iterator[tuple[str, list[str]]]:
    """Every package and single module below ``twofold`` with its public modules."""
    for path in sorted(PACKAGE.iterdir()):
        if path.suffix == ".py" and not path.name.startswith("_"):
            yield path.stem, [f"twofold.{path.stem}"]
        elif (path / "__init__.py").exists():
            files = sorted(path.rglob("*.py"))
            names = [".".join(("twofold", *f.relative_to(PACKAGE).with_suffix("").parts)) for f in files]
            yield (
                path.name,
                [n.removesuffix(".__init__") for n in names if "._" not in n.removesuffix(".__init__")],
            )


def api_page(name: str, modules: list[str]) -> str:
    """The reference of a package."""
    return f"# twofold.{name}\n\n" + "\n\n".join(f"::: {module}" for module in modules) + "\n"
