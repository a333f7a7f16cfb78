"""Killed at any moment, or out of room on the disk: the same command again ends in the same bits.

Killed runs are forked off this process, so that nothing is imported again.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import world
from twofold.cli import train as training
from twofold.cli.main import run as command
from twofold.data.writer import FolderWriter
from twofold.train import (
    DataConfig,
    DenoiserConfig,
    EmaConfig,
    LoopConfig,
    OptimizerConfig,
    Recipe,
    Source,
    ValidationConfig,
    latent_cache as stores,
    loop as loops,
    run as running,
    state as states,
    track,
)
from twofold.train.denoiser import DenoiserStage
from twofold.train.run import run_recipe
from twofold.train.signals import DeferredSignals

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that can be forked"),
]

PIXELS = {"latent_loss_weight": 0.0, "pixel_loss_weight": 1.0}
PLANS: dict[str, dict[str, Any]] = {
    "a mixture": {"data": {"task_weights": {"image": 1.0, "depth": 1.0}}},
    "dropout and batch norm": {
        "data": {"task_weights": {"semantic_logits": 1.0}},
        "model": {"head": {"name": "upernet", "options": {"width": 32}}, "text_encoder": "frozen", **PIXELS},
    },
    "low rank": {"model": {"unet": "lora", "lora": {"rank": 2}, "text_encoder": "frozen"}},
    "a trained decoder": {"model": {"decoder": "full", "text_encoder": "frozen", **PIXELS}},
    "no average": {"data": {"cache_latents": False}, "ema": {"decay": 0.0}},
    "augmented": {"data": {"augment": True}, "loop": {"micro_batch_size": 1}},
}


@pytest.fixture(autouse=True)
def interruptible():
    """A shell starts background commands with SIGINT ignored, and children inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("interrupted") / "balls"
    writer = FolderWriter(root, {"name": "balls", "targets": {"depth": {}, "semantic": {}}})
    for seed in range(4):
        ball = world.sphere(seed, 16)
        depth, known = ball.targets["depth"], ball.valid["depth"]
        targets = {"depth": depth, "semantic": (depth < 1.9).float()}
        writer.write(replace(ball, targets=targets, valid=dict.fromkeys(targets, known)))
    writer.finish()
    return root


@pytest.fixture
def recipe(data, tiny_model, monkeypatch) -> Recipe:
    monkeypatch.setattr(track, "LOG_EVERY", 1)  # every step leaves a record
    return Recipe(
        name="interrupted",
        model=DenoiserConfig(init_from=str(tiny_model)),
        data=DataConfig(sources=(Source(path=str(data)),), size=(16, 16), task_weights={"depth": 1.0}),
        optimizer=OptimizerConfig(lr=1e-2, warmup_steps=0),
        ema=EmaConfig(decay=0.5),
        loop=LoopConfig(steps=3, batch_size=2, save_every=2),
        validation=ValidationConfig(every=0),
    )


def whole(recipe: Recipe, folder: Path) -> float:
    """An uninterrupted run; returns its seconds."""
    began = time.monotonic()
    for _ in run_recipe(recipe, folder):
        pass
    return time.monotonic() - began


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Callable[[Recipe], Path]:
    """The folder of the run of a recipe that nothing interrupts: computed once, since it depends on the recipe only."""
    folders: dict[str, Path] = {}

    def run(recipe: Recipe) -> Path:
        key = repr(recipe)
        if key not in folders:
            folder = tmp_path_factory.mktemp("uninterrupted") / "whole"
            whole(recipe, folder)
            folders[key] = folder
        return folders[key]

    return run


def child(work: Callable[[], Any]) -> int:
    """``work`` in a process of its own; its number."""
    number = os.fork()
    if number == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return number


def outcome(folder: Path) -> tuple[dict[str, torch.Tensor], list[tuple[int, float | None]], dict[str, bytes]]:
    """All tensors of the last state, steps and losses as they are written down, and the checkpoint's files."""
    state = torch.load(folder / "state.pt", weights_only=True)
    assert state["step"] == 3
    reported = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    files = {
        str(p.relative_to(folder)): p.read_bytes() for p in (folder / "checkpoint").rglob("*.safetensors")
    }
    return dict(tensors(state)), [(r["step"], r.get("loss")) for r in reported], files


def tensors(found: Any, name: str = ""):
    """Every tensor in nested dicts and lists, by where it is."""
    inner = found.items() if isinstance(found, dict) else enumerate(found) if isinstance(found, list) else ()
    for key, value in inner:
        yield from tensors(value, f"{name}/{key}")
    if isinstance(found, torch.Tensor):
        yield name, found


def assert_same(a: Path, b: Path) -> None:
    """Two runs ended alike, and left nothing behind."""
    (state, reported, files), (state_, told_, files_) = outcome(a), outcome(b)
    assert state.keys() == state_.keys()
    assert [k for k in state if not torch.equal(state[k], state_[k])] == []
    assert reported == told_
    assert [step for step, _ in reported if step] == [1, 2, 3]
    assert files
    assert files == files_
    assert not list(b.parent.rglob(".tmp-*"))


@pytest.mark.parametrize("plan", PLANS)
def test_a_run_killed_at_random_moments_ends_in_the_same_bits(recipe, plan, tmp_path):
    recipe = recipe.replace(**PLANS[plan])
    seconds = whole(recipe, tmp_path / "a" / "whole")
    number = child(lambda: whole(recipe, tmp_path / "b" / "killed"))
    time.sleep(random.Random(plan).uniform(0.05, 1) * seconds)
    os.kill(number, signal.SIGKILL)
    os.waitpid(number, 0)
    whole(recipe, tmp_path / "b" / "killed")
    assert_same(tmp_path / "a" / "whole", tmp_path / "b" / "killed")


def test_a_run_killed_before_or_after_any_of_its_files_is_written(recipe, uninterrupted, tmp_path):
    """Latents, recipe, records, states: every file becomes itself at one moment; around some, the run is killed."""
    become, begun = os.replace, [0]

    def killed(expected: int, after: bool) -> None:
        def replaced(*names: Any) -> None:
            begun[0] += 1
            if begun[0] == expected and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            become(*names)
            if begun[0] == expected:
                os.kill(os.getpid(), signal.SIGKILL)

        pytest.MonkeyPatch().setattr(os, "replace", replaced)  # of a process that is killed
        whole(recipe, tmp_path / "b" / "killed")

    # Of the first: the recipe and four latents. Of those after it: the recipe, what is left, the records, a state.
    for expected, after in ((3, False), (2, True), (4, False), (3, True), (2, False)):
        _, status = os.waitpid(child(lambda expected=expected, after=after: killed(expected, after)), 0)
        assert os.WIFSIGNALED(status)
    whole(recipe, tmp_path / "b" / "killed")
    assert_same(uninterrupted(recipe), tmp_path / "b" / "killed")


def limited(bytes_: int) -> None:
    """From here on this process cannot write files larger than that, as if the disk were full."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_, resource.RLIM_INFINITY))


def full_at_latents() -> None:
    """The disk is full at the third sample."""
    save, calls = stores.save_file, []

    def saved(*args: Any) -> None:
        calls.append(1)
        if len(calls) == 3:
            limited(100)
        save(*args)

    pytest.MonkeyPatch().setattr(stores, "save_file", saved)


def full_at_state() -> None:
    """The disk is full at the second state, the last."""
    save = states.State.save

    def saved(self: states.State, step: int, *unfinished: Any) -> None:
        if step == 3:
            limited(100_000)
        save(self, step, *unfinished)

    pytest.MonkeyPatch().setattr(states.State, "save", saved)


def full_at_checkpoint() -> None:
    """The disk is full after the training."""
    save = running.save_model

    def saved(*args: Any, **how: Any) -> None:
        limited(10_000)
        save(*args, **how)

    pytest.MonkeyPatch().setattr(running, "save_model", saved)


@pytest.mark.parametrize("full, kept", [(full_at_latents, 0), (full_at_state, 2), (full_at_checkpoint, 3)])
def test_a_full_disk_is_one_line_and_costs_nothing_that_was_saved(
    recipe, full, kept, uninterrupted, tmp_path
):
    folder = tmp_path / "b" / "full"
    recipe.save(tmp_path / "recipe.json")
    read_end, write_end = os.pipe()

    def reported() -> None:
        sys.stderr = os.fdopen(write_end, "w", buffering=1)
        full()
        arguments = [
            "train",
            str(tmp_path / "recipe.json"),
            "--out",
            str(folder),
            "--tracker",
            "none",
            "--device",
            "cpu",
        ]
        assert command(arguments) == 1

    number = child(reported)
    os.close(write_end)
    with os.fdopen(read_end) as output:
        lines = [x for x in output.read().replace("\r", "\n").splitlines() if x.startswith("twofold:")]
    assert os.waitpid(number, 0)[1] == 0
    assert len(lines) == 1
    assert "File too large" in lines[0]
    assert str(tmp_path / "b") in lines[0]
    if kept:
        assert torch.load(folder / "state.pt", weights_only=True)["step"] == kept
    assert not (folder / "checkpoint").exists()
    whole(recipe, folder)
    assert_same(uninterrupted(recipe), folder)


def interrupted(
    recipe: Recipe, folder: Path, prepare: Callable[[], None], arguments: list[str]
) -> tuple[int, str]:
    """Exit code and last message of `twofold train` in a process of its own, in which ``prepare`` sends signals."""
    recipe.save(folder.parent / "recipe.json")
    read_end, write_end = os.pipe()

    def work() -> None:
        sys.stderr = os.fdopen(write_end, "w", buffering=1)
        prepare()
        options = ["--tracker", "none", "--device", "cpu", "--log-every", "1", *arguments]
        code = command(["train", str(folder.parent / "recipe.json"), "--out", str(folder), *options])
        os._exit(code)

    number = child(work)
    os.close(write_end)
    with os.fdopen(read_end) as output:
        lines = [x for x in output.read().replace("\r", "\n").splitlines() if x.startswith("twofold:")]
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]), lines[-1]


def signal_in(module: Any, name: str, at: int, number: int) -> Callable[[], None]:
    """Sends this process a signal at the beginning of a function's call of that number."""
    function, calls = getattr(module, name), []

    def replaced(*args: Any, **how: Any) -> Any:
        calls.append(1)
        if len(calls) == at:
            os.kill(os.getpid(), number)
        return function(*args, **how)

    return lambda: pytest.MonkeyPatch().setattr(module, name, replaced)


STOPS: dict[str, tuple[Any, str, int, dict[str, Any]]] = {
    "in a step": (loops, "update", signal.SIGINT, {}),
    "in a step, by kill": (loops, "update", signal.SIGTERM, {}),
    "while the record is printed": (training, "record_text", signal.SIGINT, {}),
    "while it is validated": (
        DenoiserStage,
        "validate",
        signal.SIGTERM,
        {"validation": {"every": 1, "best_metric": "depth/abs_rel"}},
    ),
}


@pytest.mark.parametrize("where", STOPS)
def test_an_interrupt_saves_the_step_and_reports_it(recipe, where, uninterrupted, tmp_path):
    module, name, number, changes = STOPS[where]
    recipe = recipe.replace(loop={"save_every": 0}, validation={"data": recipe.data.sources[0].path}).replace(
        **changes
    )
    folder = tmp_path / "b" / "stopped"
    folder.parent.mkdir()
    at = 3 if changes else 2  # the start is validated, too
    code, line = interrupted(recipe, folder, signal_in(module, name, at, number), [])
    state = folder / "state.pt"
    assert code == 130
    assert (
        line
        == f"twofold: interrupted; the state after step 2 is saved in {state}; run the same command again to continue"
    )
    assert torch.load(state, weights_only=True)["step"] == 2
    whole(recipe, folder)
    assert_same(uninterrupted(recipe), folder)


def test_an_interrupt_before_the_first_step_reports_that_nothing_is_saved(recipe, tmp_path):
    code, line = interrupted(
        recipe, tmp_path / "run", signal_in(loops, "init_run_dir", 1, signal.SIGTERM), []
    )
    assert code == 130
    assert "no step of the training is saved yet" in line
    assert not (tmp_path / "run" / "state.pt").exists()


def test_a_loop_that_is_left_keeps_its_last_step(recipe, tmp_path):
    recipe = recipe.replace(loop={"save_every": 0})
    for record in run_recipe(recipe, tmp_path / "run"):
        if record["step"] == 2:
            break
    assert states.saved_step(tmp_path / "run" / "state.pt") == 2


def test_signals_are_deferred_once():
    signals, seen = DeferredSignals(), []
    before = signal.signal(signal.SIGTERM, lambda *_: seen.append("delivered"))
    try:
        signals.hold()
        for _ in range(2):  # a launcher passes on what its terminal has sent
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
        assert (signals.pending, seen) == (signal.SIGTERM, [])
        signals._since -= 3
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)  # a second Ctrl-C
        signals.hold()
        os.kill(os.getpid(), signal.SIGTERM)
        signals.deliver()
        assert (signals.pending, seen) == (0, ["delivered"])
        os.kill(os.getpid(), signal.SIGTERM)
        assert seen == ["delivered"] * 2
    finally:
        signals.release()
        signal.signal(signal.SIGTERM, before)


def damage(path: Path, how: str) -> None:
    data = path.read_bytes()
    half = len(data) // 2
    path.write_bytes({"empty": b"", "cut": data[:half], "text": b"hello" * 100}[how])


@pytest.mark.parametrize("how", ["empty", "cut", "text"])
def test_damaged_files_of_a_run_are_named(recipe, how, tmp_path):
    recipe = recipe.replace(
        validation={"every": 1, "best_metric": "depth/abs_rel", "data": recipe.data.sources[0].path}
    )
    run = tmp_path / "runs" / "run"
    records = run_recipe(recipe, run)
    next(r for r in records if r["step"] == 2)
    records.close()
    latents = list((tmp_path / "runs" / "latents").rglob("*.safetensors"))
    for paths, advice in (
        ([run / "state.pt"], "restore"),
        ([run / "best.pt"], "restore"),
        (latents, "delete it"),
    ):
        files = {path: path.read_bytes() for path in paths}
        for path in paths:
            damage(path, how)
        with pytest.raises(ValueError, match=f" is damaged .*{advice}") as caught:
            list(run_recipe(recipe, run))
        assert str(caught.value).startswith(tuple(map(str, paths)))
        assert "\n" not in str(caught.value)
        assert "weights_only" not in str(caught.value)
        for path, data in files.items():
            path.write_bytes(data)
    whole(recipe, run)
