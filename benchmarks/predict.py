"""Time of a prediction: warm, by part, and of a whole command.

    python benchmarks/predict.py --size 768x512 --edge 384 --dtype bfloat16 --threads 2

Prints medians of a few repeats, and the share of each part, which depends less on the machine.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from twofold.checkpoints import open_model
from twofold.image import write_image
from twofold.predict.base import predict_tasks
from twofold.predict.diffusion import DiffusionPredictor


def timed(work: Callable[[], object], repeats: int) -> float:
    """Median seconds of ``repeats`` calls after a warm-up call."""
    work()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return median(seconds)


@torch.no_grad()
def parts(predictor: DiffusionPredictor, image: torch.Tensor, repeats: int) -> dict[str, float]:
    """Seconds of encoder, U-Net and decoder at the size the predictor works at."""
    net = predictor.backbone
    canvas = torch.nn.functional.interpolate(
        image[None] * 2 - 1, (predictor.size * 3 // 4 // 8 * 8, predictor.size)
    )
    canvas = canvas.to(next(net.parameters()))
    z = net.encode(canvas)
    t, text = torch.tensor([1]), net.embed([predictor.prompt])
    return {
        "encode": timed(lambda: net.encode(canvas), repeats),
        "U-Net": timed(lambda: net(z, t, text), repeats),
        "decode": timed(lambda: net.decode(z), repeats),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="640x480", help="of the image, in pixels")
    parser.add_argument("--edge", type=int, default=0, help="longest edge to predict at; 0: the model's")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    width, height = map(int, args.size.split("x"))
    image = torch.rand(3, height, width, generator=torch.Generator().manual_seed(0))
    model = open_model(dtype=args.dtype)
    predictors = {task: model.predictor(task) for task in model.tasks}
    edge = args.edge or next(iter(predictors.values())).size
    seconds = timed(lambda: list(predict_tasks(predictors, [image], edge)), args.repeats)
    print(f"{', '.join(predictors)} of one image at {edge} px: {seconds:.3f} s")
    for task, predictor in predictors.items():
        predictor.size = edge
        whole = timed(lambda p=predictor: p(image), args.repeats)
        shares = {k: v / whole for k, v in parts(predictor, image, args.repeats).items()}
        print(f"{task}: {whole:.3f} s warm; " + ", ".join(f"{k} {v:.0%}" for k, v in shares.items()))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.png"
        write_image(path, image)
        began = time.perf_counter()
        command = [
            sys.executable,
            "-m",
            "twofold",
            "predict",
            str(path),
            "--out",
            f"{folder}/out",
            "--json",
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        print(f"cold command, all tasks: {time.perf_counter() - began:.1f} s")


if __name__ == "__main__":
    main()
