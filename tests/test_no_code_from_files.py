"""Names in files are data: no command imports a module because a checkpoint, a recipe or a data folder names it."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import world
from twofold.checkpoints import ModelError, open_model, open_network, save_network
from twofold.checkpoints.network import NetworkSettings
from twofold.cli.main import run
from twofold.image import write_image
from twofold.tasks import depth, get_task
from twofold.train import DataConfig, DenoiserConfig, LoopConfig, OptimizerConfig, Recipe, Source

TASK, NETWORK = "sneaky:task", "sneaky:make"


@pytest.fixture
def root(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a model, data and an image, where `sneaky` can be imported and leaves a mark if it is."""
    (tmp_path / "sneaky.py").write_text(
        f"open({str(tmp_path / 'mark')!r}, 'w').close()\n"
        "from twofold.tasks import depth as task\nfrom torch import nn\n"
        "class make(nn.Module):\n    pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_model, tmp_path / "model")
    world.folder(tmp_path / "data", 2, 32)
    write_image(tmp_path / "photo.png", world.sphere(1, 32).image)
    yield tmp_path
    sys.modules.pop("sneaky", None)


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    found = json.loads(path.read_text())
    change(found)
    path.write_text(json.dumps(found))


def _key(settings: dict[str, Any]) -> None:
    settings["tasks"] = {TASK: settings["tasks"]["depth"]}


def _key_and_task(settings: dict[str, Any]) -> None:
    settings["tasks"] = {TASK: {**settings["tasks"]["depth"], "task": TASK}}


def _task(settings: dict[str, Any]) -> None:
    settings["tasks"]["depth"]["task"] = TASK


def _head(settings: dict[str, Any]) -> None:
    settings["tasks"]["depth"]["head"] = NETWORK


def _protocol(settings: dict[str, Any]) -> None:
    settings["tasks"]["depth"]["protocol"]["kind"] = NETWORK


def _class(config: dict[str, Any]) -> None:
    config |= {"_class_name": NETWORK, "architectures": [NETWORK], "model_type": NETWORK}


def _remote(config: dict[str, Any]) -> None:
    names = ("AutoModel", "AutoConfig", "AutoTokenizer", "UNet2DConditionModel", "CLIPTextModel")
    config |= {
        "auto_map": dict.fromkeys(names, "sneaky.make"),
        "custom_code": "sneaky",
        "_name_or_path": "sneaky",
    }
    config |= {
        "trust_remote_code": True,
        "_attn_implementation": "sneaky/make",
        "attn_implementation": "sneaky",
    }


PLACES: dict[str, tuple[str, Callable[[dict[str, Any]], None]]] = {
    "key": ("twofold.json", _key),
    "key and task": ("twofold.json", _key_and_task),
    "task": ("twofold.json", _task),
    "head": ("twofold.json", _head),
    "protocol": ("twofold.json", _protocol),
    "classes": ("*", _class),
    "remote code": ("*", _remote),
}
# The files of other libraries.
CONFIGS = (
    "unet/config.json", "vae/config.json", "text_encoder/config.json", "scheduler/scheduler_config.json",
    "tokenizer/tokenizer_config.json", "model_index.json",
)  # fmt: skip

COMMANDS: dict[str, list[str]] = {
    "predict": ["predict", "photo.png", "--model", "model", "--out", "out"],
    "predict a task": ["predict", "photo.png", "--model", "model", "--task", "depth", "--out", "out"],
    "evaluate": [
        "evaluate", "--data", "data", "--protocol", "depth/marigold-ls", "--model", "model", "--allow-synthetic",
        "--out", "out", "--no-images",
    ],
    "create": ["create", "data", "--out", "out", "--model", "model", "--steps", "1", "--scoring", "cheap"],
    "generate": ["generate", "a ball", "--model", "model", "--out", "out", "--size", "32x32", "--steps", "1"],
    "convert-checkpoint": ["convert-checkpoint", "model", "out"],
    "train": ["train", "recipe.json", "--out", "out", "--device", "cpu", "--tracker", "none"],
    "improve": ["improve", "recipe.json", "--out", "out", "--device", "cpu", "--steps", "1"],
}  # fmt: skip


def recipe(**changes: Any) -> Recipe:
    plain = Recipe(
        name="r",
        model=DenoiserConfig(init_from="model"),
        data=DataConfig(sources=(Source(path="data"),), task_weights={"depth": 1.0}, size=(32, 32)),
        optimizer=OptimizerConfig(warmup_steps=0),
        loop=LoopConfig(steps=1, batch_size=1, save_every=0),
    )
    return plain.replace(**changes)


@pytest.mark.parametrize("place", PLACES)
def test_no_command_imports_what_a_checkpoint_names(root, place, capsys):
    """Each command, on a checkpoint whose JSON names a module: it works without that, or ends with one line."""
    recipe().save(root / "recipe.json")
    file, change = PLACES[place]
    for part in CONFIGS if file == "*" else (file,):
        edit(root / "model" / part, change)
    for name, arguments in COMMANDS.items():
        code = run(arguments)
        output = capsys.readouterr().err
        assert not (root / "mark").exists(), f"{name} ran the code"
        assert "sneaky" not in sys.modules
        assert code in (0, 1, 2)
        assert "mistake in twofold" not in output, f"{name}: {output}"
        shutil.rmtree(root / "out", ignore_errors=True)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"data": {"task_weights": {TASK: 1.0}}}, "data.task_weights"),
        (
            {"model": {"head": {"name": NETWORK}, "latent_loss_weight": 0.0, "pixel_loss_weight": 1.0}},
            "model.head.name",
        ),
        ({"model": {"kind": "network", "factory": NETWORK}}, "model.factory"),
        ({"model": {"init_from": NETWORK}}, "model.init_from"),
    ],
)
@pytest.mark.parametrize("command", ["train", "train --smoke-test", "improve"])
def test_a_recipe_in_json_runs_no_code(root, changes, key, command, capsys):
    recipe(**changes).save(root / "recipe.json")
    command, *more = command.split()
    assert run([*COMMANDS[command], *more]) == 2
    output = capsys.readouterr().err
    assert "a JSON file runs none" in output
    assert f"--set '{key}=" in output
    assert not (root / "mark").exists()
    with pytest.raises(ValueError, match="names code"):
        Recipe.read(root / "recipe.json")
    assert Recipe.read(root / "recipe.json", allow_code=True) == recipe(**changes)


@pytest.mark.parametrize("file", CONFIGS)
def test_a_class_that_a_config_names_is_not_imported(root, file):
    edit(root / "model" / file, _class)
    try:
        open_model("model").predictor("depth")
    except ModelError as error:
        assert file in str(error)
    assert "sneaky" not in sys.modules


def test_code_of_a_json_recipe_runs_where_the_user_names_it(root, capsys):
    recipe(data={"task_weights": {TASK: 1.0}}).save(root / "recipe.json")
    assert run([*COMMANDS["train"], "--set", f'data.task_weights={{"{TASK}": 1.0}}']) == 0
    assert (root / "mark").exists()
    output = json.loads((root / "out" / "checkpoint" / "twofold.json").read_text())
    assert output["tasks"]["depth"]["task"] == TASK


def test_a_recipe_in_python_names_code(root):
    recipe(data={"task_weights": {TASK: 1.0}}).save(root / "plain.json")
    (root / "mine.py").write_text(
        "from pathlib import Path\nfrom twofold.train.recipe import Recipe\n"
        "def mine():\n    return Recipe.read(Path('plain.json'), allow_code=True)\n"
    )
    assert run(["train", "mine.py", *COMMANDS["train"][2:]]) == 0
    assert (root / "mark").exists()


@pytest.mark.parametrize("command", ["train", "improve"])
def test_files_of_a_run_folder_are_only_compared(root, command, capsys):
    """A run folder from elsewhere, whose recipe or plan names code."""
    recipe().save(root / "recipe.json")
    (root / "out").mkdir()
    planted = json.loads(recipe(data={"task_weights": {TASK: 1.0}}).model_dump_json())
    (root / "out" / "recipe.json").write_text(json.dumps(planted))
    plan = {"recipe": planted, "filters": ["drift.other<20"]}
    (root / "out" / "improvement.json").write_text(json.dumps(plan))
    assert run(COMMANDS[command]) == 2
    assert "holds another" in capsys.readouterr().err
    assert not (root / "mark").exists()


def test_code_of_user_defined_tasks_is_named_by_the_user_only(root, capsys):
    edit(root / "model" / "twofold.json", _task)
    with pytest.raises(ModelError, match="a checkpoint runs no code"):
        open_model("model").predictor("depth")
    assert run([*COMMANDS["predict"], "--task", TASK]) == 0
    assert (root / "mark").exists()
    assert open_model("model").predictor().task is depth  # its module is imported by now


HEAD = """
from torch import nn
from twofold.heads import Head
class Mine(Head):
    def __init__(self, channels: int, out_channels: int = 3) -> None:
        super().__init__()
        self.config = {"channels": channels, "out_channels": out_channels}
        self.layer = nn.Conv2d(channels, out_channels * 64, 1)
    @classmethod
    def from_backbone(cls, backbone, channels, **options):
        return cls(**{"channels": backbone.feature_channels[-1], "out_channels": 3, **options})
    def forward(self, x0, features, backbone):
        return nn.functional.pixel_shuffle(self.layer(features[-1]), backbone.stride)
"""


def test_a_head_of_the_user_s_own_is_trained_saved_and_read_after_its_import(root):
    (root / "mine.py").write_text(HEAD)
    recipe(model={"head": {"name": "mine:Mine"}, "latent_loss_weight": 0.0, "pixel_loss_weight": 1.0}).save(
        root / "recipe.json"
    )
    try:
        assert run(COMMANDS["train"]) == 2
        assert "mine" not in sys.modules
        assert run([*COMMANDS["train"], "--set", "model.head.name=mine:Mine"]) == 0
        saved = root / "out" / "checkpoint"
        made = sys.modules.pop("mine")
        with pytest.raises(ModelError, match=r"runs no code.*import mine first"):
            open_model(saved)
        sys.modules["mine"] = made
        head = open_model(saved).heads["depth"]
        assert type(head) is made.Mine
        assert head.config == {"channels": open_model(saved).backbone.feature_channels[-1], "out_channels": 3}
    finally:
        sys.modules.pop("mine", None)


def test_a_backbone_of_the_user_s_own_is_a_model_by_its_name(root):
    (root / "ours.py").write_text(
        "from twofold.backbones import new\n"
        "def backbone():\n    return new.tiny(seed=3)\n"
        "def nothing():\n    return None\n"
    )
    try:
        opened = open_model("ours:backbone")
        assert opened.tasks == () and opened.backbone.latent_channels == 4
        assert run(["generate", "a ball", "--model", "ours:backbone", *COMMANDS["generate"][4:]]) == 0
        for name, message in (("ours:nothing", "expected a twofold"), ("nowhere:x", "no module 'nowhere'")):
            with pytest.raises(ModelError, match=message):
                open_model(name)
        shutil.rmtree(root / "out")  # a run does not mix with other files
        recipe(model={"init_from": "ours:backbone"}).save(root / "recipe.json")
        assert run(COMMANDS["train"]) == 2
        assert run([*COMMANDS["train"], "--set", "model.init_from=ours:backbone"]) == 0
    finally:
        sys.modules.pop("ours", None)


def test_a_missing_name_of_a_module_is_reported(monkeypatch):
    """A lazy module imports another when an attribute is read that it does not have yet."""
    import types

    options: list[str] = []
    lazy = types.ModuleType("lazy")
    vars(lazy)["__getattr__"] = options.append
    monkeypatch.setitem(sys.modules, "lazy", lazy)
    with pytest.raises(ValueError, match="is missing"):
        get_task("lazy:task", trusted=False)
    assert not options
    assert "twofold.__main__" not in sys.modules
    with pytest.raises(ValueError, match="a checkpoint runs no code"):
        get_task("twofold.__main__:task", trusted=False)
    assert get_task("twofold.data.labels:hypersim", trusted=False).channels == 1


def test_a_network_s_folder_names_code_that_is_not_run(root, capsys):
    from torch import nn

    class Nothing(nn.Module):
        def forward(self, x):
            return {"depth": x}

    save_network(Nothing(), NetworkSettings(network=NETWORK, tasks=(TASK,)), root / "net")
    for command in ("predict", "evaluate", "create", "generate", "convert-checkpoint"):
        assert run(["net" if a == "model" else a for a in COMMANDS[command]]) == 2
    with pytest.raises(ModelError, match="is not run"):
        open_network("net")
    opened = open_network("net", Nothing)
    for ask in (lambda: opened.tasks, opened.predictor, lambda: opened.predictor("depth")):
        with pytest.raises(ModelError, match="a checkpoint runs no code"):
            ask()
    assert not (root / "mark").exists()


def test_settings_that_a_program_makes_are_data_too(root):
    """A key that names code cannot come from a file; one that a program put there is still data."""
    model = open_model("model")
    how = model.settings.tasks["depth"].model_copy(update={"task": TASK})
    settings = model.settings.model_copy(update={"tasks": {TASK: how}})
    from dataclasses import replace

    opened = replace(model, settings=settings)
    for task in (None, *opened.tasks):
        with pytest.raises(ModelError, match="a checkpoint runs no code"):
            opened.predictor(task)
    assert not (root / "mark").exists()


def test_evaluate_imports_no_protocol_that_data_names(root, capsys):
    """The header of a data folder may name a protocol; one of the user's own has to be passed as an option."""
    edit(root / "data" / "dataset.json", lambda header: header.update(eval={"protocol": "sneaky:PROTOCOL"}))
    command = ["evaluate", "--data", "data", "--model", "model", "--allow-synthetic", "--out", "out"]
    assert run(command) == 2
    assert "runs no code" in capsys.readouterr().err
    assert not (root / "mark").exists() and "sneaky" not in sys.modules
    assert run([*command, "--protocol", "sneaky:PROTOCOL"]) == 2
    assert "sneaky:PROTOCOL is missing" in capsys.readouterr().err
    assert (root / "mark").exists()
