"""How examples are loaded, and by how many processes, changes no bit; and no process outlives the run."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from tqdm import tqdm

import world
from twofold import open_model
from twofold.backbones import new
from twofold.cli.main import run as command
from twofold.data.folder import Folder
from twofold.data.writer import FolderWriter
from twofold.tasks import TASKS
from twofold.train import (
    DataConfig,
    DenoiserConfig,
    EmaConfig,
    LoopConfig,
    OptimizerConfig,
    Recipe,
    Source,
    ValidationConfig,
    loop as loops,
)
from twofold.train.dataset import DrawnImage
from twofold.train.denoiser import DenoiserStage
from twofold.train.distributed import DistributedContext
from twofold.train.encoder import BadSample, Encoded, Encoder, batch_size, encode_canvases
from twofold.train.latent_cache import LatentCache
from twofold.train.loop import train
from twofold.train.run import run_recipe
from twofold.train.validation import SampleValidator
from twofold.train.workers import _packed, parallel_map, value, worker_count

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="workers need Linux"),
]

CPU = torch.device("cpu")
SIZES = (16, 24, 16, 32, 24, 16)  # of the images


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Balls of three sizes, with depth and normals."""
    root = tmp_path_factory.mktemp("loading") / "balls"
    writer = FolderWriter(root, {"name": "balls", "targets": {"depth": {}, "normals": {}}})
    for seed, size in enumerate(SIZES):
        writer.write(world.sphere(seed, 2 * size))
    writer.finish()
    return root


@pytest.fixture
def recipe(data, tiny_model) -> Recipe:
    return Recipe(
        name="loading",
        model=DenoiserConfig(init_from=str(tiny_model)),
        data=DataConfig(
            sources=(Source(path=str(data)),),
            size=(16, 16),
            task_weights={"image": 1.0, "depth": 1.0, "normals": 1.0},
        ),
        optimizer=OptimizerConfig(lr=1e-2, warmup_steps=0),
        ema=EmaConfig(decay=0.5),
        loop=LoopConfig(steps=3, batch_size=4, save_every=1),
        validation=ValidationConfig(every=0),
    )


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    """Whatever a test does."""
    yield
    assert multiprocessing.active_children() == []


# ---- encoding


def crops(count: int, size: tuple[int, int]) -> list[Tensor]:
    rng = torch.Generator().manual_seed(count)
    return [torch.rand(3, *size, generator=rng) * 2 - 1 for _ in range(count)]


@pytest.mark.parametrize("size", [(16, 16), (24, 40), (48, 64)])
@pytest.mark.parametrize("name", ["tiny", "embedded"])
def test_a_latent_does_not_depend_on_what_is_encoded_beside_it(name, size):
    """Alone, in another order, among canvases of other sizes: the same bits. Those of a batch of one up to rounding."""
    net = new.tiny() if name == "tiny" else open_model("embedded").backbone
    some = crops(batch_size(*size) + 1, size)
    together = encode_canvases(net, some)
    others = encode_canvases(net, [*crops(2, (32, 16)), *some[::-1]])[:1:-1]
    for i, canvas in enumerate(some):
        assert torch.equal(together[i], others[i])
        assert torch.equal(together[i], encode_canvases(net, [canvas])[0])
        assert together[i].is_contiguous()
        with torch.no_grad():
            torch.testing.assert_close(together[i], net.encode(canvas[None])[0], rtol=0, atol=1e-5)


def test_batches_of_large_canvases_are_small():
    assert [batch_size(n, n) for n in (8, 128, 256, 512, 2048)] == [16, 16, 4, 2, 2]


def cached(data: Path, root: Path, indices: list[int], workers: int = 0) -> dict[str, bytes]:
    """The files of a cache in which these samples are encoded."""
    encoder = Encoder(new.tiny(), {t: TASKS[t] for t in ("depth", "normals")}, latent=True, pixels=True)
    cache = LatentCache(encoder, Folder(data, targets=("depth", "normals")), (16, 16), "genpercept", root, "")
    validator = SampleValidator(False, root / "skipped.jsonl", DistributedContext("cpu"), workers)
    assert validator(cache.folder, indices, cache.prepare, always=True, keep=cache.write) == indices
    return {p.name: p.read_bytes() for p in cache.root.iterdir()}


def test_kept_latents_do_not_depend_on_how_the_work_is_split(data, tmp_path):
    """In one go, by workers, sample by sample, in another order, or in part: every file has the same bytes."""
    whole = cached(data, tmp_path / "whole", list(range(6)))
    assert len(whole) == 6
    assert cached(data, tmp_path / "workers", list(range(6)), workers=2) == whole
    for i in (4, 0, 2, 5, 1):
        parts = cached(data, tmp_path / "parts", [i])
    assert parts.items() < whole.items()
    assert cached(data, tmp_path / "parts", list(range(6))) == whole


def test_a_killed_encoding_goes_on_where_it_was(data, tmp_path):
    """Nothing that is there is read or encoded again."""
    whole = cached(data, tmp_path / "whole", list(range(6)))
    cached(data, tmp_path / "killed", [0, 2, 5])
    prepared: list[int] = []
    prepare = LatentCache.prepare

    def counted(self: LatentCache, i: int) -> Any:
        found = prepare(self, i)
        prepared.extend([i] if found else [])
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LatentCache, "prepare", counted)
        assert cached(data, tmp_path / "killed", list(range(6))) == whole
    assert prepared == [1, 3, 4]


# ---- workers


def ended(plan: Recipe, run: Path) -> tuple[list[Any], dict[str, Tensor]]:
    """Losses and last weights of a run."""
    losses = [r["loss"] for r in run_recipe(plan, run) if "loss" in r]
    return losses, torch.load(run / "state.pt", weights_only=True)["weights"]


@pytest.mark.parametrize(
    "change", [{}, {"cache_latents": False}, {"augment": True}, {"augment": True, "tasks_per_image": "all"}]
)
def test_workers_change_no_bit(recipe, change, tmp_path):
    recipe = recipe.replace(data={"num_workers": 0, **change})
    losses, weights = ended(recipe, tmp_path / "0" / "run")
    assert len(losses) == 3
    others, found = ended(recipe.replace(data={"num_workers": 3}), tmp_path / "3" / "run")
    assert others == losses
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[k], weights[k]) for k in weights)


def test_a_run_goes_on_with_another_number_of_workers(recipe, tmp_path):
    losses, weights = ended(recipe, tmp_path / "whole" / "run")
    begun = run_recipe(recipe.replace(data={"num_workers": 2}), tmp_path / "left" / "run")
    found = [next(begun)["loss"]]
    assert len(multiprocessing.active_children()) == 2
    begun.close()
    assert multiprocessing.active_children() == []
    others, left = ended(recipe.replace(data={"num_workers": 1}), tmp_path / "left" / "run")
    assert found + others == losses
    assert all(torch.equal(left[k], weights[k]) for k in weights)
    assert ended(recipe, tmp_path / "left" / "run")[0] == [], "finished, whatever the number"
    with pytest.raises(ValueError, match="another recipe"):
        list(run_recipe(recipe.replace(optimizer={"lr": 1.0}), tmp_path / "left" / "run"))


def test_examples_of_any_step_can_be_loaded(recipe, tmp_path):
    """Also one that is not the next."""
    stage = DenoiserStage(
        new.tiny(), recipe.replace(data={"num_workers": 2}), tmp_path / "run", {}, DistributedContext("cpu")
    )
    names = {}
    for step in (1, 2, 0, 1, 1):
        drawn = [e.name for image in stage.draw(step) for e in image.values()]
        assert len(drawn) == 4
        assert names.setdefault(step, drawn) == drawn
    assert names[0] != names[1]
    stage.close()


def test_the_global_random_state_is_unchanged(recipe, tmp_path):
    for workers in (0, 2):
        torch.manual_seed(3)
        assert list(map(value, parallel_map(abs, [-1, 2, -3], workers))) == [1, 2, 3]
        assert torch.rand(1) == torch.rand(1, generator=torch.Generator().manual_seed(3))


def test_an_image_round_trips_through_a_worker():
    """Views and random states, too."""
    rng = torch.Generator().manual_seed(7)
    torch.rand(5, generator=rng)
    whole = torch.rand(3, 8, 8)
    there = DrawnImage("a", ("depth",), Encoded(whole[:, 2:5, ::2], "b"), rng, True)
    assert len(_packed(there)) < 8000, "of a view its own numbers"
    back: Any = value(next(parallel_map(lambda _: there, [0], 1)))
    assert torch.equal(back.encoded.image, there.encoded.image)
    assert back.rng.initial_seed() == 7
    assert torch.equal(torch.rand(3, generator=back.rng), torch.rand(3, generator=rng))
    back.encoded.image.mul_(2)  # it can be written to


@pytest.mark.parametrize("workers", [0, 2])
def test_one_thread_computes_an_example(workers):
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert list(parallel_map(lambda _: torch.get_num_threads(), range(3), workers)) == [1] * 3
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_workers_by_default(monkeypatch):
    """None on a CPU, whose processors train; beside a GPU those that are idle, a few at most."""
    gpu = torch.device("cuda")
    for processors, processes, expected in ((2, 1, 0), (4, 1, 2), (16, 1, 4), (16, 8, 0), (32, 8, 2)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, n=processors: range(n))
        assert worker_count(None, gpu, processes) == expected
        assert worker_count(None, CPU, processes) == 0
        assert worker_count(7, CPU, processes) == 7
    monkeypatch.delattr(os, "sched_getaffinity")
    assert worker_count(None, gpu, 1) == worker_count(0, gpu, 1) == 0
    with pytest.raises(ValueError, match=r"num_workers=2 needs Linux.*use 0"):
        worker_count(2, gpu, 1)


# ---- errors and interrupts


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("change", [{}, {"cache_latents": False}, {"augment": True}])
def test_an_error_in_a_worker_names_the_sample(recipe, change, workers, tmp_path):
    broken = world.folder(tmp_path / "balls", 3, 16)
    (broken / "image" / "ball-1.png").write_bytes(b"no image")
    plan = recipe.replace(
        data={"sources": (Source(path=str(broken)),), "num_workers": workers, **change},
        loop={"batch_size": 8},
    )
    with pytest.raises(BadSample, match=r"ball-1.*cannot be used") as caught:
        list(train(new.tiny(), plan, tmp_path / "run"))
    assert "\n" not in str(caught.value)
    assert multiprocessing.active_children() == []
    list(train(new.tiny(), plan.replace(data={"skip_bad": True}), tmp_path / "run"))
    assert "ball-1" in (tmp_path / "run" / "skipped.jsonl").read_text()


def test_an_error_that_concerns_no_sample_is_raised():
    with pytest.raises(ZeroDivisionError, match=r"in worker process|division by zero"):
        list(parallel_map(lambda x: 1 / x, [0], 1))


def test_a_killed_worker_is_reported_in_one_line_with_advice():
    def work(i: int) -> None:
        if i == 5:
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(
        ChildProcessError, match=r"ended \(DataLoader worker.*lower data.num_workers"
    ) as caught:
        list(parallel_map(work, range(9), 2))
    assert "\n" not in str(caught.value)


def group(work: Callable[[], Any]) -> int:
    """``work`` in a process of its own, which leads a group; its number."""
    number = os.fork()
    if number == 0:
        os.setpgid(0, 0)
        code = 1
        try:
            code = work()
        finally:
            os._exit(code)
    return number


def members(group: int) -> list[int]:
    """The processes of a group that run."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            number, rest = int(entry.parent.name), entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(rest[2]) == group and rest[0] not in "ZX":
            found.append(number)
    return found


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_the_run_however_it_ends(recipe, sent, tmp_path):
    """Signals of a terminal or a batch system reach them as well, and are left to the run; a kill reaches it alone."""
    plan = recipe.replace(data={"num_workers": 2, "augment": True}, loop={"steps": 400, "save_every": 0})
    run, marker = tmp_path / "run", tmp_path / "begun"
    plan.save(tmp_path / "recipe.json")
    update = loops.update

    def marked(stage: Any, recipe: Recipe, step: int, *rest: Any) -> Any:
        if step == 3:
            marker.touch()
        return update(stage, recipe, step, *rest)

    def work() -> int:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        pytest.MonkeyPatch().setattr(loops, "update", marked)
        options = ["--out", str(run), "--tracker", "none", "--device", "cpu"]
        return command(["train", str(tmp_path / "recipe.json"), *options])

    number = group(work)
    while not marker.exists():
        time.sleep(0.1)
        assert os.waitpid(number, os.WNOHANG) == (0, 0), "it ended by itself"
    assert len(members(number)) == 3
    if sent == signal.SIGKILL:
        os.kill(number, sent)
    else:
        os.killpg(number, sent)
    status = os.waitpid(number, 0)[1]
    if sent == signal.SIGKILL:
        assert os.WIFSIGNALED(status)
    else:
        assert os.waitstatus_to_exitcode(status) == 130
        assert torch.load(run / "state.pt", weights_only=True)["step"] >= 3
    deadline = time.monotonic() + 60
    while members(number) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert members(number) == []


def test_a_killed_process_does_not_block_progress_bars_of_this_one():
    """See conftest.py: with tqdm's default lock, every later test of this process would hang."""
    reader, writer = os.pipe()

    def hold() -> int:
        tqdm.get_lock().acquire()
        os.write(writer, b"x")
        time.sleep(100)
        return 0

    number = group(hold)
    os.read(reader, 1)
    os.kill(number, signal.SIGKILL)
    os.waitpid(number, 0)
    acquired = tqdm.get_lock().acquire(blocking=False)
    assert acquired
    tqdm.get_lock().release()


def test_recipes_are_compared_by_what_decides_about_the_weights(recipe):
    other = recipe.replace(data={"num_workers": 3})
    assert recipe.equals(other) and other.equals(recipe) and recipe != other
    assert not recipe.equals(recipe.replace(loop={"seed": 1}))
