"""Benchmarks: which pictures, how many, scored how. Their data is converted by `twofold.data.convert`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ..suggest import unknown
from .protocol import EvalProtocol, EvaluationError
from .protocols import get_eval_protocol

_SPACES = ("depth/marigold-ls", "depth/marigold-ls-disp", "depth/ls-sqrt-disp", "depth/ls-log")
_DEPTH = (*_SPACES, "depth/scale", "depth/median", "depth/vpd-metric")
_NORMALS = ("normal/dsine", "normal/marigold")


@dataclass(frozen=True)
class Benchmark:
    """One test set, and what it decides of a protocol.

    Attributes:
        name: such as ``nyuv2-depth``.
        title: in words.
        converter: name in `data.convert.CONVERTERS` that makes its folder.
        split: of the converter.
        protocols: it may be scored by; the first unless another is asked.
        count: pictures that the published tables are over.
        rules: what the data decides of a protocol, such as ``valid_range``, ``crop``, ``clip``, ``size``.
        origin: of its pictures; those of a renderer are meant to be.
        notes: what one has to know.
        group: entry of the manifest's rows by which scores are given apart as well.
        version: of the record.
    """

    name: str
    title: str
    converter: str
    split: str
    protocols: tuple[str, ...]
    count: int
    rules: Mapping[str, Any] = field(default_factory=dict)
    origin: Literal["real", "rendered"] = "real"
    notes: str = ""
    group: str = ""
    version: int = 1

    @property
    def id(self) -> str:
        """Name and version."""
        return f"{self.name}@{self.version}"

    def protocol(self, name: str = "") -> EvalProtocol:
        """The protocol, with this data's rules.

        Raises:
            EvaluationError: the benchmark is not scored by that one.
        """
        asked = get_eval_protocol(name or self.protocols[0])
        if asked.name not in self.protocols:
            raise EvaluationError(
                f"{self.name} is scored by {' or '.join(self.protocols)}, not by {asked.name}; --protocol without "
                "--benchmark scores any data by any protocol"
            )
        # What is scored in metres as it is is not clipped either.
        kept = {k: v for k, v in self.rules.items() if k != "clip" or asked.align != "none"}
        return asked.with_rules(**kept)


def _depth(
    name: str,
    title: str,
    converter: str,
    split: str,
    count: int,
    notes: str = "",
    group: str = "",
    **rules: Any,
) -> Benchmark:
    return Benchmark(name, title, converter, split, _DEPTH, count, rules, notes=notes, group=group)


def _normals(
    name: str, title: str, converter: str, split: str, count: int, origin: Any = "real", notes: str = ""
) -> Benchmark:
    return Benchmark(name, title, converter, split, _NORMALS, count, origin=origin, notes=notes)


_DIODE = "Outdoor decides the mean: read indoors and outdoor apart. Edges of the truth are noisy."

_ALL = (
    _depth(
        "nyuv2-depth", "NYUv2 test, raw depth, Eigen's crop", "nyuv2-marigold", "test", 654,
        valid_range=(1e-3, 10.0), clip=(1e-3, 10.0), crop="nyu_eigen", size=0,
    ),
    _depth(
        "kitti-eigen-depth", "KITTI, Eigen's split with improved truth, cut to 352x1216, Eigen's crop",
        "kitti-eigen", "test", 652, "697 are listed, 45 have no truth. Metric papers mostly use Garg's crop: "
        "kitti-garg-depth.",
        valid_range=(1e-5, 80.0), clip=(1e-5, 80.0), window="kitti_benchmark", crop="kitti_eigen", size=0,
    ),
    Benchmark(
        "kitti-garg-depth", "KITTI, Eigen's split with improved truth, cut to 352x1216, Garg's crop", "kitti-eigen",
        "test", ("depth/vpd-metric", "depth/median", "depth/scale", *_SPACES),
        652, {"valid_range": (1e-3, 80.0), "clip": (1e-3, 80.0), "window": "kitti_benchmark", "crop": "kitti_garg",
              "size": 0},
    ),
    _depth(
        "scannet-depth", "ScanNet, Marigold's 800 pictures of 271 scans", "scannet-marigold", "test", 800,
        valid_range=(1e-3, 10.0), clip=(1e-3, 10.0), size=0,
    ),
    _depth(
        "diode-depth", "DIODE validation, indoor and outdoor", "diode", "val", 771, _DIODE, "scene",
        clip=(0.6, 350.0), size=640,
    ),
    _depth(
        "eth3d-depth", "ETH3D, high-resolution multi-view training pictures", "eth3d", "train", 454,
        "The published fit sees the truth with its columns decimated to 1024 and all of its rows; so does this one.",
        valid_range=(1e-5, math.inf), clip=(1e-5, math.inf), fit_columns=1024, size=756,
    ),
    _normals("nyuv2-normals", "NYUv2 test, normals of DSINE's package", "dsine-nyuv2", "test", 654),
    _normals("scannet-normals", "ScanNet, DSINE's 300 pictures", "dsine-scannet", "test", 300),
    _normals("ibims-normals", "iBims-1, DSINE's package", "dsine-ibims", "test", 100),
    _normals(
        "sintel-normals", "Sintel, DSINE's package", "dsine-sintel", "test", 1064, "rendered",
        "Marigold's normals v1.1 trained on part of these pictures: never zero-shot for it.",
    ),
    _normals("vkitti-normals", "Virtual KITTI 2, DSINE's package", "dsine-vkitti", "test", 1000, "rendered"),
    Benchmark(
        "nyuv2-normals-bae", "NYUv2 test, normals of Bae's package (Ladicky, GeoNet)", "nyuv2-bae", "test",
        ("normal/bae", "normal/marigold", "normal/diff2in1-script"), 654,
        notes="Only the centre crop of the truth is defined. Other truth than nyuv2-normals in files, not in kind.",
    ),
    *(
        Benchmark(
            f"dis5k-{part}", f"DIS5K, DIS-{part.upper()}", "dis5k", f"DIS-{part.upper()}",
            ("dis/pysod", "dis/hce", "mask/plain"), count,
            notes="GenPercept is reported at 768 and at 1024 pixels: choose with --size.",
        )
        for part, count in (("vd", 470), ("te1", 500), ("te2", 500), ("te3", 500), ("te4", 500))
    ),
    Benchmark(
        "p3m-500-np", "P3M-10k, 500 portraits that are not blurred", "p3m10k", "P3M-500-NP", ("matting/p3m-whole",),
        500,
        notes="Scored at original resolution: sums of errors grow with it.",
    ),
    Benchmark(
        "p3m-500-p", "P3M-10k, 500 portraits with blurred faces", "p3m10k", "P3M-500-P", ("matting/p3m-whole",), 500
    ),
    Benchmark(
        "aim-500", "AIM-500, natural pictures", "aim500", "validation", ("matting/p3m-whole",), 500,
        notes="34 transparent objects (type STM) decide the mean.", group="type",
    ),
    Benchmark(
        "ade20k", "ADE20K validation, 150 classes", "ade20k", "validation", ("seg/miou",), 2000, {"classes": 150}
    ),
    Benchmark(
        "coco-keypoints", "COCO val2017, people with labelled points", "coco-keypoints", "val2017",
        ("pose/coco-kp",), 6352,
        notes="One row a person, cut out by its true box: published tables use a detector's boxes, and are lower.",
    ),
    Benchmark(
        "nyud-mt-semseg", "NYUD-MT, 40 classes", "nyud-mt", "val", ("mtl/invpt-semseg",), 654, {"classes": 40}
    ),
    Benchmark("nyud-mt-depth", "NYUD-MT, depth in metres", "nyud-mt", "val", ("mtl/invpt-depth",), 654),
    Benchmark("nyud-mt-normals", "NYUD-MT, normals", "nyud-mt", "val", ("mtl/invpt-normals",), 654),
    Benchmark(
        "pascal-context-semseg", "PASCAL-Context (multi-task), 21 classes", "pascal-mt", "val",
        ("mtl/invpt-semseg",), 5105, {"classes": 21},
    ),
    Benchmark(
        "pascal-context-parts", "PASCAL-Context (multi-task), parts of people", "pascal-mt", "val",
        ("mtl/invpt-parts",), 5105, {"classes": 7},
        notes="Pictures without people have no truth that counts: fewer are evaluated.",
    ),
    Benchmark(
        "pascal-context-saliency", "PASCAL-Context (multi-task), saliency", "pascal-mt", "val",
        ("mtl/invpt-saliency",), 5105, notes="The truth was distilled from a network.",
    ),
    Benchmark(
        "pascal-context-normals", "PASCAL-Context (multi-task), normals", "pascal-mt", "val",
        ("mtl/invpt-normals",), 5105, notes="The truth was distilled from a network.",
    ),
)  # fmt: skip

BENCHMARKS: dict[str, Benchmark] = {benchmark.name: benchmark for benchmark in _ALL}


def get_benchmark(name: str) -> Benchmark:
    """The benchmark called ``name`` or ``name@version``.

    Raises:
        EvaluationError: there is none, or only another version of it.
    """
    plain, _, version = name.partition("@")
    found = BENCHMARKS.get(plain)
    if found is None:
        raise EvaluationError(unknown("benchmark", name, BENCHMARKS))
    if version and version != str(found.version):
        raise EvaluationError(f"{name} is not in this release, which has {found.id}; install one that has it")
    return found
