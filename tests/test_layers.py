"""Structure of the package: imports go downward, files are short, public names have docstrings."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "twofold"

# A file imports from its own room and from the floors below. There is no list of exceptions.
HOUSE = (
    ("io", "named_code", "suggest"),
    ("environment", "image", "geometry"),
    ("diffusion", "metrics", "visualization"),
    ("targets",),
    ("sample",),
    ("tasks", "backbones"),
    ("heads", "protocols", "data"),
    ("compat",),
    ("predict", "render"),
    ("checkpoints",),
    ("evaluate",),
    ("generate",),
    ("train",),
    ("__init__",),  # of the package: it exports names of lower modules
    ("cli",),
    ("__main__",),
)
FLOORS = {room: floor for floor, rooms in enumerate(HOUSE) for room in rooms}

FILES = sorted(PACKAGE.rglob("*.py"))


def name(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def room(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imports(path: Path) -> set[str]:
    """The rooms of twofold that a file imports anywhere, inside functions too; not what only types need."""
    tree = ast.parse(path.read_text())
    skipped = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.unparse(branch.test)
        for node in ast.walk(branch)
    }
    package = ["twofold", *path.relative_to(PACKAGE).parts[:-1]]
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found |= {module} if module != "twofold" else {f"twofold.{alias.name}" for alias in node.names}
    parts = [module.split(".") for module in found if module.split(".")[0] == "twofold"]
    return {p[1] if len(p) > 1 else "__init__" for p in parts}


def test_package_files_are_found() -> None:
    assert len(FILES) > 20


@pytest.mark.parametrize("path", FILES, ids=name)
def test_imports_go_down(path: Path) -> None:
    here = room(path)
    assert here in FLOORS, f"{here} is a new room: give it a floor"
    for other in imports(path) - {here}:
        known = other if other in FLOORS else "__init__"  # `from twofold import __version__`
        wrong = f"{name(path)} (floor {FLOORS[here]}) imports {known} (floor {FLOORS[known]})"
        assert FLOORS[known] < FLOORS[here], wrong


@pytest.mark.parametrize("path", FILES, ids=name)
def test_no_file_is_over_400_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400


@pytest.mark.parametrize("path", FILES, ids=name)
def test_what_is_public_has_a_docstring(path: Path) -> None:
    tree = ast.parse(path.read_text())
    missing: list[str] = []

    def look(node: ast.Module | ast.ClassDef, prefix: str) -> None:
        for child in node.body:
            if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                continue
            overload = any("overload" in ast.unparse(d) for d in child.decorator_list)
            if child.name.startswith("_") or overload:
                continue
            if not ast.get_docstring(child):
                missing.append(prefix + child.name)
            if isinstance(child, ast.ClassDef):
                look(child, f"{prefix}{child.name}.")

    look(tree, "")
    missing = [m for m in missing if not m.endswith((".forward", ".Config"))]
    assert not missing, f"{name(path)}: {', '.join(missing)}"


@pytest.mark.parametrize("path", FILES, ids=name)
def test_no_bare_except_and_no_pickle(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        assert not (isinstance(node, ast.ExceptHandler) and node.type is None), (
            f"bare except, line {node.lineno}"
        )
        if isinstance(node, ast.Call):
            for keyword in node.keywords:
                off = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
                assert not (keyword.arg == "weights_only" and off), (
                    f"torch.load of pickles, line {node.lineno}"
                )


@pytest.mark.parametrize("module", ["twofold", "twofold.cli", "twofold.cli.main"])
def test_importing_is_light(module: str) -> None:
    """Slow imports happen where they are used, so that `--help` is fast."""
    heavy = {
        "torch",
        "diffusers",
        "transformers",
        "scipy",
        "numpy",
        "PIL",
        "mitsuba",
        "cv2",
        "pydantic",
        "rich",
    }
    program = f"import sys, {module}; print(*sorted(set(sys.modules) & {heavy!r}))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    found = set(result.stdout.split()) - ({"rich"} if module.endswith("main") else set())
    assert not found


def test_help_and_version_are_light() -> None:
    program = (
        "import sys\n"
        "from twofold.cli.main import run\n"
        "for arguments in (['--help'], ['--version'], ['predict', '--help'], ['train', '--help']):\n"
        "    assert run(arguments) == 0\n"
        "assert not {'torch', 'diffusers', 'transformers', 'numpy'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)


def test_every_exported_name_exists() -> None:
    import twofold

    for public in twofold.__all__:
        assert getattr(twofold, public) is not None
    assert set(twofold.__all__) <= set(dir(twofold))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = twofold.nothing
