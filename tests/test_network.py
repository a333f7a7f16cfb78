"""User-defined networks as student, teacher and labeller; and other networks in the same loop."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import world
from plain import Plain, Tied
from twofold.backbones import new
from twofold.checkpoints import ModelError, ModelSettings, open_model, open_network, save_model
from twofold.data import Folder, FolderWriter
from twofold.evaluate import EvalRequest, evaluation_from_model, get_eval_protocol, run_and_report, score
from twofold.generate import GenerationConfig, SyntheticDataGenerator
from twofold.predict.base import BasePredictor
from twofold.predict.module import ModulePredictor, pad_images, parse_outputs
from twofold.protocols import OneStep
from twofold.sample import Sample
from twofold.tasks import TASKS
from twofold.train import (
    DataConfig,
    DenoiserConfig,
    EmaConfig,
    HeadConfig,
    LoopConfig,
    NetworkConfig,
    OptimizerConfig,
    Recipe,
    Source,
    ValidationConfig,
    loop,
)
from twofold.train.distributed import DistributedContext
from twofold.train.improve import improve
from twofold.train.improvement import Improvement
from twofold.train.loop import train
from twofold.train.network import NetworkStage
from twofold.train.run import run_recipe, save_student
from twofold.train.state import Ema

FILE = Path(__file__).with_name("plain.py")
PLAIN = f"{FILE}:Plain"
TWO = {"depth": TASKS["depth"], "normals": TASKS["normals"]}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A tiny generator, eight labelled images, and four without labels."""
    root = tmp_path_factory.mktemp("network")
    save_model(new.tiny(), ModelSettings(name="tiny", size=32), root / "model", torch.float32)
    world.rich_folder(root / "rich", 8, 32)
    writer = FolderWriter(root / "bare", {"name": "bare", "targets": {}})
    for seed in range(4):
        writer.write(Sample(world.sphere(seed, 32).image, id=f"bare-{seed}"))
    writer.finish()
    return root


def recipe(root: Path, **changes: Any) -> Recipe:
    made = Recipe(
        name="own",
        model=NetworkConfig(factory=PLAIN),
        data=DataConfig(
            sources=(Source(path=str(root / "rich")),), task_weights=dict.fromkeys(TWO, 1.0), size=(32, 32)
        ),
        optimizer=OptimizerConfig(lr=1e-2, warmup_steps=0, weight_decay=0.0),
        ema=EmaConfig(decay=0.0),
        loop=LoopConfig(steps=4, batch_size=4, save_every=2),
        validation=ValidationConfig(every=0),
    )
    return made.replace(**changes)


def made(**options: Any) -> Plain:
    torch.manual_seed(0)
    return Plain(**options)


def state(run: Path) -> dict[str, Any]:
    return torch.load(run / "state.pt", weights_only=True)


# ---- what a network has to be


def test_outputs_are_repeated_to_three_channels_and_resized_to_the_image():
    shown, size = pad_images(made(), torch.rand(2, 3, 5, 7))
    assert (tuple(shown.shape), size) == ((2, 3, 6, 8), (5, 7))
    output = {
        "depth": torch.rand(2, 1, 3, 4),
        "normals": torch.rand(2, 3, 6, 8),
        "normals/early": torch.rand(2, 3, 6, 8),
    }
    found = parse_outputs(output, TWO, shown.shape, size)
    assert [c.shape for c in found["depth"]] == [(2, 3, 5, 7)]
    assert torch.equal(found["depth"][0][:, 0], found["depth"][0][:, 2])
    assert torch.equal(found["normals"][0], output["normals"][..., :5, :7])
    assert torch.equal(found["normals"][1], output["normals/early"][..., :5, :7])


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (torch.rand(1, 3, 4, 4), "returned a Tensor; expected a mapping from tasks to outputs: return {'depth': ..."),
        ({"depth": torch.rand(1, 1, 4, 4)}, "no output normals; it has depth"),
        ({"depth": torch.rand(1, 2, 4, 4), "normals": torch.rand(1, 3, 4, 4)}, "is (1, 2, 4, 4); expected (1, 1"),
        ({"depth": torch.rand(4, 4), "normals": torch.rand(1, 3, 4, 4)}, "expected (1, 1 or 3, h, w)"),
    ],
)  # fmt: skip
def test_what_is_no_answer_is_refused_with_what_would_be_one(output, reason):
    with pytest.raises(ValueError, match=re.escape(reason)):
        parse_outputs(output, TWO, (1, 3, 4, 4), (4, 4))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"data": {"task_weights": {"image": 1.0}}}, "generates no images"),
        ({"model": {"unet": "frozen"}}, "a recipe has no model.unet"),
        ({"model": {"pixel_loss_weight": 1.0}}, "a recipe has no model.pixel_loss_weight"),
        ({"model": {"factory": ""}}, "model.factory: .* at least 1 character"),
        ({"model": {"kind": "denoiser", "factory": PLAIN}}, "a recipe has no model.factory"),
        ({"data": {"sources": [{"path": "x", "labels": "teacher"}]}}, "needs averaged weights"),
    ],
)
def test_recipe_settings_without_effect_are_refused(root, changes, reason):
    with pytest.raises(ValueError, match=reason):
        recipe(root, **changes)


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        ("Plain", "names no network"), (f"{FILE}:Nobody", "has no 'Nobody'"), (f"{FILE}:nothing", "neither an nn"),
        ("subprocess:run", "neither an nn.Module class"), ("os:system", "neither"), (f"{FILE}:liar", "returns a str"),
        ("nowhere.py:make", "there is no file nowhere.py"), ("nowhere:make", "no module 'nowhere' to import"),
    ],
)  # fmt: skip
def test_a_factory_that_returns_no_network_is_reported(root, network, reason, tmp_path):
    with pytest.raises(ValueError, match=reason):
        next(
            run_recipe(recipe(root, model={"factory": network}), tmp_path / "run", DistributedContext("cpu"))
        )


# ---- learning


@pytest.mark.parametrize("kinds", ["pictures", "classes"])
def test_eight_images_are_overfitted(root, kinds, tmp_path):
    outputs = (
        {"depth": 1, "normals": 3}
        if kinds == "pictures"
        else {"semantic_logits": TASKS["semantic_logits"].out_channels}
    )
    arguments = recipe(
        root,
        model={"options": {"outputs": outputs}},
        data={"task_weights": dict.fromkeys(outputs, 1.0)},
        loop={"steps": 60, "batch_size": 8},
        validation={"data": str(root / "rich"), "num_samples": 2},
    )
    records = list(run_recipe(arguments, tmp_path / "run", DistributedContext("cpu")))
    losses, scores = [r["loss"] for r in records], records[-1]["validation"]
    assert sum(losses[-4:]) / 4 < 0.35 * losses[0]
    if kinds == "pictures":
        assert (
            scores["normals/mean"] < 12
        )  # half of an image is the wall; a random prediction is 90 degrees off
        assert scores["depth/abs_rel"] < 0.02
    else:
        assert scores["semantic_logits/miou"] > 0.8
    assert (tmp_path / "run" / "previews").exists()


@pytest.mark.parametrize("augment", [False, True])
def test_one_forward_pass_trains_all_labelled_tasks_of_an_image(root, augment, tmp_path):
    network = made()
    stage = NetworkStage(
        network,
        recipe(root, data={"augment": augment, "size": (24, 26)}, loop={"batch_size": 6}),
        tmp_path / "run",
        DistributedContext("cpu"),
    )
    lessons = list(stage.draw(0))
    assert [set(lesson) for lesson in lessons] == [{"depth", "normals"}] * 6
    for lesson in lessons:
        depth, normals = lesson["depth"], lesson["normals"]
        assert torch.equal(depth.image, normals.image)
        assert 0 <= depth.image.min() <= depth.image.max() <= 1
        assert depth.canvas is not None and normals.canvas is not None
        assert not torch.equal(depth.canvas, normals.canvas)
    network.shown.clear()
    loss = stage.loss(lessons)
    assert network.shown == [(6, 3, 24, 26)]
    alone = [stage.loss([{kind: lesson[kind]}]).total.item() for lesson in lessons for kind in lesson]
    assert loss.total.item() == pytest.approx(sum(alone), rel=1e-5)
    assert loss.sums["loss#"] == 6
    assert loss.sums["loss"] / 6 == pytest.approx(loss.total.item())


def test_an_auxiliary_output_is_trained_and_not_predicted(root, tmp_path):
    plain = NetworkStage(made(early=True), recipe(root), tmp_path / "run", DistributedContext("cpu"))
    assert isinstance(plain.module, Plain)
    lessons = list(plain.draw(0))
    plain.loss(lessons).total.backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in plain.module.early.parameters())
    assert set(plain.module.eval()(torch.rand(1, 3, 4, 4))) == {"depth", "normals"}


def test_how_a_batch_is_split_does_not_matter(root, tmp_path):
    ends = []
    for micro in (0, 1, 3):
        network = made()
        list(
            train(
                network,
                recipe(root, optimizer={"eps": 1e-3}, loop={"micro_batch_size": micro}),
                tmp_path / str(micro),
                distributed=DistributedContext("cpu"),
            )
        )
        ends.append(network.state_dict())
    for other in ends[1:]:
        for name, value in ends[0].items():
            torch.testing.assert_close(other[name], value, rtol=0, atol=1e-5)


@pytest.mark.parametrize("augment", [False, True])
def test_a_run_that_is_interrupted_ends_in_the_same_weights(root, augment, tmp_path):
    sources = [{"path": str(root / "rich")}, {"path": str(root / "bare"), "labels": "teacher"}]
    arguments = recipe(
        root,
        model={"options": {"norm": True}},
        data={"sources": sources, "augment": augment},
        ema={"decay": 0.9, "update_every": 4},
        loop={"steps": 5},
    )
    list(run_recipe(arguments, tmp_path / "whole", DistributedContext("cpu")))
    records = run_recipe(arguments, tmp_path / "parts", DistributedContext("cpu"))
    for _ in range(4):
        next(records)
    records.close()
    list(run_recipe(arguments, tmp_path / "parts", DistributedContext("cpu")))
    a, b = (state(tmp_path / n) for n in ("whole", "parts"))
    for part in ("weights", "ema"):
        assert a[part] and all(torch.equal(a[part][k], b[part][k]) for k in a[part])
    ends = [open_network(tmp_path / n / "checkpoint", PLAIN).digest for n in ("whole", "parts")]
    assert ends[0] == ends[1]
    assert list(run_recipe(arguments, tmp_path / "parts", DistributedContext("cpu"))) == []


# ---- the teacher


def test_unlabelled_images_are_trained_on_pseudo_labels(root, tmp_path, monkeypatch):
    """It is the average of the whole network, looking as it does in use, at the very crop that the student sees."""
    sources = [{"path": str(root / "rich")}, {"path": str(root / "bare"), "labels": "teacher"}]
    network = made(norm=True).train()
    arguments = recipe(
        root, data={"sources": sources, "augment": True}, ema={"decay": 0.9, "update_every": 4}
    )
    stage = NetworkStage(network, arguments, tmp_path / "run", DistributedContext("cpu"))
    stage.teacher = Ema(network, 0.9, 4)
    with torch.no_grad():
        for value in stage.teacher.average.values():
            value.mul_(1.5)
    lessons = list(stage.draw(0))
    trained = [any(e.use_teacher_label for e in lesson.values()) for lesson in lessons]
    assert sorted(trained) == [False, False, True, True]
    record: dict[str, list] = {}
    original = stage._pixel_loss_terms

    def seen(name, decoded, examples):
        record[name] = list(examples)
        return original(name, decoded, examples)

    monkeypatch.setattr(stage, "_pixel_loss_terms", seen)
    images = torch.stack([lesson["depth"].image for lesson in lessons])
    with stage.teacher.ema_scope():
        output = parse_outputs(network(images), TWO, images.shape, (32, 32))
    stage.loss(lessons)
    for kind, examples in record.items():
        for i, example in enumerate(examples):
            stored, canvas = lessons[i][kind].canvas, example.canvas
            assert canvas is not None and stored is not None and not canvas.requires_grad
            if trained[i]:
                torch.testing.assert_close(canvas, output[kind][0][i].clamp(-1, 1), rtol=0, atol=1e-6)
            else:
                assert torch.equal(canvas, stored)
    assert network.training


def test_only_trainable_weights_of_the_student_change(root, tmp_path):
    torch.manual_seed(0)
    network = Tied()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    arguments = recipe(
        root,
        model={"factory": f"{FILE}:Tied"},
        data={"task_weights": {"normals": 1.0}},
        ema={"decay": 0.999999, "update_every": 1},
    )
    list(train(network, arguments, tmp_path / "run", distributed=DistributedContext("cpu")))
    moved = state(tmp_path / "run")["weights"]
    assert not torch.allclose(moved["one.weight"], before["one.weight"])
    # What is left in the network is the teacher, which keeps all of itself.
    assert all(torch.allclose(v, before[k], atol=1e-5) for k, v in network.state_dict().items())
    assert "still.weight" not in moved


# ---- its checkpoint


@pytest.fixture(scope="module")
def warm(root):
    """A run of two steps, with statistics of its own."""
    arguments = recipe(
        root,
        model={"options": {"norm": True}},
        data={"label_limit": 3},
        ema={"decay": 0.9},
        loop={"steps": 2},
    )
    list(run_recipe(arguments, root / "warm", DistributedContext("cpu")))
    return arguments


def test_opening_a_folder_executes_no_code(warm, root, tmp_path):
    folder = root / "warm" / "checkpoint"
    with pytest.raises(ModelError, match=re.escape(f"pass network={PLAIN!r}")):
        open_network(folder)
    with pytest.raises(ModelError, match="user-defined network"):
        open_model(str(folder))
    with pytest.raises(ModelError, match=r"has no network\.json"):
        open_network(tmp_path)
    opened = [
        open_network(folder, how).module
        for how in (PLAIN, "plain:Plain", f"{FILE}:narrow", Plain, made(norm=True))
    ]
    photo = torch.rand(1, 3, 9, 12, generator=torch.Generator().manual_seed(0))
    answers = [net(photo)["normals"] for net in opened]
    assert all(torch.equal(answers[0], other) for other in answers[1:])
    assert not any(p.requires_grad or net.training for net in opened for p in net.parameters())


def test_weights_of_another_network_are_refused(warm, root):
    folder = root / "warm" / "checkpoint"
    with pytest.raises(ModelError, match=r"also has first\.2\.bias .*and 4 more"):
        open_network(folder, made(norm=False))
    with pytest.raises(ModelError, match=r"heads\.depth\.bias has shape \(1,\), and this Plain needs \(2,\)"):
        open_network(folder, made(norm=True, outputs={"depth": 2, "normals": 3}))
    with pytest.raises(ModelError, match=r"lacks early\.depth\.bias"):
        open_network(folder, made(norm=True, early=True))
    with pytest.raises(ModelError, match="has no task 'mask'; it has depth, normals"):
        open_network(folder, PLAIN).predictor("mask")


def test_shared_weights_are_stored_once_and_shared_again(root, tmp_path):
    arguments = recipe(
        root, model={"factory": f"{FILE}:Tied"}, data={"task_weights": {"normals": 1.0}}, loop={"steps": 1}
    )
    list(run_recipe(arguments, tmp_path / "run", DistributedContext("cpu")))
    read_again = open_network(tmp_path / "run" / "checkpoint", Tied).module
    assert isinstance(read_again, Tied)
    assert read_again.one.weight is read_again.other.weight
    torch.testing.assert_close(read_again.one.weight.data, state(tmp_path / "run")["weights"]["one.weight"])


def test_it_answers_as_predictors_do_and_is_scored_by_all_that_score(warm, root, tmp_path):
    opened = open_network(root / "warm" / "checkpoint", PLAIN)
    predictor = opened.predictor("normals")
    sees: BasePredictor = predictor
    photos = [
        torch.rand(3, *size, generator=torch.Generator().manual_seed(1))
        for size in ((31, 47), (20, 64), (31, 47))
    ]
    found = predictor(photos)
    assert [p.map.shape for p in found] == [(3, 31, 47), (3, 20, 64), (3, 31, 47)]
    for one, photo in zip(found, photos, strict=True):
        torch.testing.assert_close(predictor(photo).map, one.map, rtol=0, atol=1e-5)
        torch.testing.assert_close(one.map.norm(dim=0), torch.ones(photo.shape[1:]), rtol=0, atol=1e-5)
    assert found[0].settings["digest"] == opened.digest
    with pytest.raises(ValueError, match="deterministic, so 3 predictions would be equal"):
        predictor(photos[0], ensemble=3)
    with pytest.raises(ValueError, match="no setting 'steps'"):
        predictor.with_options(steps=4)
    assert torch.equal(predictor.with_options(frame="LUB")(photos[0]).map[0], -found[0].map[0])
    data = Folder(root / "rich")
    request = EvalRequest(
        data, get_eval_protocol("normal/dsine"), tmp_path / "report", count=3, allow_synthetic=True
    )
    report = run_and_report(*evaluation_from_model(request, predictor, size=0), images=False)
    plain = ModulePredictor(opened.module, TASKS["normals"])
    for metric, value in score([plain], [data[i] for i in range(3)]).items():
        assert report["scores"][metric.split("/")[1]] == pytest.approx(value, rel=1e-5)
    assert score([sees], [data[0]]).keys() == score([plain], [data[0]]).keys()


def test_commands_use_a_network_whose_code_the_user_names(warm, root, tmp_path, capsys):
    from twofold.cli.main import run

    data, model = root / "rich", ["--model", str(root / "warm" / "checkpoint")]
    photo = str(next((data / "image").glob("*")))
    arguments = ["predict", photo, *model, "--out", str(tmp_path / "maps"), "--device", "cpu"]
    assert run(arguments) == 2
    assert "--network file.py:make" in capsys.readouterr().err
    assert run([*arguments, "--network", PLAIN]) == 0
    assert len(list((tmp_path / "maps").glob("*_normals.npy"))) == 1
    arguments = [
        "evaluate",
        "--data",
        str(data),
        "--protocol",
        "normal/dsine",
        "--allow-synthetic",
        "--count",
        "2",
        "--json",
    ]
    assert (
        run([*arguments, *model, "--network", PLAIN, "--out", str(tmp_path / "report"), "--device", "cpu"])
        == 0
    )
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["counts"]["evaluated"] == 2
    assert report["subject"]["network"] == PLAIN


# ---- self-improving: another model generates the images


def plan(warm: Recipe, root: Path, **changes: Any) -> Improvement:
    better = warm.replace(name="better", model={"init_from": str(root / "warm" / "checkpoint")})
    settings = GenerationConfig(strength=0.5, steps=2, guidance=1.0, scoring="cheap")
    arguments = {"generation": settings, "rounds": 2, "image_model": str(root / "model"), **changes}
    return Improvement.of(better, **arguments)


def test_a_network_improves_on_images_of_another_model(warm, root, tmp_path):
    events = list(improve(plan(warm, root), tmp_path / "run", DistributedContext("cpu")))
    assert [e["round"] for e in events if e.get("status") == "created"] == [1] * 3 + [2] * 3
    rows = [e["row"]["provenance"]["generator"] for e in events if e.get("status") == "created"]
    first = open_network(root / "warm" / "checkpoint", PLAIN)
    assert {row["label_source"] for row in rows} == {"image"}
    assert rows[0]["weights"] == {
        "model": first.digest,
        "heads": {},
        "image_model": open_model(str(root / "model")).digest,
    }
    assert rows[0]["labels"]["normals"]["digest"] == first.digest != rows[3]["weights"]["model"]
    made = Folder(tmp_path / "run" / "round-1" / "created-0")
    for i in range(len(made)):  # a label can be computed again from the stored image alone
        again = first.predictor("normals")(made[i].image).map
        torch.testing.assert_close(made[i].targets["normals"], again, rtol=0, atol=2e-3)
    teacher = open_network(tmp_path / "run" / "checkpoint", PLAIN)
    student = open_network(tmp_path / "run" / "student", PLAIN)
    assert teacher.tasks == student.tasks == ("depth", "normals")
    assert len({teacher.digest, student.digest, first.digest}) == 3
    assert teacher.settings.recipes == ("own", "better-round-1", "better-round-2")
    with pytest.raises(ValueError, match="not finished"):
        save_student(
            warm.replace(loop={"steps": 9}), tmp_path / "other", tmp_path / "none", DistributedContext("cpu")
        )


def test_improve_requires_a_model_that_generates(warm, root):
    with pytest.raises(ValueError, match="generates no images; pass the model that does"):
        plan(warm, root, image_model="")
    with pytest.raises(ValueError, match="another network labels"):
        plan(warm, root, generation=GenerationConfig(label_mode="denoise"))
    opened, drawing = open_network(root / "warm" / "checkpoint", PLAIN), open_model(str(root / "model"))
    with pytest.raises(ValueError, match="generates no images"):
        SyntheticDataGenerator.from_model(opened)
    with pytest.raises(ValueError, match="depth is predicted by another one from images"):
        SyntheticDataGenerator.from_model(
            opened, config=GenerationConfig(label_mode="denoise"), image_model=drawing
        )


def test_one_diffusion_model_labels_what_another_draws(root):
    settings = ModelSettings(name="sees", size=32).with_tasks(["normals"], OneStep(), "x")
    save_model(new.tiny(7), settings, root / "sees", torch.float32)
    labels, drawing = open_model(str(root / "sees")), open_model(str(root / "model"))
    how = GenerationConfig(strength=0.5, steps=2, guidance=1.0, mask="all", scoring="cheap")
    ball = Folder(root / "rich")[0]
    own, others = (
        SyntheticDataGenerator.from_model(labels, config=how, image_model=d).generate([ball])[0]
        for d in (None, drawing)
    )
    assert torch.equal(
        others.image, SyntheticDataGenerator.from_model(drawing, config=how).generate([ball])[0].image
    )
    assert not torch.equal(others.image, own.image)
    torch.testing.assert_close(
        others.targets["normals"], labels.predictor()(others.image).map, rtol=0, atol=1e-5
    )


def test_the_improve_command_requires_a_generator(warm, root, tmp_path, capsys):
    from twofold.cli.main import run

    better = warm.replace(name="better", model={"init_from": str(root / "warm" / "checkpoint")})
    better.save(tmp_path / "recipe.json")
    arguments = [
        "improve",
        str(tmp_path / "recipe.json"),
        "--out",
        str(tmp_path / "run"),
        "--steps",
        "2",
        "--device",
        "cpu",
    ]
    assert run(arguments) == 2
    assert "a JSON file runs none" in capsys.readouterr().err
    arguments += ["--set", f"model.factory={warm.model.factory}"]
    assert run(arguments) == 2
    assert "image_model='embedded'" in capsys.readouterr().err
    assert (
        run(
            [*arguments, "--generator", str(root / "model"), "--guidance", "1", "--set", "data.label_limit=1"]
        )
        == 0
    )
    assert (tmp_path / "run" / "checkpoint" / "network.json").exists()


# ---- one loop for all


@pytest.mark.parametrize("kind", ["bae", "fpn", "own"])
def test_one_loop_trains_heads_and_user_defined_networks(root, kind, tmp_path):
    """Heads of one task on a frozen diffusion model, and a plain network of several; all lower their loss."""
    if kind == "own":
        arguments, network = recipe(root, loop={"steps": 16}), made()
    else:
        task = {"bae": "normals", "fpn": "semantic_logits"}[kind]
        arguments = Recipe(
            name=kind,
            model=DenoiserConfig(
                head=HeadConfig(name=kind),
                unet="frozen",
                text_encoder="frozen",
                latent_loss_weight=0.0,
                pixel_loss_weight=1.0,
            ),
            data=DataConfig(
                sources=(Source(path=str(root / "rich")),), task_weights={task: 1.0}, size=(32, 32)
            ),
            optimizer=OptimizerConfig(lr=5e-3, warmup_steps=0, weight_decay=0.0),
            ema=EmaConfig(decay=0.0),
            loop=LoopConfig(steps=16, batch_size=4, save_every=0),
            validation=ValidationConfig(every=0),
        )
        network = new.tiny()
    losses = [r["loss"] for r in train(network, arguments, tmp_path / "run", {}, DistributedContext("cpu"))]
    assert sum(losses[-3:]) / 3 < losses[0] - 0.3 * abs(losses[0])


def test_the_loop_contains_no_task_names():
    assert loop.__file__ is not None
    words = set(re.findall(r"[a-z_]+", Path(loop.__file__).read_text()))
    assert not words & set(TASKS)


def test_the_page_s_network_is_one(root):
    """The first program of the section."""
    page = (Path(__file__).parents[1] / "docs" / "training.md").read_text()
    program = page.split("## A network of your own")[1].split("```python\n")[1].split("```")[0]
    names: dict[str, Any] = {"__file__": "mine.py", "__name__": "page"}
    exec(compile(program, "docs/training.md", "exec"), names)
    arguments = names["mine"]()
    network = names["Small"](**arguments.model.options)
    found = ModulePredictor(network.eval(), TASKS["normals"])(torch.rand(3, 9, 13))
    assert found.map.shape == (3, 9, 13)
    assert arguments.model.factory == "mine.py:Small"


def test_a_network_without_trainable_weights_is_reported(root, tmp_path):
    still = nn.Conv2d(3, 3, 1).requires_grad_(False)
    with pytest.raises(ValueError, match="without trainable parameters"):
        NetworkStage(still, recipe(root), tmp_path / "run", DistributedContext("cpu"))
