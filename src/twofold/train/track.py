"""Where a run is written down for people: ``metrics.jsonl``, and a tracker such as TensorBoard if there is one."""

from __future__ import annotations

import importlib.util
import json
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..image import read_image
from ..io import FormatError, append_line, atomic_write, check_types, complete_lines, parse_object
from .distributed import DistributedContext
from .loop import Record
from .recipe import Recipe

EVERY = 10  # steps
PACKAGES = ("twofold", "torch", "diffusers", "transformers", "accelerate", "peft", "safetensors", "numpy")


def chosen(tracker: str) -> str | None:
    """The tracker's name as accelerate knows it; ``auto`` is TensorBoard where it is installed, else none.

    Raises:
        ValueError: TensorBoard is asked for and not installed.
    """
    there = any(importlib.util.find_spec(name) for name in ("tensorboard", "tensorboardX"))
    if tracker == "auto":
        return "tensorboard" if there else None
    if tracker == "tensorboard" and not there:
        raise ValueError("TensorBoard is not installed; pip install 'twofold[train]', or --tracker none")
    return None if tracker == "none" else tracker


class RunLogger:
    """Writes a run's records, in the first process only.

    Args:
        run: the run's folder.
        recipe: of the run.
        distributed: its processes.
    """

    def __init__(self, run: Path, recipe: Recipe, distributed: DistributedContext) -> None:
        self.run, self.distributed, self.path = run, distributed, run / "metrics.jsonl"
        self.tracked = bool(distributed.accelerator.log_with)
        self.begun = False
        if self.tracked:
            distributed.accelerator.init_trackers("tracker", config=_flat(recipe))

    def write(self, record: Record) -> None:
        """Keep a record of every tenth step, and of every validation."""
        if not self.begun:
            self._begin(record["step"])
        if not self.distributed.first or not ("validation" in record or record["step"] % EVERY == 0):
            return
        append_line(self.path, json.dumps(record))
        if self.tracked:
            self._track(record)

    def end(self) -> None:
        """Close the tracker."""
        if self.tracked:
            self.distributed.accelerator.end_training()

    def _begin(self, step: int) -> None:
        """Note what the run is made with, and forget records of steps that are about to be repeated."""
        self.begun = True
        if not self.distributed.first:
            return
        with atomic_write(self.run / "environment.json") as file:
            file.write_text(json.dumps(environment(self.distributed), indent=2) + "\n")
        if self.path.exists():
            kept = [line for line, record in read_records(self.path) if record["step"] < step]
            with atomic_write(self.path) as file:
                file.write_text("".join(kept))

    def _track(self, record: Record) -> None:
        values = {k: v for k, v in record.items() if isinstance(v, float)}
        values |= {f"validation/{k}": v for k, v in record.get("validation", {}).items()}
        self.distributed.accelerator.log(values, step=record["step"])
        picture = self.run / "pictures" / f"step-{record['step']:06d}.png"
        if "validation" in record and picture.exists():
            seen = read_image(picture).permute(1, 2, 0)[None].numpy()
            for tracker in self.distributed.accelerator.trackers:
                if hasattr(tracker, "log_images"):
                    tracker.log_images({"validation": seen}, step=record["step"], dataformats="NHWC")


def read_records(path: Path) -> list[tuple[str, Record]]:
    """The whole lines of a ``metrics.jsonl`` with their records; half a last line, which a kill leaves, is dropped.

    Raises:
        ValueError: a line is no record.
    """
    found: list[tuple[str, Record]] = []
    for number, line in enumerate(filter(None, complete_lines(path)), 1):
        where = f"{path}, line {number},"
        try:
            record = parse_object(line, where)
            check_types(record, {"step": int}, where)
        except FormatError as error:
            raise ValueError(f"{error}; move the file away, and run again") from None
        found.append((line + "\n", record))
    return found


def environment(distributed: DistributedContext) -> dict[str, Any]:
    """What a run's numbers may depend on besides its recipe."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "device": str(distributed.device),
        "processes": distributed.size,
        "versions": versions,
    }


def _flat(recipe: Recipe) -> dict[str, str | int | float | bool]:
    """The recipe as trackers take it: plain values only."""
    values = recipe.model_dump(mode="json")
    return {k: v if isinstance(v, str | int | float | bool) else json.dumps(v) for k, v in values.items()}
