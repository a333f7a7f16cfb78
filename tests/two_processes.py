"""One of the processes of `test_train_distributed`: trains what it is given, and writes down what it saw."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from unittest import mock

from twofold.train.distributed import DistributedContext
from twofold.train.recipe import Recipe
from twofold.train.run import run_recipe


def main(folder: Path) -> None:
    """Every recipe ``NAME.json`` of the folder, into ``folder/runs/NAME``."""
    distributed = DistributedContext("cpu")
    become = os.replace
    written: list[str] = []

    def replaced(source: str | Path, target: str | Path) -> None:
        written.append(str(target))
        become(source, target)

    with mock.patch.object(os, "replace", replaced):
        records = {
            path.stem: list(
                run_recipe(Recipe.read(path, allow_code=True), folder / "runs" / path.stem, distributed)
            )
            for path in sorted((folder / "recipes").glob("*.json"))
        }
    seen = {"size": distributed.size, "rank": distributed.rank, "records": records, "written": written}
    (folder / f"seen-{distributed.rank}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
