"""The records of evaluation: frozen protocols, benchmarks that can be had, published numbers with their sources."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from twofold.data.convert import CONVERTERS
from twofold.evaluate import (
    BENCHMARKS,
    EVAL_PROTOCOLS,
    EvaluationError,
    get_benchmark,
    get_eval_protocol,
    published,
)
from twofold.evaluate.measure import WINDOWS, get_metrics
from twofold.evaluate.published import FILE, external_protocols, numbers, sources
from twofold.metrics import ALIGNMENTS
from twofold.metrics.depth import CROPS
from twofold.targets import TARGETS
from twofold.tasks import TASKS

# Released records. One that changes a number changes its fingerprint and needs another version; a new record is added
# here when it is released.
FROZEN = {
    "depth/marigold-ls@1": "39875dfec0a9",
    "depth/marigold-ls-disp@1": "0dabb6ae4863",
    "depth/ls-sqrt-disp@1": "0e25649d5d20",
    "depth/ls-log@1": "a9d6ac032c15",
    "depth/scale@1": "a05374722d97",
    "depth/median@1": "2139bd8339ce",
    "depth/vpd-metric@1": "6e79028b21b4",
    "normal/dsine@1": "10a148d2f3c5",
    "normal/bae@1": "3f752d4103e9",
    "normal/marigold@1": "6ec9e77eaeda",
    "normal/diff2in1-script@2": "9885d1dba12d",
    "seg/miou@1": "56fa0c1f6274",
    "mask/plain@1": "b7455ea47975",
    "dis/pysod@1": "7e30a11492f2",
    "dis/hce@1": "eb18361ec837",
    "matting/p3m-whole@1": "f3a119d8b715",
    "pose/coco-kp@1": "fe538ed68e7d",
    "mtl/invpt-semseg@1": "abe55cd1212b",
    "mtl/invpt-parts@1": "a80d38aa99ea",
    "mtl/invpt-depth@1": "af5935868482",
    "mtl/invpt-normals@1": "0c146421cad3",
    "mtl/invpt-saliency@1": "bf6186265572",
    "mtl/astmt-depth@1": "e0cc3f0bce05",
    "mtl/astmt-normals@1": "349b5c1de63c",
    "mtl/astmt-saliency@1": "3b526abaaafe",
}
# The same of benchmarks, by their first protocol with the rules of the data.
FROZEN_BENCHMARKS = {
    "nyuv2-depth@1": "290e6c53f70f",
    "kitti-eigen-depth@1": "8df60213198d",
    "kitti-garg-depth@1": "586fc24d69ab",
    "scannet-depth@1": "978828462c4f",
    "diode-depth@1": "bce940fe9822",
    "eth3d-depth@1": "f3a10f68ce33",
    "nyuv2-normals@1": "10a148d2f3c5",
    "scannet-normals@1": "10a148d2f3c5",
    "ibims-normals@1": "10a148d2f3c5",
    "sintel-normals@1": "10a148d2f3c5",
    "vkitti-normals@1": "10a148d2f3c5",
    "nyuv2-normals-bae@1": "3f752d4103e9",
    "dis5k-vd@1": "7e30a11492f2",
    "dis5k-te1@1": "7e30a11492f2",
    "dis5k-te2@1": "7e30a11492f2",
    "dis5k-te3@1": "7e30a11492f2",
    "dis5k-te4@1": "7e30a11492f2",
    "p3m-500-np@1": "f3a119d8b715",
    "p3m-500-p@1": "f3a119d8b715",
    "aim-500@1": "f3a119d8b715",
    "ade20k@1": "f81e4939102f",
    "coco-keypoints@1": "fe538ed68e7d",
    "nyud-mt-semseg@1": "c18d11a04ac8",
    "nyud-mt-depth@1": "af5935868482",
    "nyud-mt-normals@1": "0c146421cad3",
    "pascal-context-semseg@1": "aac98a94b1b6",
    "pascal-context-parts@1": "a80d38aa99ea",
    "pascal-context-saliency@1": "bf6186265572",
    "pascal-context-normals@1": "0c146421cad3",
}
# Published on data that only its authors can reproduce.
UNAVAILABLE = {"hypersim-semantic", "ade20k-subset"}


def test_released_protocols_are_frozen() -> None:
    found = {p.id: p.fingerprint for p in EVAL_PROTOCOLS.values()}
    assert {id: found.get(id) for id in FROZEN} == FROZEN


def test_released_benchmarks_are_frozen() -> None:
    found = {b.id: b.protocol().fingerprint for b in BENCHMARKS.values()}
    assert {id: found.get(id) for id in FROZEN_BENCHMARKS} == FROZEN_BENCHMARKS


@pytest.mark.parametrize("name", EVAL_PROTOCOLS)
def test_a_protocol_can_be_computed(name: str) -> None:
    protocol = get_eval_protocol(name)
    assert protocol.name == name and get_eval_protocol(protocol.id) is protocol
    assert (
        protocol.align in (*ALIGNMENTS, *TASKS)
        and protocol.crop in ("", *CROPS)
        and protocol.window in ("", *WINDOWS)
    )
    assert protocol.target in TARGETS
    assert tuple(m.name for m in get_metrics(protocol, 3)) == protocol.names
    assert protocol.source and protocol.title
    json.dumps(protocol.settings, allow_nan=False)


def test_what_decides_no_number_does_not_change_a_fingerprint() -> None:
    one = get_eval_protocol("depth/marigold-ls")
    assert one.with_rules(notes="other words", title="x", source="y").fingerprint == one.fingerprint
    changed = [
        one.with_rules(**rule)
        for rule in ({"clip": (1.0, 2.0)}, {"crop": "kitti_garg"}, {"size": 640}, {"seed": 1})
    ]
    assert len({s.fingerprint for s in (one, *changed)}) == 5


def test_unknown_names_and_versions_are_refused() -> None:
    for name in ("depth/marigold", "depth/marigold-ls@2", ""):
        with pytest.raises(EvaluationError):
            get_eval_protocol(name)
    for name in ("nyu", "nyuv2-depth@9"):
        with pytest.raises(EvaluationError):
            get_benchmark(name)
    with pytest.raises(EvaluationError, match="is scored by"):
        get_benchmark("nyuv2-depth").protocol("normal/bae")


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmarks_data_can_be_made(name: str) -> None:
    bench = get_benchmark(name)
    converter = CONVERTERS[bench.converter]
    assert bench.split in converter.splits
    for protocol in bench.protocols:
        made = bench.protocol(protocol.id)
        assert made.target in converter.targets
        if made.valid_range is not None:
            low, high = made.valid_range
            assert 0 < low < high
        assert made.id == protocol.id and get_eval_protocol(protocol.id) is protocol


def test_the_rules_of_marigolds_benchmarks() -> None:
    """Counts, ranges, crops and sizes as its evaluation has them."""
    table = {
        "nyuv2-depth": (654, (1e-3, 10), (1e-3, 10), "nyu_eigen", 0),
        "kitti-eigen-depth": (652, (1e-5, 80), (1e-5, 80), "kitti_eigen", 0),
        "scannet-depth": (800, (1e-3, 10), (1e-3, 10), "", 0),
        "diode-depth": (771, None, (0.6, 350), "", 640),
        "eth3d-depth": (454, (1e-5, math.inf), (1e-5, math.inf), "", 756),
    }
    for name, row in table.items():
        bench = get_benchmark(name)
        s = bench.protocol()
        assert (bench.count, s.valid_range, s.clip, s.crop, s.size) == row
        assert s.seed == 1234 and s.align == "affine"
        # Metres are scored as they are.
        assert bench.protocol("depth/vpd-metric").clip is None


def test_published_numbers_are_well_formed() -> None:
    seen: set[tuple[str, ...]] = set()
    for n in numbers():
        assert n.source in sources()
        assert n.protocol_id == (
            f"{n.protocol}@1" if n.protocol_id in external_protocols() else get_eval_protocol(n.protocol).id
        )
        if n.protocol in EVAL_PROTOCOLS:
            if n.benchmark not in UNAVAILABLE:
                assert get_eval_protocol(n.protocol) in get_benchmark(n.benchmark).protocols
            assert n.metric in get_eval_protocol(n.protocol).names
        assert math.isfinite(n.value) and n.value > 0
        assert float(n.printed) == n.value
        key = (n.benchmark, n.protocol, n.method, n.metric, n.source, n.table)
        assert key not in seen, key
        seen.add(key)
    assert len(seen) > 400
    for source in sources().values():
        assert set(source) == {"title", "url", "read"}
        assert source["url"].startswith("https://")
        assert source["read"] in ("paper", "repository", "figure", "quoted")


def test_numbers_of_one_protocol_are_those_measured_by_it() -> None:
    """Under the paper's protocol GeoWizard and DepthFM are worse than in their papers, with rows of their own."""
    sets = ("kitti-eigen-depth", "nyuv2-depth", "eth3d-depth")
    for method, expected in (("GeoWizard", (0.129, 0.059, 0.077)), ("DepthFM", (0.174, 0.082, 0.101))):
        rows = [r for name in sets for r in published(name, "depth/marigold-ls") if r["method"] == method]
        assert tuple(r["scores"]["abs_rel"] for r in rows) == expected
        assert {r["protocol"] for r in rows} == {"depth/marigold-ls@1"}
    own = {(n.method, n.protocol_id) for n in numbers() if n.source == "depth-fm"}
    assert own == {
        ("GeoWizard", "depth/geowizard-own@1"), ("DepthFM-I", "depth/depthfm-own@1"),
        ("DepthFM-ID", "depth/depthfm-own@1"),
    }  # fmt: skip
    assert not set(external_protocols()) & {s.id for s in EVAL_PROTOCOLS.values()}
    assert set(external_protocols()) == {n.protocol_id for n in numbers() if n.protocol not in EVAL_PROTOCOLS}


@pytest.mark.parametrize("metric, least, most", [
    ("abs_rel", 0.01, 0.7), ("delta1", 0.05, 1), ("mean", 5, 60), ("median", 1, 60), ("miou", 0.2, 1),
    ("max_f", 0.5, 1), ("mae", 0.01, 0.2), ("sad", 5, 200), ("hce", 100, 5000), ("AP", 0.5, 1),
])  # fmt: skip
def test_published_numbers_are_in_the_units_of_the_metrics(metric: str, least: float, most: float) -> None:
    found = [n for n in numbers() if n.metric == metric]
    assert found
    for n in found:
        assert least <= n.value <= most, n


def test_known_misprints_are_flagged_and_nothing_else_is() -> None:
    doubtful = {(n.method, n.benchmark, n.metric) for n in numbers() if n.doubt}
    output = json.loads(FILE.read_text())["doubts"]
    assert len(output) == 4
    assert ("GenPercept (depth)", "eth3d-depth", "delta1") in doubtful
    assert ("image blending, 10 steps, beta (0.000425, 0.006)", "nyuv2-depth", "delta1") in doubtful
    assert ("ViTAE-S", "aim-500", "conn") in doubtful
    # Every marked number exists.
    for uncertainty in output:
        benchmark, metric = uncertainty["column"].split()
        assert any((b, m) == (benchmark, metric) for _, b, m in doubtful)


def test_numbers_keep_the_digits_they_were_printed_with() -> None:
    rows = {row["method"]: row for row in published("nyuv2-depth", "depth/marigold-ls")}
    marigold = rows["Marigold, 50 steps, no ensemble"]
    assert marigold["printed"]["abs_rel"] == "0.060" and marigold["scores"]["abs_rel"] == 0.06
    assert rows["GenPercept (depth)"]["scores"] == {"abs_rel": 0.052, "delta1": 0.966}
    assert all(row["protocol"] == "depth/marigold-ls@1" for row in rows.values())
    assert any(row["protocol"] == "depth/marigold-ls-disp@1" for row in published("nyuv2-depth"))


def test_the_mean_of_the_four_test_sets_is_the_published_one() -> None:
    """DIS-TE in print is the plain mean over its four parts: a check of the copied rows."""
    for method, whole in (("GenPercept (1024)", 1176), ("GenPercept (768)", 1364)):
        parts = [
            n.value for n in numbers() if n.method == method and n.metric == "hce" and "-te" in n.benchmark
        ]
        assert len(parts) == 4 and round(sum(parts) / 4) == whole


PAGE = Path(__file__).parents[1] / "docs" / "evaluate.md"


OWN = """
import torch
from twofold.evaluate import Benchmark, EvalProtocol
from twofold.metrics import Metric
from twofold.metrics.metric import mean_over_images

BIAS = mean_over_images("bias", "m", "lower", lambda x: (x.prediction - x.target).abs().mean())
PROTOCOL = EvalProtocol("own/bias", 1, "mean error", "depth", ("depth",), ("own_records:BIAS", "DEPTH.abs_rel"))
BENCHMARK = Benchmark("own", "my own images", "", "", (PROTOCOL,), 3, {"valid_range": (0.1, 100.0)})
"""


@pytest.fixture
def own_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module with a metric, a protocol and a benchmark of the user's own, which is not imported yet."""
    (tmp_path / "own_records.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("own_records", None)


def test_own_records_are_one_file_and_are_named_by_the_user_only(own_records: Path) -> None:
    with pytest.raises(EvaluationError, match="runs no code"):
        get_eval_protocol("own_records:PROTOCOL", trusted=False)
    assert "own_records" not in sys.modules
    bench = get_benchmark("own_records:BENCHMARK")
    protocol = bench.protocol()
    assert protocol.valid_range == (0.1, 100.0) and bench.protocol("own/bias") == protocol
    assert get_eval_protocol("own_records:PROTOCOL").id == "own/bias@1"
    assert [m.name for m in get_metrics(protocol)] == ["bias", "abs_rel"]
    assert protocol.names == ("BIAS", "abs_rel")
    with pytest.raises(EvaluationError, match="is not a Benchmark"):
        get_benchmark("own_records:PROTOCOL")
    with pytest.raises(EvaluationError, match="no module"):
        get_benchmark("own_recordz:BENCHMARK")
    wrong = replace(protocol, metrics=("own_records:PROTOCOL",))
    with pytest.raises(EvaluationError, match="needs the metric"):
        get_metrics(wrong)


def test_the_page_names_records_that_exist_and_its_code_runs() -> None:
    text = PAGE.read_text()
    named = re.findall(r"`((?:depth|normal|dis|mask|matting|seg|pose|mtl)/[a-z0-9-]+)(?:@\d+)?`", text)
    assert len(named) > 12
    for protocol in named:
        assert protocol in EVAL_PROTOCOLS or protocol.endswith("-"), protocol
    rows = re.findall(r"^\| `([a-z0-9-]+)`.*?\| ([0-9, ]+)", text.partition("## Benchmarks")[2], re.M)
    assert len(rows) > 8
    for name, counts in rows:
        assert str(get_benchmark(name).count) in counts, name
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", text, re.S)):
        code = compile(block, f"{PAGE.name}, block {number}", "exec")
        if "open_model" not in block:
            exec(code, {})
