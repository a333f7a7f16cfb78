"""Logs of a run: ``metrics.jsonl``, ``environment.json``, and a tracker such as TensorBoard."""

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
from .loop import Record, preview_path
from .recipe import Recipe

LOG_EVERY = 10  # steps
PACKAGES = ("twofold", "torch", "diffusers", "transformers", "accelerate", "peft", "safetensors", "numpy")


def tracker_name(tracker: str) -> str | None:
    """The name of a tracker for accelerate; ``auto`` is TensorBoard if it is installed; None tracks nothing.

    Raises:
        ValueError: ``tracker`` is TensorBoard, which is not installed.
    """
    installed = any(importlib.util.find_spec(name) for name in ("tensorboard", "tensorboardX"))
    if tracker == "auto":
        return "tensorboard" if installed else None
    if tracker == "tensorboard" and not installed:
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
        self.started = False
        if self.tracked:
            distributed.accelerator.init_trackers("tracker", config=_flat(recipe))

    def write(self, record: Record) -> None:
        """Log a record of every tenth step, and of every validation."""
        if not self.started:
            self._start(record["step"])
        if not self.distributed.first or not ("validation" in record or record["step"] % LOG_EVERY == 0):
            return
        append_line(self.path, json.dumps(record))
        if self.tracked:
            self._track(record)

    def end(self) -> None:
        """Close the tracker."""
        if self.tracked:
            self.distributed.accelerator.end_training()

    def _start(self, step: int) -> None:
        """Write the environment, and remove records from ``step`` on, which are about to be repeated."""
        self.started = True
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
        path = preview_path(self.run, record["step"])
        if "validation" in record and path.exists():
            preview = read_image(path).permute(1, 2, 0)[None].numpy()
            for tracker in self.distributed.accelerator.trackers:
                if hasattr(tracker, "log_images"):
                    tracker.log_images({"validation": preview}, step=record["step"], dataformats="NHWC")


def read_records(path: Path) -> list[tuple[str, Record]]:
    """The complete lines of a ``metrics.jsonl`` with their records; an incomplete last line (of a kill) is dropped.

    Raises:
        ValueError: a line is not a record.
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
    """Versions, platform, device and number of processes, on which a run's numbers may depend."""
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
    """The recipe as plain values, which trackers accept; nested parts as JSON."""
    values = recipe.model_dump(mode="json")
    return {k: v if isinstance(v, str | int | float | bool) else json.dumps(v) for k, v in values.items()}
