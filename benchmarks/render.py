"""Images per minute of the renderer: python benchmarks/render.py [--count 24] [--workers 2] [--spp 8]."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from twofold.render import render


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--spp", type=int, default=8)
    parser.add_argument("--size", default="256x192")
    parser.add_argument("--assets", default=None)
    options = parser.parse_args()
    width, height = (int(n) for n in options.size.split("x"))
    with tempfile.TemporaryDirectory() as folder:
        began, warm, busy, done = time.monotonic(), 0.0, 0.0, 0
        settings = (width, height, options.workers, options.spp)
        for record in render(options.count, 1, Path(folder) / "out", *settings, assets=options.assets):
            done += 1
            busy += record.seconds
            if done == options.workers:
                warm = time.monotonic()  # from here on every process has started and compiled its kernels
        now = time.monotonic()
    steady = (done - options.workers) / max(now - warm, 1e-9) * 60
    print(f"{done} images {width}x{height}, {options.spp} spp, {options.workers} workers")
    print(f"with start-up  {done / (now - began) * 60:7.1f} images a minute")
    print(f"steady         {steady:7.1f} images a minute")
    print(f"in a worker    {busy / max(done, 1):7.2f} s an image")


if __name__ == "__main__":
    main()
