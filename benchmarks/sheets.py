"""Contact sheets for the documentation: predictions, and images generated from captions or from photographs.

python benchmarks/sheets.py predictions PHOTO... --out docs/images/photos.jpg
python benchmarks/sheets.py txt2img CAPTIONS.txt --out docs/images/drawings.jpg
python benchmarks/sheets.py img2img PHOTO... --out docs/images/redrawings.jpg
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from twofold.checkpoints import Model, open_model
from twofold.generate.images import ImageGenerator
from twofold.image import longest_edge_size, read_image, resize
from twofold.visualization import sheet

STRENGTHS = (0.2, 0.4, 0.6, 0.8)


def small(image: Tensor, longest: int = 256) -> Tensor:
    """An image resized to the longest edge of a sheet's cell."""
    return resize(image, longest_edge_size(image.shape[-2], image.shape[-1], longest)).clamp(0, 1)


def predictions(model: Model, photos: list[str], pairs: int) -> Tensor:
    """Photograph, depth, normals and mask of each, ``pairs`` photographs per row."""
    cells = []
    tasks = [t for t in ("depth", "normals", "mask") if t in model.tasks]
    for path in photos:
        image = read_image(path)
        cells.append(small(image))
        cells.extend(small(model.predictor(task)(image).color) for task in tasks)
    return sheet(cells, (1 + len(tasks)) * pairs)


def txt2img(model: Model, captions: list[str], count: int, seed: int) -> Tensor:
    """``count`` generated images; captions are repeated if there are fewer."""
    chosen = [captions[i % len(captions)] for i in range(count)]
    generate = ImageGenerator(model.backbone)
    images = [generate([caption], seed=seed + i)[0] for i, caption in enumerate(chosen)]
    return sheet(images, 8, chosen)


def img2img(model: Model, photos: list[str], caption: str, seed: int) -> Tensor:
    """Each photograph, and images generated from it at increasing strength."""
    generate = ImageGenerator(model.backbone)
    cells, titles = [], []
    for path in photos:
        image = small(read_image(path))
        cells.append(image)
        titles.append("photograph")
        for strength in STRENGTHS:
            cells.append(generate([caption], image=image[None], strength=strength, seed=seed)[0])
            titles.append(f"strength {strength}")
    return sheet(cells, 1 + len(STRENGTHS), titles)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=("predictions", "txt2img", "img2img"))
    parser.add_argument("inputs", nargs="+")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=32)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--caption", default="a bright room")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = open_model(args.model)
    if args.kind == "predictions":
        made = predictions(model, args.inputs, args.pairs)
    elif args.kind == "txt2img":
        lines = Path(args.inputs[0]).read_text().splitlines()
        made = txt2img(model, [x for x in lines if x.strip()], args.count, args.seed)
    else:
        made = img2img(model, args.inputs, args.caption, args.seed)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((made * 255).round().byte().permute(1, 2, 0).numpy()).save(args.out, quality=88)
    print(args.out)


if __name__ == "__main__":
    main()
