"""Export a run's averaged weights as a checkpoint; scripts/embed.py installs it as the embedded model."""

from __future__ import annotations

import argparse
from pathlib import Path

from .model import start
from .train import Run


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument(
        "--state", default="", help="file in the run's folder (default: final.pt, else state.pt)"
    )
    parser.add_argument("--start", default="embedded", help="checkpoint that the run started from")
    parser.add_argument("--size", type=int, default=320, help="longest edge that images are resized to")
    given = parser.parse_args()
    model, settings = start(given.start)
    run = Run(given.run, model)
    names = [given.state] if given.state else ["final.pt", "state.pt"]
    run.load(next(given.run / name for name in names if (given.run / name).exists()))
    run.use_average()
    model.save(
        settings.model_copy(update={"recipes": (*settings.recipes, given.run.name)}),
        given.checkpoint,
        given.size,
    )
    print(f"{given.checkpoint}: step {run.step}")


if __name__ == "__main__":
    main()
