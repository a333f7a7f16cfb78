"""Make a checkpoint the embedded model: its weights in half precision, what it is, and its digest.

    python scripts/embed.py runs/joint/checkpoint --size 256

Replaces src/twofold/backbones/embedded, except for the card (README.md), which is written by hand.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from twofold.checkpoints import EMBEDDED, digest, open_model, save_model

LIMIT = 40 << 20
TRAINED_ON = (
    "scenes rendered by twofold (CC0-1.0; furniture models of sweethome3d-furniture, CC0 and CC BY 3.0)",
    "clothing-dataset-small (CC0-1.0), images only",
    "GroceryStoreDataset (MIT), images only",
)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint")
    parser.add_argument("--size", type=int, default=256, help="longest edge pictures are brought to")
    asked = parser.parse_args()
    model = open_model(asked.checkpoint)
    settings = model.settings.model_copy(
        update={"name": "embedded", "size": asked.size, "licence": "Apache-2.0", "trained_on": TRAINED_ON}
    )
    made = EMBEDDED.with_name("embedded.new")
    shutil.rmtree(made, ignore_errors=True)
    save_model(model.backbone, settings, made)
    (made / "digest.txt").write_text(digest(made) + "\n")
    card = EMBEDDED / "README.md"
    if card.exists():
        shutil.copy(card, made / "README.md")
    size = sum(p.stat().st_size for p in made.rglob("*") if p.is_file())
    if size > LIMIT:
        raise SystemExit(f"{made} holds {size / 2**20:.1f} MB; at most {LIMIT >> 20} MB are shipped")
    shutil.rmtree(EMBEDDED, ignore_errors=True)
    Path(made).rename(EMBEDDED)
    print(f"{EMBEDDED}: {size / 2**20:.1f} MB, digest {digest(EMBEDDED)}")


if __name__ == "__main__":
    main()
