"""Measure the package's structure: sizes, duplication, import cycles, and the calls of one prediction.

    python scripts/measure_structure.py

Static measures parse the source without importing it. Calls and files are those of the package's functions (without
comprehensions, lambdas and module bodies), counted with `sys.setprofile`: one prediction of depth and normals of one
image by the embedded model after a warm-up, and the second step of a training run on three images, whose examples are
prepared by a worker process.
"""

from __future__ import annotations

import ast
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

PACKAGE = Path(__file__).parents[1] / "src" / "twofold"
WINDOW = 6  # lines
LONG = 60  # lines of a function

Trees = dict[str, ast.Module]
Function = ast.FunctionDef | ast.AsyncFunctionDef


def parse() -> Trees:
    """The syntax tree of each module, by its dotted name."""
    found: Trees = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = ast.parse(path.read_text())
    return found


def package_lines() -> int:
    """Lines of all modules."""
    return sum(len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py"))


def code_lines(trees: Trees) -> int:
    """Lines of all modules without imports, docstrings, comments and blank lines."""
    total = 0
    for path, tree in zip(sorted(PACKAGE.rglob("*.py")), trees.values(), strict=True):
        skipped: set[int] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                skipped.update(range(node.lineno, (node.end_lineno or 0) + 1))
            elif isinstance(node, ast.Module | ast.ClassDef | Function) and ast.get_docstring(node):
                first = node.body[0]
                skipped.update(range(first.lineno, (first.end_lineno or 0) + 1))
        lines = enumerate(path.read_text().splitlines(), 1)
        total += sum(
            bool(line.strip()) and not line.strip().startswith("#") and n not in skipped for n, line in lines
        )
    return total


def functions(trees: Trees) -> Iterator[tuple[str, Function]]:
    """Every function and method with its module."""
    for module, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, Function):
                yield f"{module}.{node.name}", node


def argument_count(node: Function) -> int:
    """Arguments of a function without ``self`` and ``cls``."""
    names = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
    return len([n for n in names if n not in ("self", "cls")])


def largest_record(trees: Trees) -> tuple[str, int]:
    """The dataclass or pydantic model with most fields, its own and inherited ones."""
    classes = {
        node.name: node
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    sizes = {name: len(_fields(node, classes)) for name, node in classes.items() if _is_record(node, classes)}
    name = max(sizes, key=lambda n: sizes[n])
    return name, sizes[name]


def _bases(node: ast.ClassDef) -> list[str]:
    return [ast.unparse(base).rpartition(".")[2] for base in node.bases]


def _is_record(node: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> bool:
    decorators = " ".join(ast.unparse(d) for d in node.decorator_list)
    if "dataclass" in decorators or decorators.startswith("checked") or "BaseModel" in _bases(node):
        return True
    return any(_is_record(classes[b], classes) for b in _bases(node) if b in classes and b != node.name)


def _fields(node: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> set[str]:
    own = {
        item.target.id
        for item in node.body
        if isinstance(item, ast.AnnAssign)
        and isinstance(item.target, ast.Name)
        and "ClassVar" not in ast.unparse(item.annotation)
    }
    inherited = (classes[b] for b in _bases(node) if b in classes and b != node.name)
    return own.union(*(_fields(base, classes) for base in inherited))


def import_cycles(trees: Trees) -> list[list[str]]:
    """Groups of modules that import each other when they are imported; imports inside functions do not count."""
    graph = {module: _imports(module, tree, trees) for module, tree in trees.items()}
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:  # Tarjan 1972
        order[module] = lowest[module] = len(order)
        stack.append(module)
        for other in graph[module]:
            if other not in order:
                visit(other)
            if other in stack:
                lowest[module] = min(lowest[module], lowest[other])
        if lowest[module] == order[module]:
            group = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(group) > 1:
                found.append(sorted(group))

    sys.setrecursionlimit(10_000)
    for module in graph:
        if module not in order:
            visit(module)
    return found


def _imports(module: str, tree: ast.Module, trees: Trees) -> set[str]:
    is_package = (PACKAGE.parent / Path(*module.split("."))).is_dir()
    package = module if is_package else module.rpartition(".")[0]
    found: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            # `from package import module` imports the module, `from module import name` the module it is in.
            found |= {
                f"{source}.{alias.name}" if f"{source}.{alias.name}" in trees else source
                for alias in node.names
            }
    return {name for name in found if name in trees} - {module}


def duplicated_share() -> float:
    """Share of windows of `WINDOW` lines that occur more than once; blank lines, comments and imports do not count."""
    windows: Counter[tuple[str, ...]] = Counter()
    for path in PACKAGE.rglob("*.py"):
        lines = [line.strip() for line in path.read_text().splitlines()]
        kept = [s for s in lines if s and not s.startswith(("#", "import ", "from "))]
        windows.update(tuple(kept[i : i + WINDOW]) for i in range(len(kept) - WINDOW + 1))
    return sum(n for n in windows.values() if n > 1) / sum(windows.values())


@contextmanager
def counted_calls() -> Generator[Counter[tuple[str, str]]]:
    """Calls of the package's functions inside the block, by file and name."""
    calls: Counter[tuple[str, str]] = Counter()
    root = str(PACKAGE)

    def record(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(root) and not code.co_name.startswith("<"):
            calls[code.co_filename, code.co_name] += 1

    sys.setprofile(record)
    try:
        yield calls
    finally:
        sys.setprofile(None)


def prediction_calls() -> tuple[int, int]:
    """Calls and files of one prediction of two tasks by the embedded model."""
    import torch

    from twofold import open_model
    from twofold.predict.base import predict_tasks

    model = open_model("embedded")
    predictors = {task: model.predictor(task) for task in ("depth", "normals")}
    image = torch.rand(3, 48, 64, generator=torch.Generator().manual_seed(0))
    list(predict_tasks(predictors, [image]))
    with counted_calls() as calls:
        list(predict_tasks(predictors, [image]))
    return sum(calls.values()), len({file for file, _ in calls})


def training_files() -> int:
    """Files touched by the second step of a training run, from one record of the loop to the next."""
    from twofold.train.run import run_recipe

    with tempfile.TemporaryDirectory() as folder:
        records = run_recipe(_recipe(Path(folder)), Path(folder) / "run")
        steps = (record for record in records if "loss" in record)
        next(steps)
        with counted_calls() as calls:
            next(steps)
        records.close()
    return len({file for file, _ in calls})


def _recipe(folder: Path) -> Any:
    """Three steps of depth on three random images, from random weights of a few thousand parameters."""
    import torch

    from twofold.backbones import new
    from twofold.checkpoints import ModelSettings, save_model
    from twofold.data.writer import FolderWriter
    from twofold.sample import Provenance, Sample
    from twofold.train import DataConfig, DenoiserConfig, LoopConfig, Recipe, Source

    save_model(new.tiny(), ModelSettings(name="tiny", size=64), folder / "model", torch.float32)
    writer = FolderWriter(folder / "data", {"name": "random", "targets": {"depth": {}}})
    known = torch.ones(1, 64, 64, dtype=torch.bool)
    for i in range(3):
        targets = {"depth": 1 + torch.rand(1, 64, 64)}
        provenance = Provenance("rendered")
        writer.write(
            Sample(torch.rand(3, 64, 64), targets, {"depth": known}, "noise", f"{i}", None, provenance)
        )
    writer.finish()
    return Recipe(
        name="measured",
        model=DenoiserConfig(init_from=str(folder / "model")),
        data=DataConfig(
            sources=(Source(path=str(folder / "data")),),
            task_weights={"depth": 1.0},
            size=(64, 64),
            num_workers=1,
        ),
        loop=LoopConfig(steps=3, batch_size=2),
    )


def table() -> list[tuple[str, str]]:
    """The measures by name, as text."""
    trees = parse()
    every = list(functions(trees))
    widest, node = max(every, key=lambda item: argument_count(item[1]))
    long = [name for name, f in every if (f.end_lineno or 0) - f.lineno + 1 > LONG]
    record, fields = largest_record(trees)
    cycles = import_cycles(trees)
    calls, files = prediction_calls()
    return [
        ("package lines (of code alone)", f"{package_lines():,} ({code_lines(trees):,})"),
        ("calls / files for one image, two tasks", f"{calls} / {files}"),
        ("files touched by one training step after the first", str(training_files())),
        ("fields of the largest record", f"{fields} ({record})"),
        ("arguments of the largest function", f"{argument_count(node)} ({widest.removeprefix('twofold.')})"),
        (f"functions > {LONG} lines", f"{len(long)} {', '.join(long)}".strip()),
        ("import cycles", f"{len(cycles)} {'; '.join(' '.join(c) for c in cycles)}".strip()),
        (f"duplicated {WINDOW}-line windows", f"{100 * duplicated_share():.1f} %"),
    ]


def main(measures: Callable[[], list[tuple[str, str]]] = table) -> None:
    """Print the table in Markdown."""
    print("| measure | value |\n|---|---|")
    for name, value in measures():
        print(f"| {name} | {value} |")


if __name__ == "__main__":
    main()
