"""Creation over a folder: killed, sharded or resumed, it ends with the same bytes and complete rows."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from twofold.cli.main import run
from twofold.compat.diff2in1_folders import export_official, index_official, is_official
from twofold.data.folder import Folder
from twofold.data.layout import FolderError
from twofold.data.writer import FolderWriter
from twofold.generate import (
    CreateError,
    CreationOptions,
    GenerationConfig,
    ScoreThreshold,
    SyntheticDataGenerator,
    create_samples,
)
from twofold.generate.preview import preview_image
from twofold.generate.relative import can_train_on, from_depth, relative_space
from twofold.image import read_image, write_image
from twofold.io import Shard
from twofold.io.atomic import host_name
from twofold.tasks import TASKS
from twofold.train.encoder import encode_target
from world import folder as balls, origin_of, sphere

QUICK = GenerationConfig(steps=2, guidance=1.0, scoring="cheap")


@pytest.fixture(scope="module")
def model(tiny_model):
    from twofold.checkpoints import open_model

    return open_model(str(tiny_model))


@pytest.fixture(scope="module")
def creator(model):
    return SyntheticDataGenerator.from_model(model, ["depth", "normals"], QUICK)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return Folder(balls(tmp_path_factory.mktemp("sources") / "balls", 4, 32))


@pytest.fixture(scope="module")
def whole(creator, sources, tmp_path_factory):
    """A job done in one go."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert {event["status"] for event in create_samples(creator, sources, out)} == {"created"}
    return out


@pytest.mark.parametrize(
    "chosen", [{"count": 2}, {"fraction": 0.5}, {"fraction": 0.5, "selection": "random", "selection_seed": 4}]
)
def test_creation_uses_the_samples_of_training(creator, sources, chosen):
    from twofold.generate.creation import list_items
    from twofold.train.recipe import Source

    source = {"limit" if k == "count" else k: v for k, v in chosen.items()}
    expected = Source(path="x", **source).indices(len(sources))
    assert [item.source for item in list_items(creator, sources, CreationOptions(**chosen))] == expected
    assert expected != [0, 1], "not simply the first"


def test_a_job_accepts_a_count_or_a_fraction():
    with pytest.raises(ValueError, match="pass a count, or a fraction"):
        CreationOptions(count=2, fraction=0.5)
    with pytest.raises(ValueError, match="pass a count, or a fraction"):
        CreationOptions(fraction=0.0)


def contents(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def statuses(events) -> list[str]:
    return [event["status"] for event in events]


def test_what_is_created_is_a_data_folder(creator, sources, whole):
    found = Folder(whole)
    assert found.ids == tuple(f"ball-{i}-T600-0" for i in range(4))
    for i, sample in enumerate(found):
        assert origin_of(sample).kind == "synthetic"
        assert origin_of(sample).parents == (f"ball-{i}",)
        expected = creator.generate([sources[i]])[0]
        assert torch.equal(sample.image, expected.image)
        assert torch.equal(sample.targets["depth"], expected.targets["depth"])
        torch.testing.assert_close(sample.targets["normals"], expected.targets["normals"], rtol=0, atol=1e-3)
        assert relative_space(found, i) == "depth"
        assert can_train_on(TASKS["depth"], found, i)
        assert can_train_on(TASKS["normals"], found, i)
        assert not can_train_on(TASKS["disparity"], found, i)
        assert float(from_depth(sample.targets["depth"], "depth").max()) <= 1
        for name in ("depth", "normals"):
            canvas, known = encode_target(TASKS[name], sample)  # as training does
            assert torch.equal(known, sample.valid[name])
            assert float(canvas.std()) > 0
    assert relative_space(sources, 0) == ""
    assert can_train_on(TASKS["disparity"], sources, 0)


def test_a_row_is_enough_to_make_its_sample_again(model, sources, whole):
    row = Folder(whole).rows[2]
    record = row["provenance"]["generator"]
    names = GenerationConfig.__dataclass_fields__
    settings = GenerationConfig(**{name: record[name] for name in names})
    again = SyntheticDataGenerator.from_model(model, list(record["labels"]), settings)
    source = sources.select([record["source"]["id"]])[0]
    made = again.generate([source], record["index"])[0]
    assert torch.equal(made.image, read_image(whole / row["file_name"]))
    remade = {**origin_of(made).generator, "source": record["source"]}
    assert json.loads(json.dumps(remade)) == record
    assert record["weights"]["model"] == model.digest
    assert set(record["weights"]["heads"]) == {"depth", "normals"}
    assert len(record["source"]["file_sha256"]) == len(record["source"]["pixels_sha256"]) == 64
    assert record["caption"] == {"text": "a ball before a wall", "source": "row"}
    assert (record["start"], record["denoising_steps"], record["sampler"], record["guidance"]) == (
        600,
        2,
        "ddim",
        1.0,
    )
    assert record["masks"] == {"depth": "source", "normals": "source"}
    assert record["versions"]["twofold"]
    assert set(record["scores"]) == {"rms_pixels", "rms_latents", "drift.depth", "drift.normals"}


def test_shared_by_processes_at_once_and_in_any_order_it_is_the_same(creator, sources, whole, tmp_path):
    out = tmp_path / "out"
    backwards = sources.select(sources.ids[::-1])
    children = []
    for part in (2, 0, 1):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                code = int(
                    set(
                        statuses(
                            create_samples(creator, backwards, out, CreationOptions(shard=Shard(part, 3)))
                        )
                    )
                    != {"created"}
                )
            finally:
                os._exit(code)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0, 0]
    assert contents(out) == contents(whole)


def test_continued_it_is_the_same_and_nothing_is_made_twice(creator, sources, whole, tmp_path):
    out = tmp_path / "out"
    job = create_samples(creator, sources, out)
    next(job)
    next(job)
    assert isinstance(job, Generator)
    job.close()  # as Ctrl-C does
    with pytest.raises(FolderError, match="unfinished"):
        Folder(out)
    assert statuses(create_samples(creator, sources, out)) == ["kept", "kept", "created", "created"]
    assert contents(out) == contents(whole)
    assert statuses(create_samples(creator, sources, out)) == ["kept"] * 4
    assert contents(out) == contents(whole)


def test_killed_at_any_moment_nothing_is_torn_and_the_rest_is_done(creator, sources, whole, tmp_path):
    out = tmp_path / "out"
    child = os.fork()
    if child == 0:
        for _ in create_samples(creator, sources, out):
            pass
        os._exit(0)
    deadline = time.monotonic() + 60
    while not list(out.glob("image/*.png")) and time.monotonic() < deadline:
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    (out / "image" / f".tmp-{host_name()}-{child}-00000000.png").write_bytes(b"half")
    for path in out.glob("image/[!.]*.png"):
        read_image(path)
    events = list(create_samples(creator, sources, out))
    assert set(statuses(events)) <= {"kept", "created"}
    assert contents(out) == contents(whole)


def test_batches_are_always_the_same_batches(creator, sources, tmp_path):
    once, twice = tmp_path / "once", tmp_path / "twice"
    statuses(create_samples(creator, sources, once, CreationOptions(batch=3)))
    job = create_samples(creator, sources, twice, CreationOptions(batch=3))
    next(job)
    assert isinstance(job, Generator)
    job.close()
    # A part of a batch is lost as well: its row is the last thing written.
    next(twice.glob(".rows/*-1-T600-0.json")).unlink()
    statuses(create_samples(creator, sources, twice, CreationOptions(batch=3)))
    assert contents(once) == contents(twice)


def test_several_strengths_and_samples_lie_side_by_side(creator, sources, whole, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    job = CreationOptions(strengths=(0.2, 0.6), per_image=2, count=2)
    assert sorted(statuses(create_samples(creator, sources, out, job))) == ["created"] * 6 + ["kept"] * 2
    assert len(Folder(out)) == 10
    made = Folder(out).select(["ball-0-T600-0", "ball-0-T600-1", "ball-0-T200-0"])
    images = [sample.image for sample in made]
    assert not torch.equal(images[0], images[1])
    with pytest.raises(ValueError, match="one time step"):
        list(create_samples(creator, sources, out, CreationOptions(strengths=(0.6, 0.6001))))
    sheet = preview_image(
        Folder(out), sources, {n: TASKS[n] for n in ("depth", "normals")}, max_sources=2, edge=32
    )
    # Source, T200, T600; of two sources an image, two labels and a mask.
    assert sheet.shape == (3, 8 * (32 + 18 + 4) - 4, 3 * 36 - 4)


def test_other_settings_and_other_sources_are_refused(model, creator, sources, whole, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    with pytest.raises(CreateError, match=r"started with other settings \(seed\)"):
        list(
            create_samples(
                SyntheticDataGenerator.from_model(model, ["depth", "normals"], replace(QUICK, seed=1)),
                sources,
                out,
            )
        )
    with pytest.raises(CreateError, match=r"other settings \(tasks"):
        list(create_samples(SyntheticDataGenerator.from_model(model, ["depth"], QUICK), sources, out))
    changed = tmp_path / "changed"
    shutil.copytree(sources.root, changed)
    write_image(changed / sources.rows[0]["file_name"], sphere(7, 32).image)
    with pytest.raises(CreateError, match="image of source 'ball-0' has changed"):
        list(create_samples(creator, Folder(changed), out))
    assert contents(out) == contents(whole)


def test_rejected_samples_are_listed_and_not_stored(creator, sources, tmp_path):
    out = tmp_path / "out"
    scores = [creator.generate([s])[0].origin.generator["scores"]["rms_pixels"] for s in sources]
    limit = sorted(scores)[1]
    job = CreationOptions(filters=(ScoreThreshold.parse(f"rms_pixels<={limit!r}"),))
    events = list(create_samples(creator, sources, out, job))
    kept = [e["id"] for e in events if e["status"] == "created"]
    assert len(kept) == 2
    assert Folder(out).ids == tuple(sorted(kept))
    rejected = [json.loads(line) for line in (out / "rejected.jsonl").read_text().splitlines()]
    assert {row["id"] for row in rejected} == {e["id"] for e in events if e["status"] == "rejected"}
    for row in rejected:
        assert row["reasons"] == [
            f"rms_pixels<={limit:g}: rms_pixels is {row['provenance']['generator']['scores']['rms_pixels']:.4g}"
        ]
        assert not list(out.rglob(f"{row['id']}.*"))
    before = contents(out)
    assert statuses(create_samples(creator, sources, out, job)) == ["kept"] * 4
    assert contents(out) == before
    with pytest.raises(CreateError, match="filters"):
        list(create_samples(creator, sources, out))


def test_an_unreadable_source_is_reported_and_the_others_are_created(creator, sources, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(sources.root, broken)
    (broken / sources.rows[1]["file_name"]).write_bytes(b"no picture")
    events = list(create_samples(creator, Folder(broken), tmp_path / "out"))
    assert statuses(events) == ["created", "failed", "created", "created"]
    assert "ball-1" in events[1]["error"]
    assert len(Folder(tmp_path / "out")) == 3


def test_a_created_folder_can_be_created_from(creator, whole, tmp_path):
    """Its depth is relative, and drift is still measured against it."""
    events = list(create_samples(creator, Folder(whole), tmp_path / "again", CreationOptions(count=1)))
    scores = events[0]["row"]["provenance"]["generator"]["scores"]
    assert {"drift.depth", "drift.normals"} <= set(scores)


@pytest.fixture
def nyu(tmp_path):
    """Three images in the released code's layout."""
    root = tmp_path / "nyu" / "train"
    for part in ("img", "norm", "caption"):
        (root / part).mkdir(parents=True)
    for i in range(3):
        ball = sphere(i, 32)
        write_image(root / "img" / f"{i}.png", ball.image)
        left = ball.targets["normals"] * torch.tensor([-1.0, 1.0, 1.0])[:, None, None]
        colours = (left + 1) / 2
        colours[:, :4] = 0
        write_image(root / "norm" / f"n{i}.png", colours)
        (root / "caption" / f"c{i}.txt").write_text(f"ball {i}\n")
    return root


def test_the_official_layout_is_read_and_written(creator, nyu, tmp_path):
    assert is_official(nyu)
    real = index_official(nyu, tmp_path / "index")
    assert [s.caption for s in real] == ["ball 0", "ball 1", "ball 2"]
    assert not bool(real[0].valid["normals"][:, :4].any())
    apart = (real[0].targets["normals"] - sphere(0, 32).targets["normals"])[:, 4:]
    assert float(apart.abs().max()) < 0.02
    statuses(create_samples(creator, real, tmp_path / "out", CreationOptions(count=2)))
    made = Folder(tmp_path / "out")
    final = export_official(made, tmp_path / "dataset", 600, real=real)
    assert final == tmp_path / "dataset" / "nyu_nyu_T600" / "train"
    names = sorted(p.name for p in (final / "img").iterdir())
    assert [name[0] == "r" for name in names] == [False] * 3 + [True] * 2
    again = index_official(final, tmp_path / "index2")
    assert [row["provenance"]["origin"] for row in again.rows] == ["real"] * 3 + ["synthetic"] * 2
    for k, sample in enumerate(made):
        back = again[3 + k]
        assert torch.equal(back.image, sample.image)
        assert back.caption == f"ball {k}"
        known = sample.valid["normals"]
        assert torch.equal(back.valid["normals"], known)
        off = TASKS["normals"].distance(back.targets["normals"][None], sample.targets["normals"][None])[0][
            known
        ]
        assert float(off.max()) < 0.5  # 8 bits
        assert float(off.mean()) > 0.05
    (nyu / "norm" / "n2.png").unlink()
    with pytest.raises(FolderError, match="2 in norm"):
        index_official(nyu, tmp_path / "index3")
    with pytest.raises(FolderError, match="no sample created from time step 300"):
        export_official(made, tmp_path / "dataset", 300)


def test_the_command_creates_and_reports(sources, tiny_model, tmp_path, capsys):
    out, sheet = tmp_path / "out", tmp_path / "sheet.png"
    command = [
        "create",
        str(sources.root),
        "--model",
        str(tiny_model),
        "--out",
        str(out),
        "--count",
        "2",
        "--steps",
        "2",
    ]
    command += ["--scoring", "cheap", "--strength", "0.3", "--task", "normals"]
    assert run([*command, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["status"] for row in rows] == ["created"] * 2
    assert rows[0]["row"]["provenance"]["generator"]["start"] == 300
    assert run([*command, "--sheet", str(sheet), "--layout", "official"]) == 0
    record = capsys.readouterr()
    assert "2 kept" in record.out
    assert not record.err
    assert read_image(sheet).shape[0] == 3
    assert len(list((out / "nyu_nyu_T300" / "train" / "img").iterdir())) == 6
    assert run([*command, "--shard", "2/2"]) == 0
    for wrong, output in (
        (["--strength", "2"], "--strength"), (["--shard", "3/2"], "--shard"), (["--filter", "fun<3"], "no score"),
        (["--compat", "official", "--guidance", "2"], "guidance=1"), (["--label-mode", "guess"], "--label-mode"),
        (["--label-mode", "denoise"], "reads none"), (["--task", "albedo"], "has no task"),
        (["--seed", "5"], "started with other settings (seed)"), (["--filter", "flip<5"], "scoring 'all'"),
        (["--dtype", "bfloat16"], "started with other settings (dtype"),
    ):  # fmt: skip
        assert run([*command, *wrong]) == 2
        error = capsys.readouterr().err
        assert output in error
        assert error.count("\n") == 1


def test_every_task_with_an_image_target_can_be_stored(model, sources, tmp_path):
    from twofold.backbones import new
    from twofold.heads import LatentHead
    from twofold.predict.diffusion import DiffusionPredictor
    from twofold.protocols import OneStep

    net = new.tiny()
    chosen = {
        n: t
        for n, t in TASKS.items()
        if t.is_image and n not in ("sqrt_disparity", "log_depth", "depth", "saliency")
    }
    predictors = {n: DiffusionPredictor(net, t, OneStep(), LatentHead(), size=32) for n, t in chosen.items()}
    maker = SyntheticDataGenerator(net, predictors, QUICK, {}, "tiny")
    events = list(create_samples(maker, sources, tmp_path / "out", CreationOptions(count=1)))
    assert statuses(events) == ["created"]
    found, made = Folder(tmp_path / "out")[0], maker.generate([sources[0]])[0]
    assert set(found.targets) == {t.target for t in chosen.values()}
    for name, target in found.targets.items():
        expected = made.targets[name]
        torch.testing.assert_close(target, expected, rtol=0, atol=1e-3 if name == "normals" else 1e-6)
        assert torch.equal(found.valid[name], made.valid[name])


def test_a_folder_of_another_writer_is_not_continued(creator, sources, tmp_path):
    FolderWriter(tmp_path / "out", {"name": "mine", "targets": {"depth": {}}})
    with pytest.raises(CreateError, match="other settings"):
        list(create_samples(creator, sources, tmp_path / "out"))


def test_the_program_of_the_page_runs():
    page = (Path(__file__).parents[1] / "docs" / "create.md").read_text()
    programs = page.split("```python\n")[1:]
    assert len(programs) == 1
    exec(compile(programs[0].split("```")[0], "docs/create.md", "exec"), {})
