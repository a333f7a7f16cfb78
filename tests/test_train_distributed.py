"""Two processes train as one does: the same weights, rates and records, and one of them writes."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
import traceback
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState

import two_processes
import world
from twofold.train import (
    DataConfig,
    DenoiserConfig,
    EmaConfig,
    HeadConfig,
    LoopConfig,
    NetworkConfig,
    OptimizerConfig,
    Recipe,
    Source,
    ValidationConfig,
    track,
)
from twofold.train.distributed import DistributedContext, buckets
from twofold.train.loop import train
from twofold.train.run import run_recipe

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that can be forked"),
]

HERE = Path(__file__).parent
STEPS = 3
# Sums of gradients in another order differ by rounding, 1e-7 of them; Adam divides by their size, which eps keeps from
# making more of it.
CLOSE = 1e-5


def plan(start: Path, folder: Path, **changes) -> Recipe:
    recipe = Recipe(
        name="distributed",
        model=DenoiserConfig(init_from=str(start), head=HeadConfig(name="light"), pixel_loss_weight=1.0),
        data=DataConfig(
            sources=(Source(path=str(folder)),),
            task_weights={"image": 1.0, "depth": 1.0, "normals": 1.0},
            size=(16, 16),
            skip_bad=True,
        ),
        optimizer=OptimizerConfig(lr=1e-3, eps=1e-3, warmup_steps=2),
        ema=EmaConfig(decay=0.5),
        loop=LoopConfig(steps=STEPS, batch_size=4, micro_batch_size=1, save_every=2),
        validation=ValidationConfig(data=str(folder), every=2, num_samples=1),
    )
    return recipe.replace(**changes)


def own(folder: Path, **changes) -> Recipe:
    """A user-defined network with pseudo-labels for half of the images, and no operation across a batch."""
    recipe = Recipe(
        name="own",
        model=NetworkConfig(factory=f"{HERE / 'plain.py'}:Plain"),
        data=DataConfig(
            task_weights={"depth": 1.0, "normals": 1.0},
            sources=(Source(path=str(folder)), Source(path=str(folder), labels="teacher")),
            size=(16, 16),
            skip_bad=True,
        ),
        optimizer=OptimizerConfig(lr=1e-3, eps=1e-3, warmup_steps=2),
        ema=EmaConfig(decay=0.5, update_every=4),
        loop=LoopConfig(steps=STEPS, batch_size=4, micro_batch_size=1, save_every=2),
        validation=ValidationConfig(every=0),
    )
    return recipe.replace(**changes)


def forked(root: Path, rank: int, port: int) -> int:
    """One of two processes with the environment that ``torchrun`` sets; forked, so that nothing is imported again."""
    number = os.fork()
    if number == 0:
        code = 1
        try:
            os.environ.update(
                RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2",
                MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
            )  # fmt: skip
            AcceleratorState._reset_state(reset_partial_state=True)
            two_processes.main(root)
            code = 0
        except BaseException:  # noqa: BLE001  # reported by the test
            with (root / "errors.txt").open("a") as errors:
                traceback.print_exc(file=errors)
        finally:
            os._exit(code)
    return number


def finish(children: set[int], errors: Path) -> None:
    """Waits for these processes only: ``os.wait`` would also take those that other tests of this process started."""
    while children:
        time.sleep(0.02)
        for child in sorted(children):
            ended, status = os.waitpid(child, os.WNOHANG)
            if not ended:
                continue
            children.remove(child)
            for other in children if status else ():  # it would wait for the one that failed
                os.kill(other, signal.SIGKILL)
                os.waitpid(other, 0)
            assert status == 0, errors.read_text()


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tiny_model) -> Path:
    """The same recipe, by one process and by two; and by two after one of them was left by one process."""
    root = tmp_path_factory.mktemp("distributed")
    data = world.folder(root / "balls", 5, 16)
    (data / "image" / "ball-3.png").write_bytes(b"no picture")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free_port = probe.getsockname()[1]
    patch = pytest.MonkeyPatch()
    patch.setattr(track, "LOG_EVERY", 1)
    (root / "recipes").mkdir()
    plan(tiny_model, data).save(root / "recipes" / "two.json")
    resumed = plan(tiny_model, data, name="resumed", loop={"micro_batch_size": 2})
    resumed.save(root / "recipes" / "resumed.json")
    # Every batch has one task, so that the other heads have no gradient in any process.
    apart = {
        "data": {"block_size": 4},
        "optimizer": {"weight_decay": 0.5},
        "loop": {"steps": 4},
        "validation": {"every": 0},
    }
    plan(tiny_model, data, **apart).save(root / "recipes" / "apart.json")
    list(
        run_recipe(
            plan(tiny_model, data, **apart).replace(loop={"micro_batch_size": 2}), root / "runs" / "one-apart"
        )
    )
    own(data).save(root / "recipes" / "own.json")
    list(run_recipe(own(data, loop={"micro_batch_size": 2}), root / "runs" / "one-own"))
    list(run_recipe(plan(tiny_model, data, loop={"micro_batch_size": 2}), root / "runs" / "one"))
    begun = run_recipe(resumed, root / "runs" / "resumed")
    for _ in range(3):
        next(begun)
    begun.close()
    patch.undo()
    finish({forked(root, rank, free_port) for rank in (0, 1)}, root / "errors.txt")
    return root


def seen(runs: Path) -> list[dict]:
    return [json.loads((runs / f"seen-{rank}.json").read_text()) for rank in (0, 1)]


def state(folder: Path) -> dict:
    return torch.load(folder / "state.pt", weights_only=True)


def test_there_are_two_processes(runs):
    """Or everything below would hold of one."""
    assert [(s["size"], s["rank"]) for s in seen(runs)] == [(2, 0), (2, 1)]
    reported = json.loads((runs / "runs" / "two" / "environment.json").read_text())
    assert reported["processes"] == 2


@pytest.mark.parametrize(
    "name, alone", [("two", "one"), ("resumed", "one"), ("apart", "one-apart"), ("own", "one-own")]
)
def test_two_processes_end_where_one_does(runs, name, alone):
    """Also those that go on from one's state; each shows the network half of what one shows it at once."""
    one, two = state(runs / "runs" / alone), state(runs / "runs" / name)
    assert one["step"] == two["step"] >= STEPS
    for part in ("weights", "ema"):
        assert one[part].keys() == two[part].keys()
        for key, value in one[part].items():
            torch.testing.assert_close(two[part][key], value, rtol=0, atol=CLOSE)
    settings = "network.json" if name == "own" else "twofold.json"
    assert (runs / "runs" / name / "checkpoint" / settings).exists()


def test_records_are_those_of_one_process_and_reach_both(runs):
    lines = (runs / "runs" / "one" / "metrics.jsonl").read_text().splitlines()
    one = {record["step"]: record for record in map(json.loads, lines)}
    first, second = ({r["step"]: r for r in s["records"]["two"]} for s in seen(runs))
    assert [*first] == [*second] == [*one] == [1, 2, 3]
    for step, record in one.items():
        for other in (first[step], second[step]):
            reported = {k for k, v in record.items() if isinstance(v, float)} - {"seconds"}
            assert {"loss", "lr", "norm"} < reported <= other.keys()
            assert other["lr"] == record["lr"], "a rate for each update, however many processes there are"
            for key in reported:
                assert other[key] == pytest.approx(record[key], rel=1e-4)
    assert first[2]["validation"].keys() == one[2]["validation"].keys() != set()


def test_one_process_writes_what_both_have_found(runs):
    first, second = (s["written"] for s in seen(runs))
    assert {Path(p).name for p in first} >= {"state.pt", "recipe.json", "environment.json", "skipped.jsonl"}
    assert all(Path(p).parent.parent.name == "latents" for p in second), "latents are shared work"
    listed = (runs / "runs" / "two" / "skipped.jsonl").read_text().splitlines()
    assert [json.loads(line)["sample"] for line in listed] == ["balls/ball-3"]
    lines = (runs / "runs" / "two" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [2, 3], "those with a validation, and once"


def test_gradients_are_summed_in_buckets_to_the_same_bits(runs):
    """Of several types and layouts, one of which only one of the processes has, and one that none has."""
    assert [s["sums"] for s in seen(runs)] == [{"equal": True, "none": True}] * 2


def test_a_bucket_holds_tensors_of_one_type_up_to_its_size():
    sizes = [4, 4, 4, 40, 4, 4]
    tensors = [torch.zeros(n, dtype=torch.float64 if i == 5 else torch.float32) for i, n in enumerate(sizes)]
    found = buckets(tensors, 32)
    assert [[t.numel() for t in bucket] for bucket in found] == [[4, 4], [4], [40], [4], [4]]
    assert [id(t) for bucket in found for t in bucket] == [id(t) for t in tensors]


def test_a_batch_that_cannot_be_shared_is_refused_before_anything_is_encoded(tmp_path, tiny_model):
    from twofold.backbones import new

    distributed = DistributedContext("cpu")
    assert (distributed.rank, distributed.size, distributed.first) == (0, 1, True)
    distributed.size = 3
    recipe = plan(tiny_model, world.folder(tmp_path / "balls", 2, 16))
    with pytest.raises(ValueError, match="a batch of 4 cannot be shared by 3 processes"):
        next(train(new.tiny(), recipe, tmp_path / "run", distributed=distributed))
    assert not (tmp_path / "latents").exists()


@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_processes_share_a_batch_without_overlap(size):
    distributed = DistributedContext("cpu")
    distributed.size, shares = size, []
    for distributed.rank in range(size):
        shares += distributed.local_indices(6)
    assert shares == [0, 1, 2, 3, 4, 5]
