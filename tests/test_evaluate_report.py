"""Reports: they contain everything that decides a number, and mark what is not comparable."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scored import Eyes, folder, guess, guesses, scored, stored
from twofold.cli.main import run as command
from twofold.data.folder import Folder
from twofold.evaluate import (
    EvalRequest,
    EvaluationError,
    compare,
    evaluation_from_files,
    evaluation_from_model,
    get_benchmark,
    get_eval_protocol,
    read_report,
    run_and_report,
)
from twofold.evaluate.compare import comparison_markdown, comparison_page, differences, write_comparison
from twofold.evaluate.examples import WIDTH, data_url
from twofold.evaluate.tables import own_table, published_tables
from twofold.image import write_image
from twofold.targets.people import JOINTS, heatmaps

LS = get_eval_protocol("depth/marigold-ls")
VOID = {"meta", "img", "br"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(tmp_path_factory.mktemp("data") / "balls")


@pytest.fixture(scope="module")
def depths(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return guesses(data, tmp_path_factory.mktemp("guesses") / "depth", "depth")


class Page(HTMLParser):
    """Collects the text, images and links of a page, and its open tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[str] = []
        self.loads: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        output = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "img":
            self.images.append(str(output["src"]))
        if tag in ("script", "link", "iframe", "object"):
            self.loads.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def model_report(data: Path, out: Path, **arguments: Any) -> dict[str, Any]:
    eyes: Any = Eyes()
    job, metadata = evaluation_from_model(
        EvalRequest(Folder(data), arguments.pop("protocol", LS), out), eyes, **arguments
    )
    return run_and_report(job, replace(metadata, command=["twofold", "evaluate", "<&>"]))


def test_a_page_needs_nothing_but_itself(data: Path, tmp_path: Path) -> None:
    report = model_report(data, tmp_path)
    text = (tmp_path / "report.html").read_text()
    page = Page(text)
    assert not page.open and not page.loads
    assert len(page.images) == 12 and all(src.startswith("data:image/jpeg;base64,") for src in page.images)
    assert "url(" not in text and "@import" not in text
    for expected in (
        "depth/marigold-ls@1",
        LS.fingerprint,
        "eyes",
        "best",
        "median",
        "worst",
        "twofold evaluate <&>",
    ):
        assert expected in page.words
    assert f"{report['scores']['abs_rel']:.4f}" in page.words


def test_the_report_has_all_that_decides_a_number(data: Path, tmp_path: Path) -> None:
    report = model_report(data, tmp_path)
    assert report == read_report(tmp_path) == read_report(tmp_path / "report.json")
    assert json.loads(
        (tmp_path / "report.json").read_text(), parse_constant=lambda _: pytest.fail("NaN in JSON")
    )
    assert report["subject"]["digest"] == "d" * 64 and report["subject"]["seed"] == 1234
    assert report["protocol"]["settings"] == LS.settings
    assert set(report["versions"]) >= {"python", "torch", "numpy"}
    assert report["counts"] == {
        "selected": 5, "evaluated": 5, "skipped": {}, "failed": {}, "pending": 0, "resized": 0,
    }  # fmt: skip
    order = [report["examples"][k]["value"] for k in ("best", "median", "worst")]
    assert order == sorted(order)
    for name, (low, high) in report["intervals"].items():
        assert low <= report["scores"][name] <= high
    for baseline in ("constant", "row", "disparity_row"):
        assert report["baselines"][baseline]["abs_rel"] > 0


@pytest.mark.parametrize("target, name", [
    ("normals", "normal/dsine"), ("mask", "mask/plain"), ("matting", "matting/p3m-whole"), ("semantic", "seg/miou"),
    ("parts", "mtl/invpt-parts"),
])  # fmt: skip
def test_every_kind_of_truth_has_example_images(target: str, name: str, data: Path, tmp_path: Path) -> None:
    root = guesses(data, tmp_path / "guesses", target)
    run_and_report(
        *evaluation_from_files(EvalRequest(Folder(data), get_eval_protocol(name), tmp_path / "out"), root)
    )
    page = Page((tmp_path / "out" / "report.html").read_text())
    assert len(page.images) == 12


def test_markdown_tables_have_as_many_cells_in_every_line(data: Path, depths: Path, tmp_path: Path) -> None:
    bench = get_benchmark("diode-depth")
    scored(data, depths, bench.protocol(), tmp_path, benchmark=bench)
    text = (tmp_path / "report.md").read_text()
    for block in re.findall(r"(?:^\|.*\n)+", text, re.M):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1
    assert "GenPercept" in text and "**Warning**" in text and "arxiv.org/abs/2403.06090" in text


def test_published_rows_are_in_a_table_for_each_protocol(data: Path, depths: Path, tmp_path: Path) -> None:
    """Least squares in depth and RANSAC in log space never share one; this run is in that of its own."""
    bench = get_benchmark("eth3d-depth")
    report = scored(data, depths, bench.protocol(), tmp_path, benchmark=bench)
    tables, sources = published_tables(report)
    titles = [title for title, _ in tables]
    assert titles[0] == "Published by depth/marigold-ls@1"
    assert all("not comparable with this run" in title for title in titles[1:])
    by_id = {title.split()[2].partition(":")[0]: table for title, table in tables}
    for id, table in by_id.items():
        expected = {row["method"] for row in report["published"] if row["protocol"] == id}
        assert {line.name for line in table.rows if line.kind != "own"} == expected
        assert ("own" in {line.kind for line in table.rows}) == (id == report["protocol"]["id"])
    assert "DepthFM-I" in {line.name for line in by_id["depth/depthfm-own@1"].rows}
    assert "RANSAC in log space" in next(t for t in titles if "depthfm" in t)
    table = tables[0][1]
    assert table.rows[0].kind == "own" and len(own_table(report).rows) == 10
    values = [float(line.cells[0].text) for line in table.rows[1:]]
    assert values == sorted(values)
    uncertainty = next(line for line in table.rows if line.name == "GenPercept (depth)").cells[1]
    assert (uncertainty.text, uncertainty.mark) == ("0.957", "flagged") and "0.967" in uncertainty.reason
    lines = [line for _, t in tables for line in t.rows if line.kind != "own"]
    assert {line.source for line in lines} == {f"[{n}]" for n in range(1, len(sources) + 1)}
    assert any("quoted by another source" in source for source in sources)
    for text in ((tmp_path / "report.md").read_text(), Page((tmp_path / "report.html").read_text()).words):
        assert text.count("not comparable with this run") == len(tables) - 1


def test_reports_fitted_in_different_spaces_do_not_share_a_table(
    data: Path, depths: Path, tmp_path: Path
) -> None:
    reports = [
        scored(data, depths, get_eval_protocol(name), tmp_path / name.replace("/", "-"))
        for name in ("depth/marigold-ls", "depth/ls-log")
    ]
    with pytest.raises(
        EvaluationError, match=r"depth/marigold-ls@1 and depth/ls-log@1 .* are not comparable"
    ):
        compare(reports)


def test_groups_are_scored_alone(data: Path, depths: Path, tmp_path: Path) -> None:
    copy = folder(tmp_path / "scenes")
    path = copy / "metadata.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    lines = (json.dumps({**row, "scene": "in" if i < 2 else "out"}) for i, row in enumerate(rows))
    path.write_text("\n".join(lines) + "\n")
    report = scored(copy, depths, LS, tmp_path / "out", group="scene")
    assert {k: g["evaluated"] for k, g in report["groups"].items()} == {"in": 2, "out": 3}
    first = scored(copy, depths, LS, tmp_path / "first", count=2)
    assert report["groups"]["in"]["scores"] == first["scores"]
    assert "By scene" in (tmp_path / "out" / "report.md").read_text()
    with pytest.raises(EvaluationError, match="'town'"):
        scored(copy, depths, LS, tmp_path / "none", group="town")


# ---- side by side


def test_comparable_runs_are_compared(data: Path, depths: Path, tmp_path: Path) -> None:
    other = tmp_path / "better"
    for one in Folder(data):
        stored(other, str(one.id), one.targets["depth"])
    reports = [scored(data, depths, LS, tmp_path / "a"), scored(data, other, LS, tmp_path / "b")]
    found = compare(reports)
    assert not found.warnings() and not differences(*reports)
    assert found.table.columns == ("A", "B") and all(run.comparable for run in found.runs)
    assert {line.cells[1].mark for line in found.table.rows} == {"best"}
    assert found.table.rows[0].cells[0].mark == ""
    # Settings of a model are listed where they differ.
    small = model_report(data, tmp_path / "c"), model_report(data, tmp_path / "d", size=24)
    assert "size 24" in compare(small).legend()[1][1] and not compare(small).warnings()


def test_what_is_not_comparable_is_marked(data: Path, depths: Path, tmp_path: Path) -> None:
    first = scored(data, depths, LS, tmp_path / "a")
    others = {
        "another protocol": scored(data, depths, get_eval_protocol("depth/scale"), tmp_path / "b"),
        "clip [1.0, 2.0] instead of none": scored(
            data, depths, LS.with_rules(clip=(1.0, 2.0)), tmp_path / "c"
        ),
        "other data": scored(folder(tmp_path / "four", 4), depths, LS, tmp_path / "d"),
        "other images (2 evaluated instead of 5)": scored(data, depths, LS, tmp_path / "e", count=2),
    }
    found = compare([first, *others.values()])
    assert found.table.columns == ("A", "B ≠", "C ≠", "D ≠", "E ≠")
    for place, (cause, output) in enumerate(zip(others, found.warnings(), strict=True), 1):
        assert cause in output and not found.runs[place].comparable
        assert {line.cells[place].mark for line in found.table.rows} == {"flagged"}
    # Nothing is best where there is nothing to compare with.
    assert {line.cells[0].mark for line in found.table.rows} == {""}
    assert comparison_markdown(found).count("**Warning**") == 4
    page = Page(comparison_page(found))
    assert not page.open and page.words.count("not comparable") == 4
    for _ in range(2):  # a comparison replaces a comparison
        assert all(path.is_file() for path in write_comparison(tmp_path / "side", found).values())
    for name in ("comparison.md", "comparison.html"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_bytes(b"a file of the user's own")
        with pytest.raises(FileExistsError, match="did not write it"):
            write_comparison(tmp_path / name, found)
        assert [(p.name, p.read_bytes()) for p in (tmp_path / name).iterdir()] == [
            (name, b"a file of the user's own")
        ]
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / "comparison.md").symlink_to("nowhere")
    (tmp_path / "folder" / "comparison.html").mkdir(parents=True)
    for name in ("link", "folder"):
        with pytest.raises(FileExistsError, match="did not write it"):
            write_comparison(tmp_path / name, found)
    normals = guesses(data, tmp_path / "n", "normals")
    with pytest.raises(EvaluationError, match="no metric in common"):
        compare([first, scored(data, normals, get_eval_protocol("normal/dsine"), tmp_path / "f")])


def test_what_is_no_report_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="cannot be read"):
        read_report(tmp_path)
    (tmp_path / "report.json").write_text("[]")
    with pytest.raises(EvaluationError, match="is not a report"):
        read_report(tmp_path)


def test_an_image_becomes_a_small_jpeg() -> None:
    import base64
    import io

    from PIL import Image

    url = data_url(torch.rand(3, 100, 1000))
    image = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
    assert (image.format, image.size) == ("JPEG", (WIDTH, 42))


# ---- people


def people(root: Path, count: int = 3) -> Path:
    """A folder in COCO's layout: one person per image, and a second one in the first."""
    root.mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows = []
    for i in range(count + 1):
        image = i % count
        points = [[float(x), float(y), 2] for x, y in rng.uniform(12, 52, (len(JOINTS), 2))]
        target = {
            "points": points,
            "box": [8, 8, 48, 48],
            "area": 2304.0,
            "ann_id": i + 1,
            "image_id": image + 1,
        }
        write_image(root / f"{image}.png", torch.full((3, 64, 64), 0.1 * (image + 1)))
        rows.append({"id": f"p{i}", "file_name": f"{image}.png", "targets": {"keypoints": target}})
    (root / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "dataset.json").write_text(
        json.dumps({"name": "people", "targets": {"keypoints": {"unit": "px"}}})
    )
    return root


class Knows(Eyes):
    """Predicts the target of an image, which it identifies by its pixels."""

    def __init__(self, samples: list[Any], wrong: tuple[int, ...] = ()) -> None:
        super().__init__("keypoints")
        self.answers = [one.targets["keypoints"].clamp(min=0) for one in samples]
        self.turn, self.wrong = -1, wrong

    def __call__(self, image: torch.Tensor, *_: Any, **__: Any) -> Any:
        from twofold.predict.prediction import Prediction

        self.turn += 1
        found = self.answers[self.turn % len(self.answers)]
        if self.turn in self.wrong:
            found = heatmaps(torch.full((17, 2), 3.0), torch.ones(17, dtype=torch.bool), found.shape[-2:])
        return Prediction(self.task, found, image, {}, "keypoints", None)


def test_people_are_scored_over_the_set(tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    source = Folder(people(tmp_path / "people"))
    protocol = get_eval_protocol("pose/coco-kp")
    eyes: Any = Knows(list(source))
    report = run_and_report(
        *evaluation_from_model(EvalRequest(source, protocol, tmp_path / "all"), eyes), images=False
    )
    assert report["scores"]["AP"] == pytest.approx(1, abs=0.02)
    assert report["scores"]["AP_L"] is None
    half: Any = Knows(list(source), wrong=(0, 1))
    missed = run_and_report(*evaluation_from_model(EvalRequest(source, protocol, tmp_path / "half"), half))
    assert missed["scores"]["AR"] == pytest.approx(0.5, abs=0.02)
    assert missed["examples"]["worst"]["value"] < 0.2 < 0.9 < missed["examples"]["best"]["value"]
    # A detector's results in any order, with a person in an image that the folder lacks.
    rows = [json.loads(line) for line in (tmp_path / "half" / "rows.jsonl").read_text().splitlines()[1:]]
    found = [person for row in rows for person in row["detections"]]
    (tmp_path / "results.json").write_text(json.dumps([*found[::-1], {**found[0], "image_id": 99}]))
    job, metadata = evaluation_from_files(
        EvalRequest(source, protocol, tmp_path / "file"), tmp_path / "results.json"
    )
    assert run_and_report(job, metadata)["scores"] == pytest.approx(missed["scores"], nan_ok=True)
    assert job.source.unmatched == 1  # ty: ignore[unresolved-attribute]


# ---- the commands


def say(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = command([str(w) for w in words])
    out, error = capsys.readouterr()
    return code, out, error


@pytest.mark.timeout(300)
def test_the_command_scores_a_model(
    data: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (
        "evaluate",
        "--model",
        tiny_model,
        "--data",
        data,
        "--device",
        "cpu",
        "--out",
        tmp_path,
        "--count",
        "2",
    )
    code, out, _ = say(capsys, *arguments, "--protocol", "normal/dsine", "--json")
    report = json.loads(out)
    assert code == 0 and report["counts"]["evaluated"] == 2 and report["subject"]["task"] == "normals"
    assert report["subject"]["size"] == 32  # the model's own: the protocol has none
    code, out, error = say(capsys, *arguments, "--protocol", "normal/dsine")
    assert code == 0 and "(2 kept)" in out and "median" in out and not error
    code, _, error = say(capsys, *arguments, "--protocol", "normal/dsine", "--size", "16")
    assert code == 2 and "another subject.size" in error
    code, _, error = say(capsys, *arguments, "--protocol", "seg/miou")
    assert code == 2 and "predicts depth (depth), normals (normals)" in error


def test_the_commands(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = guesses(data, tmp_path / "guesses", "normals", count=2)
    stored(root, str(Folder(data).ids[2]), torch.full((3, 48, 48), float("nan")))
    scoring = ("evaluate", "--data", data, "--protocol", "normal/dsine", "--predictions", root)
    code, out, error = say(capsys, *scoring, "--count", "3", "--out", tmp_path / "a")
    assert code == 1 and "set/ball-2: it is NaN" in error and "1 failed (damaged prediction)" in out
    code, out, _ = say(capsys, *scoring, "--count", "2", "--out", tmp_path / "b", "--json")
    assert code == 0 and json.loads(out)["counts"]["evaluated"] == 2
    code, out, error = say(capsys, "report", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "side")
    assert code == 0 and "≠" not in out and (tmp_path / "side" / "comparison.html").is_file()
    say(capsys, *scoring, "--count", "1", "--out", tmp_path / "c")
    code, out, _ = say(capsys, "report", tmp_path / "a", tmp_path / "c", "--json")
    assert [json.loads(line)["comparable"] for line in out.splitlines()] == [True, False]
    for words, message in (
        (("evaluate",), "--data"),
        (("evaluate", "--data", data), "--benchmark"),
        (("evaluate", "--data", data, "--protocol", "x"), "unknown protocol"),
        ((*scoring, "--shard", "3/2"), "I/N"),
        ((*scoring, "--size", "64"), "no effect with --predictions"),
        ((*scoring, "--benchmark", "nyuv2-depth"), "is scored by"),
        (("report", tmp_path), "report"),
    ):
        code, out, error = say(capsys, *words, *(("--out", tmp_path / "z") if words[0] == "evaluate" else ()))
        assert code == 2 and message in error and error.count("\n") == 1, words
    assert not (tmp_path / "z").exists()
    code, out, _ = say(capsys, "evaluate", "--list", "--json")
    assert code == 0 and len(out.splitlines()) > 40
    code, out, _ = say(capsys, "evaluate", "--list")
    assert code == 0 and all(name in out for name in ("nyuv2-depth", "dis/pysod@1"))


def test_guesses_are_guesses(data: Path) -> None:
    """What the tests above compare with is neither perfect nor without sense."""
    one = Folder(data)[0]
    off = (guess(one, "depth") - one.targets["depth"]).abs().mean()
    assert 0.01 < float(off) < 0.2


@pytest.mark.parametrize(
    "change",
    [
        {"subject": 3}, {"protocol": {}}, {"metrics": {"a": {"unit": "", "better": "maybe"}}}, {"scores": {}},
        {"counts": None}, {"warnings": [3]}, {"benchmark": []}, {"ids": None},
    ],
    ids=repr,
)  # fmt: skip
def test_a_report_of_wrong_types_is_refused(
    data: Path, depths: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    scored(data, depths, get_eval_protocol("depth/marigold-ls"), tmp_path / "out")
    path = tmp_path / "out" / "report.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(EvaluationError, match="is not a report of twofold evaluate"):
        read_report(tmp_path / "out")
