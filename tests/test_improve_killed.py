"""`create` and `improve` killed at any moment: the same commands again end in the same files, to the bit.

Killed processes are forked off this one, so that nothing is imported again; the slow test kills whole commands.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import world
from twofold.checkpoints import ModelSettings, save_model
from twofold.cli.main import run as command
from twofold.train import (
    DataConfig,
    DenoiserConfig,
    EmaConfig,
    HeadConfig,
    LoopConfig,
    OptimizerConfig,
    Recipe,
    Source,
    ValidationConfig,
)

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that can be forked"),
]

# Files of a run that contain times and paths; records are compared separately.
ASIDE = re.compile(r"(environment\.json|metrics\.jsonl|state\.pt|best\.pt)$")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Path:
    """A recipe file of three steps on three balls, from a tiny model that was trained for one."""
    from twofold.backbones import new
    from twofold.train.run import run_recipe

    root = tmp_path_factory.mktemp("killed")
    save_model(new.tiny(), ModelSettings(name="tiny", size=32), root / "model", torch.float32)
    world.folder(root / "balls", 3, 32)
    warm = Recipe(
        name="warm",
        model=DenoiserConfig(
            init_from=str(root / "model"),
            unet="frozen",
            text_encoder="frozen",
            head=HeadConfig(name="light"),
            latent_loss_weight=0.0,
            pixel_loss_weight=1.0,
        ),
        data=DataConfig(
            task_weights={"depth": 1.0, "normals": 1.0},
            size=(32, 32),
            sources=(Source(path=str(root / "balls")),),
        ),
        optimizer=OptimizerConfig(warmup_steps=0),
        ema=EmaConfig(decay=0.9, update_every=2),
        loop=LoopConfig(steps=1, batch_size=2, save_every=1),
        validation=ValidationConfig(every=0),
    )
    list(run_recipe(warm, root / "warm"))
    warm.replace(
        name="better", model={"init_from": str(root / "warm" / "checkpoint")}, loop={"steps": 3}
    ).save(root / "recipe.json")
    return root / "recipe.json"


def improving(recipe: Path, out: Path) -> list[str]:
    """The arguments of one round."""
    arguments = [
        "improve",
        str(recipe),
        "--out",
        str(out),
        "--steps",
        "2",
        "--guidance",
        "1",
        "--strength",
        "0.5",
    ]
    return [*arguments, "--device", "cpu"]


def creating(recipe: Path, out: Path) -> list[str]:
    """The arguments of a creation from the same balls."""
    root = recipe.parent
    arguments = [
        "create",
        str(root / "balls"),
        "--model",
        str(root / "warm" / "checkpoint"),
        "--out",
        str(out),
    ]
    return [
        *arguments,
        "--steps",
        "2",
        "--scoring",
        "cheap",
        "--sampler",
        "dpmpp_2m",
        "--batch",
        "2",
        "--device",
        "cpu",
    ]


def child(arguments: list[str], prepare: Callable[[], None] = lambda: None) -> int:
    """The command in a process of its own; how it ended, as `os.waitpid` has it."""
    number = os.fork()
    if number == 0:
        code = 1
        try:
            sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115  # of a process that ends here
            prepare()
            code = command(arguments)
        finally:
            os._exit(code)
    return os.waitpid(number, 0)[1]


def at(where: str, count: int = 1, after: bool = False) -> Callable[[], None]:
    """Killed before, or after, the ``count``-th file or folder of a name like ``where`` becomes itself."""

    def prepare() -> None:
        seen = [0]

        def watched(become: Callable[..., Any]) -> Callable[..., Any]:
            def moved(source: Any, target: Any, *rest: Any) -> None:
                seen[0] += bool(re.search(where, str(target)))
                now = seen[0] == count and bool(re.search(where, str(target)))
                if now and not after:
                    os.kill(os.getpid(), signal.SIGKILL)
                become(source, target, *rest)
                if now:
                    os.kill(os.getpid(), signal.SIGKILL)

            return moved

        patch = pytest.MonkeyPatch()  # of a process that is killed
        patch.setattr(os, "replace", watched(os.replace))
        patch.setattr(os, "rename", watched(os.rename))

    return prepare


def within(bytes_: int) -> Callable[[], None]:
    """Killed by the system in the middle of the first file that grows beyond so many bytes."""

    def prepare() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_, resource.RLIM_INFINITY))

    return prepare


def files(root: Path) -> dict[str, bytes]:
    """Every file by name, except times and paths. Names of cached latents depend on the times of their images."""
    found = {}
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        name, held = path.relative_to(root), path.read_bytes()
        if "latents" in name.parts:
            name = name.parent / hashlib.sha256(held).hexdigest()
        if not ASIDE.search(path.name):
            found[name.as_posix()] = held
    return found


def tensors(found: Any, name: str = "") -> dict[str, Any]:
    """Every tensor and number in nested dicts and lists, by where it is."""
    inner = (
        found.items() if isinstance(found, dict) else enumerate(found) if isinstance(found, list) else None
    )
    if inner is None:
        return {name: found}
    return {k: v for key, value in inner for k, v in tensors(value, f"{name}/{key}").items()}


def assert_same(whole: Path, killed: Path) -> None:
    """The same files, states and losses, and nothing half written."""
    assert files(whole).keys() == files(killed).keys()
    assert [k for k, v in files(whole).items() if files(killed)[k] != v] == []
    assert not [p for p in killed.rglob("*") if ".tmp-" in p.name or ".partial" in p.name]
    for name in (p.relative_to(whole) for p in whole.rglob("state.pt")):
        a, b = (tensors(torch.load(root / name, weights_only=True)) for root in (whole, killed))
        assert a.keys() == b.keys()
        same = {k: torch.equal(v, b[k]) if isinstance(v, torch.Tensor) else v == b[k] for k, v in a.items()}
        assert [k for k, v in same.items() if not v] == []
    for name in (p.relative_to(whole) for p in whole.rglob("metrics.jsonl")):
        record = [[json.loads(x) for x in (r / name).read_text().splitlines()] for r in (whole, killed)]
        assert [(x["step"], x.get("loss")) for x in record[0]] == [
            (x["step"], x.get("loss")) for x in record[1]
        ]


# In the order in which a run goes through them, each after the one before was survived.
MOMENTS = {
    "before its first picture": at(r"created-0/image/.*png$"),
    "after its second row": at(r"\.rows/", 2, after=True),
    "before rows become a manifest": at(r"created-0/metadata\.jsonl$"),
    "before creation is called done": at(r"created-0/done$"),
    "between creation and training": at(r"created-0/done$", after=True),
    "before its first state": at(r"training/state\.pt$"),
    "after the state of a step": at(r"training/state\.pt$", 2, after=True),
    "in the middle of writing a state": within(100_000),
    "after the state of the last step": at(r"training/state\.pt$", after=True),
    "in the middle of writing weights": within(100_000),
    "before its checkpoint has its name": at(r"training/checkpoint$"),
    "before the student has its name": at(r"/student$"),
    "before the last checkpoint has its name": at(r"run/checkpoint$"),
}


def test_improving_killed_at_each_moment_that_matters_ends_in_the_same_files(recipe, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "run"  # files contain paths
    assert command(improving(recipe, killed)) == 0
    killed.rename(whole)
    for name, prepare in MOMENTS.items():
        status = child(improving(recipe, killed), prepare)
        assert os.WIFSIGNALED(status), f"not killed {name}: {status}"
    assert not (killed / "checkpoint").exists()
    assert command(improving(recipe, killed)) == 0
    assert_same(whole, killed)
    assert (killed / "checkpoint" / "twofold.json").exists()


def test_creating_killed_at_each_moment_that_matters_ends_in_the_same_files(recipe, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "run"
    assert command(creating(recipe, killed)) == 0
    killed.rename(whole)
    for prepare in (
        at(r"image/.*png$", 2),
        within(2_000),
        at(r"\.rows/", 1, after=True),
        at(r"metadata\.jsonl$"),
        at(r"metadata\.jsonl$", after=True),
    ):
        assert os.WIFSIGNALED(child(creating(recipe, killed), prepare))
    assert command(creating(recipe, killed)) == 0
    assert_same(whole, killed)


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [creating, improving])
def test_whole_commands_killed_at_random_moments_end_in_the_same_files(recipe, tmp_path, arguments):
    """Processes of their own, from the start of the interpreter on; each is killed until one ends by itself."""
    rng = random.Random(arguments.__name__)
    whole, killed = tmp_path / "whole", tmp_path / "run"
    run = [sys.executable, "-m", "twofold"]
    began = time.monotonic()
    subprocess.run([*run, *arguments(recipe, killed)], check=True, capture_output=True)
    seconds, kills = time.monotonic() - began, 0
    killed.rename(whole)
    while True:
        process = subprocess.Popen(
            [*run, *arguments(recipe, killed)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            # Never before the interpreter has begun to do something, and in the end not at all.
            process.wait(rng.uniform(0.5, 1.0) * seconds if kills < 6 else None)
            break
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
    assert process.returncode == 0
    assert kills
    assert_same(whole, killed)
