"""Mutation testing: change one formula at a time in a copy of the package and check that a test fails.

    python scripts/mutate.py                  every mutant that has no current result
    python scripts/mutate.py --only flip v_   those whose name contains one of these
    python scripts/mutate.py --list           names only

The table is `mutants.toml` beside this file: name, file below ``src/twofold``, text that occurs there exactly once, its
replacement, and the tests that are expected to fail. A mutant is ``killed`` when they fail and ``survived`` when they
pass; ``broken`` when the text is not found or no test runs. First the same tests run without a mutant, and the program
ends if one fails. Results are cached in ``--results`` and are current as long as table entry, source file and test
files are the same, so an interrupted run continues. The exit code is 0 when every mutant is killed.

Each test run is a fork of a process that has imported the libraries (not the package), so it starts at once.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TABLE = Path(__file__).with_name("mutants.toml")
LIBRARIES = (
    "accelerate", "diffusers", "diffusers.models", "numpy", "peft", "PIL.Image", "pydantic", "scipy.optimize", "torch",
    "transformers", "transformers.models.clip.modeling_clip",
)  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One change of the source.

    Attributes:
        name: unique.
        file: below ``src/twofold``.
        old: text that occurs there exactly once.
        new: its replacement.
        tests: files or node ids, relative to the repository.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def digest(self, root: Path) -> str:
        """Hash of everything that a result depends on: the entry, the source file and the test files."""
        files = [root / "src" / "twofold" / self.file, *(root / t.partition("::")[0] for t in self.tests)]
        found = hashlib.sha256(json.dumps(asdict(self)).encode())
        for file in files:
            found.update(file.read_bytes())
        return found.hexdigest()[:16]

    def occurrences(self, package: Path) -> int:
        """Number of occurrences of ``old`` in the file; 0 if the file does not exist."""
        path = package / self.file
        return path.read_text("utf-8").count(self.old) if path.is_file() else 0


def read_table(path: Path = TABLE) -> list[Mutant]:
    """The mutants of a table; KeyError for an incomplete entry."""
    entries = tomllib.loads(path.read_text("utf-8"))["mutant"]
    return [Mutant(e["name"], e["file"], e["old"], e["new"], tuple(e["tests"])) for e in entries]


def run_tests(source: Path, tests: Sequence[str], log: Path, limit: int) -> int | None:
    """pytest's exit code for ``tests`` with the package in ``source``; None after ``limit`` seconds."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 70
        try:
            os.setsid()
            out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(out, 1)
            os.dup2(out, 2)
            os.chdir(ROOT)
            os.environ["PYTHONPATH"] = str(source)
            sys.path.insert(0, str(source))
            import pytest

            marks = "not slow and not browser"
            code = int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-m", marks, *tests]))
        finally:
            sys.stdout.flush()
            os._exit(code)
    end = time.monotonic() + limit
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def outcome(code: int | None) -> str:
    """The outcome for an exit code of pytest; a timeout counts as killed."""
    if code is None or code == 1:
        return "killed"
    return "survived" if code == 0 else "broken"


def try_mutant(mutant: Mutant, source: Path, log: Path, limit: int) -> str:
    """Apply one mutant to the copy at ``source``, run its tests and undo it."""
    path = source / "twofold" / mutant.file
    found = mutant.occurrences(source / "twofold")
    if found != 1:
        log.write_text(f"the text to replace occurs {found} times in {mutant.file}; once was expected\n")
        return "broken"
    whole = path.read_text("utf-8")
    path.write_text(whole.replace(mutant.old, mutant.new), "utf-8")
    try:
        return outcome(run_tests(source, mutant.tests, log, limit))
    finally:
        path.write_text(whole, "utf-8")


def check_unchanged(mutants: Sequence[Mutant], source: Path, log: Path, limit: int) -> None:
    """SystemExit if the tests fail without a mutant, because then every mutant would seem killed."""
    tests = sorted({test for mutant in mutants for test in mutant.tests})
    print(f"{len(tests)} tests or files of tests without a mutant ...", flush=True)
    code = run_tests(source, tests, log, limit)
    if code != 0:
        print("".join(log.read_text().splitlines(keepends=True)[-30:]))
        raise SystemExit(
            f"the tests do not pass without a mutant (pytest gives {code}); nothing can be concluded"
        )


def read_results(path: Path) -> dict[str, str]:
    """Outcomes by digest."""
    if not path.exists():
        return {}
    lines = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
    return {line["digest"]: line["outcome"] for line in lines}


def import_libraries() -> None:
    """Import the libraries once, before forking, with the environment of ``tests/conftest.py``."""
    from importlib import import_module

    for name in ("OMP_NUM_THREADS", "HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"):
        os.environ[name] = "1"
    for name in ("TRANSFORMERS_VERBOSITY", "DIFFUSERS_VERBOSITY"):
        os.environ[name] = "error"
    # A stale bytecode file could replace a source file that was changed within the same second.
    sys.dont_write_bytecode, os.environ["PYTHONDONTWRITEBYTECODE"] = True, "1"
    for name in LIBRARIES:
        import_module(name)
    import_module("torch").set_num_threads(1)


def run(mutants: Sequence[Mutant], results: Path, limit: int, checked: bool) -> int:
    """Try mutants without a current result, print all results, and return the number that were not killed."""
    known = read_results(results)
    digests = {m.name: m.digest(ROOT) for m in mutants}
    waiting = [m for m in mutants if digests[m.name] not in known]
    results.parent.mkdir(parents=True, exist_ok=True)
    if waiting:
        import_libraries()
    with tempfile.TemporaryDirectory(prefix="mutants-") as temporary, results.open("a") as file:
        source, log = Path(temporary) / "src", Path(temporary) / "log.txt"
        shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__"))
        if waiting and not checked:
            check_unchanged(waiting, source, log, 60 * limit)
        for number, mutant in enumerate(waiting, 1):
            began, digest = time.monotonic(), digests[mutant.name]
            known[digest] = try_mutant(mutant, source, log, limit)
            line = (
                f"{number}/{len(waiting)} {known[digest]:8} {mutant.name} ({time.monotonic() - began:.0f} s)"
            )
            print(line, flush=True)
            if known[digest] == "broken":
                print("".join(log.read_text().splitlines(keepends=True)[-15:]))
                continue
            file.write(json.dumps({"name": mutant.name, "digest": digest, "outcome": known[digest]}) + "\n")
            file.flush()
    found = {m.name: known[digests[m.name]] for m in mutants}
    print(", ".join(f"{count} {name}" for name, count in sorted(Counter(found.values()).items())))
    left = [name for name, result in found.items() if result != "killed"]
    for name in left:
        print(f"{found[name]}: {name}")
    return len(left)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="*", default=[], help="mutants whose name contains one of these")
    parser.add_argument("--list", action="store_true", help="print the names and end")
    parser.add_argument(
        "--results", type=Path, default=ROOT / ".mutants.jsonl", help="file the outcomes are kept in"
    )
    parser.add_argument("--limit", type=int, default=300, help="seconds for the tests of one mutant")
    parser.add_argument(
        "--unchecked", action="store_true", help="do not run the tests without a mutant first"
    )
    given = parser.parse_args()
    mutants = [m for m in read_table() if not given.only or any(part in m.name for part in given.only)]
    if not mutants:
        raise SystemExit(f"no mutant's name contains {' or '.join(given.only)}")
    if given.list:
        print("\n".join(m.name for m in mutants))
        return
    raise SystemExit(min(1, run(mutants, given.results, given.limit, given.unchecked)))


if __name__ == "__main__":
    main()
