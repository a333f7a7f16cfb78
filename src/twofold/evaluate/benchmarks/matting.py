"""Image matting: protocol and test sets."""

from __future__ import annotations

from ..protocol import EvalProtocol
from .benchmark import Benchmark

P3M_WHOLE = EvalProtocol(
    name="matting/p3m-whole",
    version=1,
    title="alpha mattes over the whole image, no trimap",
    target="matting",
    spaces=("alpha",),
    metrics=tuple(f"MATTING.{name}" for name in ("sad", "mad", "mse", "grad", "conn")),
    source="Li et al. 2021 (P3M, AIM) and P3M-Net, which share their code",
    notes="At original resolution: SAD, Grad and Conn grow with it. Conn is the published one, in which a "
    "prediction without any opaque pixel has no error.",
)

PROTOCOLS = (P3M_WHOLE,)

BENCHMARKS = (
    Benchmark(
        "p3m-500-np", "P3M-10k, 500 portraits that are not blurred", "p3m10k", "P3M-500-NP", (P3M_WHOLE,),
        500,
        notes="Scored at original resolution: sums of errors grow with it.",
    ),
    Benchmark(
        "p3m-500-p", "P3M-10k, 500 portraits with blurred faces", "p3m10k", "P3M-500-P", (P3M_WHOLE,), 500
    ),
    Benchmark(
        "aim-500", "AIM-500, natural images", "aim500", "validation", (P3M_WHOLE,), 500,
        notes="34 transparent objects (type STM) dominate the mean.", group="type",
    ),
)  # fmt: skip
