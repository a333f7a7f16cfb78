"""Reference scores of PySODMetrics for tests/test_metrics_saliency.py.

The library pins an older numpy, so run it in a temporary environment:

    uv venv /tmp/sod && VIRTUAL_ENV=/tmp/sod uv pip install pysodmetrics==1.6.2
    /tmp/sod/bin/python scripts/sod_golden.py

Prints the dictionaries to put in the test: scores of single images, and of all of them as one set.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
import py_sod_metrics as sod  # ty: ignore[import-not-found]

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from blobs import blobs  # ty: ignore[import-not-found]

SINGLE, SET = 6, 50


def scores(pairs: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """The library's scores of a set."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        f = sod.Fmeasure()
    others = (
        sod.WeightedFmeasure(),
        sod.MAE(),
        sod.Smeasure(),
        sod.Emeasure(),
        sod.HumanCorrectionEffortMeasure(),
    )
    for p, g in pairs:
        for metric in (f, *others):
            metric.step(p, g)
    weighted, mae, s, e, hce = (metric.get_results() for metric in others)
    got, pr = f.get_results()["fm"], f.get_results()["pr"]
    means = 1.3 * pr["p"] * pr["r"] / np.maximum(0.3 * pr["p"] + pr["r"], 1e-300)
    found = {
        "max_f": got["curve"].max(),
        "max_f_of_means": means.max(),
        "max_f_by_image": np.mean([c.max() for c in f.changeable_fms]),
        "mean_f": got["curve"].mean(),
        "adaptive_f": got["adp"],
        "weighted_f": weighted["wfm"],
        "mae": mae["mae"],
        "s_measure": s["sm"],
        "mean_e": e["em"]["curve"].mean(),
        "max_e": e["em"]["curve"].max(),
        "adaptive_e": e["em"]["adp"],
        "hce_stretched": hce["hce"],
    }
    return {name: float(value) for name, value in found.items()}


def main() -> None:
    """Print both."""
    cases = [blobs(seed) for seed in range(SET)]
    print("GOLDEN = {")
    for seed in range(SINGLE):
        print(f"    {seed}: {scores([cases[seed]])},")
    print("}\nGOLDEN_SET =", scores(cases))


if __name__ == "__main__":
    main()
