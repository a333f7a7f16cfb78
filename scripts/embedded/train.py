"""The training loop: resumable, stopped by a signal or a time limit, on a CPU or a GPU.

The learning rate is constant until ``--decay N`` is passed, which ends the run with N steps of decaying rate (a
warmup-stable-decay schedule); the state before them is kept, so that the run can be continued from there.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from twofold.environment import has_fast_bfloat16

from .batches import Batch, make_batch
from .images import ImageTask
from .losses import depth_losses, mask_loss, normals_loss
from .model import PerceptionModel, start
from .pack import Pack

WEIGHTS = {"depth": 1.0, "gradient": 0.5, "disparity": 0.5, "normals": 1.0, "mask": 0.5, "offset": 0.05}
RATES = {"image_adapter.encoder.": 1.5e-4, "unet.": 3e-4, "": 1e-3}
WARMUP, LOG_EVERY, SAVE_EVERY, EMA = 150, 20, 50, 0.999
KEEP_EVERY = 200  # steps between two states that stay on disk
MAX_NON_FINITE = 3  # steps in a row without an update after which the run ends


class Run:
    """A run's state: weights, their average, optimizer and step."""

    def __init__(self, folder: Path, model: PerceptionModel) -> None:
        self.folder, self.model, self.step = folder, model, 0
        groups: dict[str, list[nn.Parameter]] = {prefix: [] for prefix in RATES}
        self.parameters = dict(model.named_parameters())
        for name, parameter in self.parameters.items():
            groups[next(p for p in RATES if name.startswith(p))].append(parameter)
        self.optimizer = torch.optim.AdamW(
            [{"params": found, "rate": RATES[prefix]} for prefix, found in groups.items()],
            betas=(0.9, 0.99), weight_decay=0.01, fused=True,
        )  # fmt: skip
        self.average = {k: p.detach().clone() for k, p in self.parameters.items()}

    @property
    def path(self) -> Path:
        """The file of the state."""
        return self.folder / "state.pt"

    def load(self, path: Path) -> None:
        """Resume from a state."""
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        for k, v in state["average"].items():
            self.average[k].copy_(v)
        self.step = state["step"]

    def save(self, path: Path) -> None:
        """Write the state atomically."""
        state = {
            "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "average": self.average,
            "step": self.step,
        }  # fmt: skip
        temporary = path.with_suffix(".tmp")
        torch.save(state, temporary)
        os.replace(temporary, path)

    def update(self, loss: torch.Tensor, share: float) -> float:
        """One optimizer step with learning rates multiplied by ``share``; returns the gradient's norm."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for group in self.optimizer.param_groups:
            group["lr"] = group["rate"] * share
        norm = float(nn.utils.clip_grad_norm_(self.model.parameters(), 1.0))
        if norm < float("inf"):
            self.optimizer.step()
        return norm

    @torch.no_grad()
    def average_weights(self) -> None:
        """Update the exponential moving average, with a lower decay at first."""
        decay = min(EMA, (self.step + 1) / (self.step + 10))
        current = [p.detach() for p in self.parameters.values()]
        torch._foreach_lerp_(list(self.average.values()), current, 1 - decay)

    @torch.no_grad()
    def use_average(self) -> None:
        """Put the averaged weights into the model."""
        for k, p in self.parameters.items():
            p.copy_(self.average[k])


def losses(model: PerceptionModel, batch: Batch) -> dict[str, torch.Tensor]:
    """Unweighted losses of a batch; the network in bf16 where that is fast, losses in fp32."""
    image = batch.image.contiguous(memory_format=torch.channels_last)
    with torch.autocast(image.device.type, torch.bfloat16, enabled=has_fast_bfloat16(image.device)):
        log_depth, normals, mask = model(image)
    found = depth_losses(log_depth.float(), batch.log_depth)
    return found | {
        "normals": normals_loss(normals.float(), batch.normals),
        "mask": mask_loss(mask.float(), batch.mask),
    }


def batches(first: int, given: argparse.Namespace, device: torch.device) -> Iterator[tuple[int, Batch]]:
    """Batches from step ``first`` on, prefetched in threads; growing packs are refreshed."""
    packs = [Pack(Path(p.rpartition(":")[0]), device) for p in given.pack]
    shares = [float(p.rpartition(":")[2]) for p in given.pack]
    shares = [s / sum(shares) for s in shares]
    made: queue.Queue = queue.Queue(4)

    def feed() -> None:
        for step in range(first, 1 << 40):
            if step % 100 == 0:
                for pack in packs:
                    pack.refresh()
            made.put((step, make_batch(given.seed, step, packs, shares, given.batch, device)))

    threading.Thread(target=feed, daemon=True).start()
    while True:
        yield made.get()


def train(run: Run, given: argparse.Namespace, device: torch.device) -> None:
    """Train until a signal, the time limit or the end of the decay, and save the state."""
    stopped: list[int] = []
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda number, _: stopped.append(number))
    began, logged, sums, seen = time.monotonic(), time.monotonic(), {}, 0
    images = ImageTask(run.model.backbone, given.images, device) if given.images else None
    last = run.step + given.decay if given.decay else 1 << 40
    failed = 0  # steps in a row whose gradient is not finite
    for step, batch in batches(run.step, given, device):
        share = min(1.0, (step + 1) / WARMUP) * (
            max(0.02, (last - step) / given.decay) if given.decay else 1.0
        )
        found = losses(run.model, batch)
        norm = run.update(sum((WEIGHTS[k] * v for k, v in found.items()), torch.zeros(())), share)
        failed = 0 if norm < float("inf") else failed + 1
        if failed >= MAX_NON_FINITE:
            raise SystemExit(
                f"{run.folder}: diverged, the gradient is not finite in steps {step - failed + 1} to {step}; go on "
                f"from an earlier state (step-N.pt, every {KEEP_EVERY} steps) with other settings"
            )
        record = {**{k: float(v.detach()) for k, v in found.items()}, "norm": norm}
        if images is not None and step % given.image_every == 0:
            loss = images.loss(step)
            run.update(loss, share)
            record["image"] = float(loss.detach()) * given.image_every
        run.step += 1
        run.average_weights()
        seen += len(batch.image)
        sums = {k: sums.get(k, 0.0) + v for k, v in record.items()} | {
            k: v for k, v in sums.items() if k not in record
        }
        if run.step % LOG_EVERY == 0:
            rate = seen / (time.monotonic() - logged)
            row = {
                "step": run.step,
                **{k: round(v / LOG_EVERY, 4) for k, v in sums.items()},
                "examples/s": round(rate, 2),
            }
            with (run.folder / "log.jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n")
            logged, sums, seen = time.monotonic(), {}, 0
        over = bool(given.seconds) and time.monotonic() - began > given.seconds
        if stopped or over or run.step == last or run.step % SAVE_EVERY == 0:
            run.save(run.folder / "final.pt" if given.decay and run.step == last else run.path)
        if run.step % KEEP_EVERY == 0:
            run.save(run.folder / f"step-{run.step}.pt")
        if stopped or over or run.step == last:
            print(f"{run.folder}: stopped at step {run.step}; the same command goes on", flush=True)
            return


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--pack", action="append", required=True, help="PACK:SHARE of the examples; several")
    parser.add_argument("--start", default="embedded", help="checkpoint to start from")
    parser.add_argument(
        "--images", type=Path, default=None, help="latents for the image task (see images.py)"
    )
    parser.add_argument("--image-every", type=int, default=4, help="steps between two of the image task")
    parser.add_argument("--batch", type=int, default=12, help="examples of 192x256 a step")
    parser.add_argument("--seconds", type=float, default=0, help="stop after so long")
    parser.add_argument("--decay", type=int, default=0, help="end the run in so many steps of a falling rate")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    given.run.mkdir(parents=True, exist_ok=True)
    device = torch.device(given.device)
    model, _ = start(given.start)
    model.to(device)
    parts: list[Any] = [
        model.unet,
        model.image_adapter,
        model.heads,
        model.backbone.vae.requires_grad_(False),
    ]
    for part in parts:
        part.to(memory_format=torch.channels_last)
    model.backbone.to(device)
    run = Run(given.run, model)
    if run.path.exists():
        run.load(run.path)
    train(run, given, device)


if __name__ == "__main__":
    main()
