"""Install a checkpoint as the embedded model: weights in half precision, settings and digest.

    python scripts/embed.py runs/light/checkpoint --size 256 --credits data/rooms

Replaces src/twofold/backbones/embedded, except for the card (README.md), which is written by hand.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from twofold.checkpoints import EMBEDDED, digest, model_weight_files, open_model, save_model

LIMIT = 60 << 20
TRAINED_ON = (
    "ImageNet, through the weights of EfficientNet-Lite0 that the image encoder started from (Apache-2.0)",
    "scenes rendered by twofold (CC0-1.0; furniture models of sweethome3d-furniture, CC0 and CC BY 3.0)",
    "TUM RGB-D, freiburg1_rpy (CC BY 4.0, Sturm et al. 2012)",
    "Caltech-101 (CC BY 4.0), images only",
    "clothing-dataset-small (CC0-1.0), images only",
    "GroceryStoreDataset (MIT), images only",
)


def credits(folder: Path) -> str:
    """Credits of the models and panoramas in a rendered data folder, from its header."""
    assets = json.loads((folder / "dataset.json").read_text())["renderer"]["assets"]
    lines = [
        "# Credits",
        "",
        "Models and panoramas in the rendered scenes that the embedded model was trained on.",
        "",
    ]
    for asset in assets:
        makers = ", ".join(asset.get("creators", ()))
        lines.append(f"- {asset['name']}: {asset['licence']}{'; ' + makers if makers else ''}")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint")
    parser.add_argument("--size", type=int, default=256, help="longest edge that images are resized to")
    parser.add_argument(
        "--credits", type=Path, help="rendered data folder whose assets' creators are to be named"
    )
    args = parser.parse_args()
    model = open_model(args.checkpoint)
    settings = model.settings.model_copy(
        update={"name": "embedded", "size": args.size, "licence": "Apache-2.0", "trained_on": TRAINED_ON}
    )
    made = EMBEDDED.with_name("embedded.new")
    shutil.rmtree(made, ignore_errors=True)
    save_model(model.backbone, settings, made, heads=model.heads)
    if args.credits:
        (made / "CREDITS.md").write_text(credits(args.credits))
    (made / "digest.txt").write_text(digest(model_weight_files(made)) + "\n")
    card = EMBEDDED / "README.md"
    if card.exists():
        shutil.copy(card, made / "README.md")
    size = sum(p.stat().st_size for p in made.rglob("*") if p.is_file())
    if size > LIMIT:
        raise SystemExit(f"{made} holds {size / 2**20:.1f} MB; at most {LIMIT >> 20} MB are shipped")
    shutil.rmtree(EMBEDDED, ignore_errors=True)
    Path(made).rename(EMBEDDED)
    print(f"{EMBEDDED}: {size / 2**20:.1f} MB, digest {digest(model_weight_files(EMBEDDED))}")


if __name__ == "__main__":
    main()
