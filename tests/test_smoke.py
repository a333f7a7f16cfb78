"""Every published recipe in miniature: it trains, is saved and predicts; and what the miniature keeps of it."""

import json
import re
from copy import deepcopy
from pathlib import Path

import pytest
import torch

import world
from twofold.backbones import new
from twofold.checkpoints import ModelSettings, open_model, save_model
from twofold.cli.main import run
from twofold.compat.class_colors import NYU40_COLOURS, decode_colors, encode_colors
from twofold.data.writer import FolderWriter
from twofold.predict.config import OutputConfig
from twofold.predict.diffusion import DiffusionPredictor
from twofold.protocols import MultiStep, Noise
from twofold.sample import Sample
from twofold.targets.people import JOINTS
from twofold.tasks import get_task
from twofold.train.loop import train
from twofold.train.recipe import Recipe, Source
from twofold.train.recipe_loader import recipes
from twofold.train.run import run_recipe
from twofold.train.smoke import check_data, smoke_config
from twofold.train.smoke_stages import second_stage_smoke_config, stages

ROOT = Path(__file__).parents[1]
FILES = (
    "genpercept",
    "table1",
    "table2",
    "table3",
    "table4",
    "table5",
    "table12",
    "peers",
    "diff2in1",
    "multitask",
)
SIDE = 32
DATA_SETS = re.compile(r"(KITTI|NYUv2|ScanNet|DIODE|ETH3D) (\.\d{3})")


RECIPES = {
    f"{name}:{key}": f for name in FILES for key, f in recipes(ROOT / "recipes" / f"{name}.py").items()
}


def ball(seed: int) -> Sample:
    """A ball before a wall, with the mask of the ball and two classes."""
    sample = world.sphere(seed, SIDE)
    on = (sample.targets["depth"] < 1.999).float()
    known = sample.valid["depth"]
    targets = {**sample.targets, "mask": on, "semantic": on * 17 + 1}
    return Sample(
        sample.image, targets, dict.fromkeys(targets, known), sample.caption, sample.id, None, sample.origin
    )


@pytest.fixture(scope="module")
def tiny():
    """The network that runs without files begin with; to be copied."""
    return new.tiny()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A tiny random model, and a folder of images with every target that the smoke-test recipes need."""
    root = tmp_path_factory.mktemp("lab")
    save_model(new.tiny(), ModelSettings(name="tiny", size=SIDE), root / "model", torch.float32)
    names = ("depth", "normals", "mask", "semantic")
    writer = FolderWriter(root / "balls", {"name": "balls", "targets": {n: {} for n in names}})
    for seed in range(3):
        writer.write(ball(seed))
    writer.finish()
    manifest = root / "balls" / "metadata.jsonl"
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    for row in rows:
        row["targets"]["keypoints"] = {"points": [[3 + k, 28 - k, 2] for k in range(len(JOINTS))]}
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def small(place: Path, name: str) -> Recipe:
    """The smoke-test version of a recipe, reduced to one step of two images; of a second stage, its warm-up."""
    whole = RECIPES[name]()
    folder = str(place / "balls")
    if whole.data.has_teacher_labels:
        recipe, _ = stages(whole, second_stage_smoke_config(whole, data=folder, test=folder), place)
    else:
        recipe = smoke_config(whole, data=folder, test=folder)
    check_data(recipe)
    return recipe.replace(
        model={"init_from": str(place / "model")},
        data={"size": (SIDE, SIDE)},
        optimizer={"warmup_steps": 0},
        loop={"steps": 1, "batch_size": 2 * len(recipe.tasks), "save_every": 0},
        validation={"data": None},
    )


def way(recipe: Recipe) -> tuple:
    """What decides how a run is saved and opened again."""
    model, protocol = recipe.denoiser, recipe.denoiser.protocol
    state = (protocol.kind, protocol.start if protocol.condition == "concat" else "")
    trained = any(s.labels == "teacher" for s in recipe.data.sources)
    return tuple(recipe.data.task_weights), model.head.name, model.unet, model.decoder, state, trained


# One recipe of each kind is saved and opened; the others differ in numbers and predict without being saved.
KINDS = {way(f()): name for name, f in reversed(RECIPES.items())}


@pytest.mark.parametrize("name", KINDS.values())
def test_every_kind_of_recipe_trains_is_saved_and_predicts(place, tmp_path, name):
    recipe = small(place, name)
    assert 0 < list(run_recipe(recipe, place / tmp_path.name))[-1]["loss"] < 100
    model = open_model(str(place / tmp_path.name / "checkpoint"))
    arguments = {get_task(t).name: recipe.denoiser.prompts[t] for t in recipe.tasks}
    assert set(model.tasks) == set(arguments)
    for task, prompt in arguments.items():
        how = model.settings.tasks[task]
        assert (how.protocol, how.head, how.prompt) == (
            recipe.denoiser.protocol,
            recipe.denoiser.head.name,
            prompt,
        )
        assert sound(model.predictor(task)(ball(7).image).map)


@pytest.mark.parametrize("name", [n for n in RECIPES if n not in KINDS.values()])
def test_every_other_recipe_trains_and_predicts(place, tiny, tmp_path, name):
    recipe, heads = small(place, name), {}
    net = deepcopy(tiny)
    new.reinitialize(net, [part for part in recipe.denoiser.reset if part != "heads"], [""], 0)
    new.expand_conv_in(net, recipe.denoiser.protocol.channels(net.latent_channels))
    assert 0 < list(train(net, recipe, place / tmp_path.name, heads))[-1]["loss"] < 100
    for task in recipe.tasks:
        answer = DiffusionPredictor(
            net,
            get_task(task),
            recipe.denoiser.protocol,
            heads[task],
            OutputConfig(prompt=recipe.denoiser.prompts[task]),
        )
        assert sound(answer(ball(7).image).map)


def sound(answer: torch.Tensor) -> bool:
    return answer.shape[-2:] == (SIDE, SIDE) and bool(answer.isfinite().all())


def test_every_recipe_has_a_docstring_and_a_name_of_its_own():
    made = {name: f() for name, f in RECIPES.items()}
    assert all(f.__doc__ for f in RECIPES.values())
    names = [r.name for r in made.values()]
    assert len(set(names)) == len(names)
    for name, function in RECIPES.items():
        if name.startswith("table"):
            assert [x for x, _ in DATA_SETS.findall(function.__doc__ or "")] == [
                "KITTI", "NYUv2", "ScanNet", "DIODE", "ETH3D",
            ]  # fmt: skip


def test_the_page_lists_every_recipe_with_its_numbers():
    page = (ROOT / "docs" / "recipes.md").read_text()
    for name, function in RECIPES.items():
        file, _, key = name.partition(":")
        row = next((line for line in page.splitlines() if f"`{file}.py:{key}`" in line), "")
        assert row, f"docs/recipes.md does not list {name}"
        for data, number in DATA_SETS.findall(function.__doc__ or "" if file.startswith("table") else ""):
            assert number in row, f"{name}: docs/recipes.md lacks {data} {number}"


def test_the_laboratory_keeps_what_a_recipe_is_about():
    recipe = RECIPES["table4:lora_1024"]().replace(
        model={"lora": {"alpha": 2048}}, data={"label_limit": 50}, optimizer={"decay_steps": 25000}
    )
    small = smoke_config(recipe, data=["a", "b"], test="c")
    assert small.data.sources == (Source(path="a", share=0.9), Source(path="b", share=0.1))
    assert (small.model.init_from, small.reset, small.validation.data) == ("embedded", ("heads",), "c")
    lora, optimizer, loop = small.denoiser.lora, small.optimizer, small.loop
    assert (lora.rank, lora.alpha, small.data.label_limit) == (154, 307, 50)
    assert (loop.steps, optimizer.warmup_steps, optimizer.decay_steps) == (300, 10, 250)
    assert (optimizer.name, optimizer.lr, optimizer.final_lr_ratio) == ("adam", pytest.approx(3e-4), 0.01)
    assert (loop.seed, loop.micro_batch_size, loop.precision, small.data.block_size) == (2024, 0, "fp32", 1)
    ranks = [smoke_config(RECIPES[f"table4:lora_{r}"]()).denoiser.lora.rank for r in (4, 16, 64, 256, 1024)]
    assert ranks == sorted(set(ranks))
    # One folder for two sources is one source of all the examples, thinned as they were.
    thin = smoke_config(RECIPES["table12:data_11k"](), data="a")
    assert thin.data.sources == (Source(path="a", share=1.0, fraction=0.125),)


def test_every_beta_of_table_1_is_sampled_with_its_schedule():
    protocols = [f().denoiser.protocol for name, f in RECIPES.items() if name.startswith("table1:")]
    walks = [p for p in protocols if isinstance(p, MultiStep)]
    assert len(walks) == len(protocols) - 1 == 23
    assert {(p.noise.start, p.noise.end) for p in walks if p.noise} == {
        (0.0002125, 0.003), (0.000425, 0.006), (0.00085, 0.012), (0.0034, 0.048), (0.136, 0.192), (0.544, 0.768),
        (1.0, 1.0),
    }  # fmt: skip
    tens = [901 - 100 * i for i in range(10)]
    assert all(p.times(Noise().schedule) in (tens, [1]) for p in walks)


def test_genpercept_is_the_last_row_of_table_1_bit_for_bit(place, tiny, tmp_path):
    """At beta = (1, 1) ten steps equal one, in training and prediction, and need no schedule."""
    losses, answers = [], []
    for name in ("rgb_noise_beta_1", "rgb_noise_beta_1_in_one"):
        recipe, heads, net = (
            small(place, f"table1:{name}").replace(data={"block_size": 1}),
            {},
            deepcopy(tiny),
        )
        losses += [r["loss"] for r in train(net, recipe, place / f"{tmp_path.name}-{name}", heads)]
        predictor = DiffusionPredictor(
            net, get_task("depth"), recipe.denoiser.protocol, heads["depth"], OutputConfig(prompt="")
        )
        answers.append(predictor(ball(7).image).map)
    assert losses[0] == losses[1]
    assert torch.equal(*answers)


def test_missing_smoke_test_data_is_reported(place, tmp_path):
    recipe = smoke_config(RECIPES["table1:rgb_noise_beta_1"](), data=str(tmp_path / "rooms"))
    with pytest.raises(
        ValueError, match=r"twofold render --count 1200 --seed 1 --spp 4 --out .*rooms \(fewer"
    ):
        check_data(recipe)
    with pytest.raises(ValueError, match="has only depth, keypoints, mask, normals, semantic"):
        check_data(
            recipe.replace(
                model={"prompts": {}},
                data={"sources": (Source(path=str(place / "balls")),), "task_weights": {"albedo": 1.0}},
                validation={"data": None},
            )
        )
    with pytest.raises(ValueError, match="no smoke test of it"):
        smoke_config(recipe.replace(model={"prompts": {}}, data={"task_weights": {"image": 1.0}}, loss={}))


def test_the_command_runs_a_row_in_the_laboratory(place, tmp_path, monkeypatch, capsys):
    """By file and function; --set changes the smoke-test version, and missing data is reported in one line."""
    monkeypatch.chdir(tmp_path)
    file = ROOT / "recipes" / "table2.py"
    assert run(["train", f"{file}:image_mse", "--smoke-test"]) == 2
    output = capsys.readouterr().err
    assert "rendered scenes in data/rooms, which does not exist; run: twofold render --count 1200" in output
    balls = str(place / "balls")
    changes = {
        "model.init_from": str(place / "model"),
        "data.sources": json.dumps([{"path": balls}]),
        "validation.data": balls,
        "loop.steps": 1,
        "data.size": [SIDE, SIDE],
        "loop.batch_size": 2,
        "validation.num_samples": 1,
    }
    settings = [x for key, value in changes.items() for x in ("--set", f"{key}={value}")]
    assert (
        run(["train", f"{file}:image_mse", "--smoke-test", "--device", "cpu", "--tracker", "none", *settings])
        == 0
    )
    assert "val depth/abs_rel" in capsys.readouterr().out
    assert Recipe.read(tmp_path / "runs/smoke-genpercept-image-mse/recipe.json").loss == {
        "depth": {"mse": 1.0}
    }
    assert run(["train", f"{file}:for_task", "--smoke-test"]) == 2
    assert "of: baseline, unet_from_scratch, decoder_from_scratch" in capsys.readouterr().err


def test_hypersim_colours_as_released_decode_to_the_nearest_class():
    ids = torch.arange(40).reshape(1, 1, 5, 8)
    canvas, known = encode_colors(ids, ids < 40)
    assert (float(canvas.min()), float(canvas.max())) == (-1.0, 1.0)
    assert known.all()
    # Colours of the whole palette go from 19 to 255: stretched by 8 percent, most are still nearest to themselves.
    assert (decode_colors(canvas) == ids).float().mean() > 0.9
    # An image with a single class has a constant value.
    one, _ = encode_colors(torch.full((1, 1, 4, 4), 4), torch.ones(1, 1, 4, 4, dtype=torch.bool))
    red, green, blue = (one[0, :, 0, 0] + 1).tolist()
    r, g, b = NYU40_COLOURS[4]
    assert (red, blue) == (pytest.approx(2 * (r - b) / (g - b)), 0.0)
    assert green == 2.0
    with pytest.raises(ValueError, match="classes are 0 to 39"):
        encode_colors(torch.full((1, 1, 2, 2), 40), torch.ones(1, 1, 2, 2, dtype=torch.bool))
