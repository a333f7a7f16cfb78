"""Several tasks on one trunk: one in a run, in its state, in its files, in what is opened and begun with again."""

import json
import runpy
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import world
from twofold.backbones import new
from twofold.checkpoints import ModelError, ModelSettings, digest, model_weight_files, open_model, save_model
from twofold.heads import MultiTaskHead, find_shared, make_head, share_modules
from twofold.predict.diffusion import DiffusionPredictor
from twofold.protocols import OneStep
from twofold.tasks import get_task
from twofold.train import (
    DataConfig,
    DenoiserConfig,
    EmaConfig,
    HeadConfig,
    LoopConfig,
    OptimizerConfig,
    Recipe,
    Source,
    ValidationConfig,
)
from twofold.train.denoiser import DenoiserStage
from twofold.train.distributed import DistributedContext
from twofold.train.optimizer import make_optimizer, parameters
from twofold.train.run import run_recipe
from twofold.train.state import Ema, tensors_to_save, trainable_parameters
from twofold.train.trainable import make_heads

TASKS = ("depth", "normals", "semantic_logits")
NYUD = "twofold.data.labels:nyud_mt_logits"
RECIPES = Path(__file__).parents[1] / "recipes" / "multitask.py"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A tiny model, four labelled images, and the same images without labels."""
    root = tmp_path_factory.mktemp("multitask")
    save_model(new.tiny(), ModelSettings(name="tiny", size=32), root / "model", torch.float32)
    world.rich_folder(root / "balls", 4, 32)
    bare = world.folder(root / "bare", 4, 32)
    rows = [json.loads(line) for line in (bare / "metadata.jsonl").read_text().splitlines()]
    record = [json.dumps({**row, "targets": {}}) + "\n" for row in rows]
    (bare / "metadata.jsonl").write_text("".join(record))
    return root


def recipe(root, tasks=TASKS, **changes):
    made = Recipe(
        name="several",
        model=DenoiserConfig(
            init_from=str(root / "model"),
            unet="frozen",
            text_encoder="frozen",
            head=HeadConfig(name="multitask"),
            latent_loss_weight=0.0,
            pixel_loss_weight=1.0,
        ),
        data=DataConfig(
            task_weights=dict.fromkeys(tasks, 1.0),
            size=(32, 32),
            sources=(Source(path=str(root / "balls")), Source(path=str(root / "bare"), labels="teacher")),
        ),
        optimizer=OptimizerConfig(warmup_steps=0),
        ema=EmaConfig(decay=0.9, update_every=6),
        loop=LoopConfig(steps=2, batch_size=2 * len(tasks), save_every=0),
        validation=ValidationConfig(every=0),
    )
    return made.replace(**changes)


def heads_of(net, tasks=TASKS, found=None, **options):
    made = {t: get_task(t) for t in tasks}
    plan = Recipe(
        name="x",
        model=DenoiserConfig(
            head=HeadConfig(name="multitask", options=options), latent_loss_weight=0.0, pixel_loss_weight=1.0
        ),
        data=DataConfig(sources=(Source(path="x"),), task_weights=dict.fromkeys(tasks, 1.0)),
    )
    return make_heads(net, plan, found or {}, made)


def trunks(heads):
    return {id(h.fusion) for h in heads.values()}


@pytest.fixture(scope="module")
def net():
    return new.tiny()


@pytest.fixture(scope="module")
def saved(net, tmp_path_factory):
    """Heads of three tasks, their running statistics and all, and the checkpoint they were saved to."""
    heads = heads_of(net)
    for head in heads.values():
        head.train()(torch.zeros(0), features(net), net)
        torch.nn.init.normal_(head.decoder.output.weight)
        head.eval()
    folder = tmp_path_factory.mktemp("saved") / "model"
    settings = ModelSettings(name="several", size=32).with_tasks(TASKS, OneStep(), "several", "multitask")
    save_model(net, settings, folder, torch.float32, heads)
    return heads, folder


@torch.no_grad()
def features(net, count=2, side=4):
    z = torch.randn(count, 4, side, side, generator=torch.Generator().manual_seed(0))
    return net(z, torch.ones(count), net.embed([""]).expand(count, -1, -1), features="all").features


def answers(net, heads, tasks=TASKS):
    photo = world.sphere(9, 32).image
    return {t: DiffusionPredictor(net, get_task(t), OneStep(), heads[t], size=32)(photo).map for t in tasks}


# The head


@torch.no_grad()
def test_a_prediction_does_not_depend_on_the_batch(net):
    """In prediction, no operation mixes the images of a batch."""
    head = make_head("multitask", net, 5).eval()
    maps = features(net, 3, 5)
    together = head(torch.zeros(0), maps, net)
    assert together.shape == (3, 5, 40, 40)
    alone = head(torch.zeros(0), tuple(m[1:2] for m in maps), net)
    torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-6)


def test_of_stable_diffusion_the_trunk_is_nearly_all():
    """The fusion network has the published 21.92 million weights, a decoder a tenth of them."""
    with torch.device("meta"):
        head = MultiTaskHead(40)
    trunk, own = (sum(p.numel() for p in m.parameters()) for m in (head.fusion, head.decoder))
    assert 21.9e6 < trunk < 21.95e6
    assert own < 0.1 * trunk


def test_invalid_head_arguments_are_reported(net):
    with pytest.raises(ValueError, match="width 20; expected a multiple of 8"):
        make_head("multitask", net, 3, width=20)
    with pytest.raises(ValueError, match="0 output channels; expected at least 1"):
        make_head("multitask", net, 0)


# In a run


def test_heads_of_a_run_have_one_trunk_and_decoders_of_their_own(net):
    heads = heads_of(net)
    assert len(trunks(heads)) == 1
    assert len({id(h.decoder) for h in heads.values()}) == 3
    ((part, module, tasks),) = find_shared(heads)
    assert (part, module, tasks) == ("fusion", heads["depth"].fusion, TASKS)
    assert not list(find_shared({"depth": heads["depth"]}))


def test_the_trunk_is_once_in_optimizer_average_and_state(root, tmp_path):
    stage = DenoiserStage(new.tiny(), recipe(root), tmp_path / "run", {}, DistributedContext("cpu"))
    ema = Ema(stage.module, 0.9, 6)
    trunk = {id(p) for p in stage.heads["depth"].get_submodule("fusion").parameters()}
    assert trunk
    names = [k for k, p in trainable_parameters(stage.module) if id(p) in trunk]
    assert len(names) == len(trunk)
    assert set(names) == {k for k in ema.average if ".fusion." in k}
    changed = [id(p) for p in parameters(make_optimizer(recipe(root), stage.module))]
    assert len(set(changed)) == len(changed)
    assert trunk < set(changed)
    whole = tensors_to_save(stage.module)
    assert len({v.data_ptr() for v in whole.values() if v.numel()}) == len(whole)
    first = {k.split(".fusion.")[0] for k in whole if ".fusion." in k}
    assert first == {"heads.depth"}
    assert {k.rpartition(".")[2] for k in whole if ".fusion." in k} >= {"u", "running_mean", "running_var"}


def test_every_task_has_gradients_for_the_trunk(net):
    heads = {t: h.train() for t, h in heads_of(net).items()}
    trunk = heads["depth"].get_submodule("fusion")
    weight, mean = (
        dict(trunk.named_parameters())["join.3.weight"],
        dict(trunk.named_buffers())["norms.0.running_mean"],
    )
    found = []
    for head in heads.values():
        before = mean.clone()
        result = head(torch.zeros(0), features(net), net).square().mean()
        found.append(torch.autograd.grad(result, weight)[0])
        # Its running statistics are moved by each.
        assert not torch.equal(before, mean)
    assert all(g.abs().max() > 0 for g in found)
    assert not torch.equal(found[0], found[1])


def test_pseudo_labels_are_the_predictions_of_the_teacher_s_weights(net):
    """Also of a task by whose name the trunk does not go in the average."""
    heads = heads_of(net)
    module = torch.nn.ModuleDict(heads)
    ema = Ema(module, 0.5)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(1)), alpha=0.1)
    shown = torch.zeros(0), features(net), net
    for task, head in heads.items():
        result = ema.ema_forward(head, shown)
        with ema.ema_scope():
            torch.testing.assert_close(result, head(*shown))
        assert not torch.equal(result, head.eval()(*shown)), task


@pytest.mark.parametrize("unet", ["frozen", "full", "lora"])
def test_a_run_with_a_teacher_ends_in_one_checkpoint(root, tmp_path, unet):
    """For all trainable parts of the network."""
    made = recipe(root, model={"unet": unet, "lora": {"rank": 2}})
    records = list(run_recipe(made, tmp_path / "run"))
    assert all(0 < r["loss"] < 100 for r in records)
    assert set(TASKS) <= set(records[-1])
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    assert {k.split(".")[1] for k in state["weights"] if ".fusion." in k} == {"depth"}
    model = open_model(str(tmp_path / "run" / "checkpoint"))
    assert model.tasks == TASKS
    assert len(trunks(model.heads)) == 1
    # It is the teacher that is saved.
    average = state["ema"]["heads.depth.fusion.grow.0.weight"]
    record = model.heads["normals"].state_dict()["fusion.grow.0.weight"]
    torch.testing.assert_close(record, average, rtol=1e-3, atol=1e-4)


def test_a_run_that_is_interrupted_ends_in_the_same_weights(root, tmp_path):
    made = recipe(root, loop={"save_every": 1})
    list(run_recipe(made, tmp_path / "whole"))
    parts = run_recipe(made, tmp_path / "parts")
    for _ in range(2):
        next(parts)
    parts.close()
    assert torch.load(tmp_path / "parts" / "state.pt", weights_only=True)["step"] == 2
    list(run_recipe(made, tmp_path / "parts"))
    a, b = (torch.load(tmp_path / n / "state.pt", weights_only=True) for n in ("whole", "parts"))
    for part in ("weights", "ema"):
        assert set(a[part]) == set(b[part])
        assert all(torch.equal(a[part][k], b[part][k]) for k in a[part])


# In files


def test_the_trunk_is_once_in_the_files(saved):
    heads, folder = saved
    name = "depth+normals+semantic_logits"
    files = {p.relative_to(folder / "heads").as_posix() for p in (folder / "heads").rglob("*") if p.is_file()}
    assert files == {f"{name}/model.safetensors"} | {
        f"{t}/{f}" for t in TASKS for f in ("config.json", "shared.json", "model.safetensors")
    }
    assert set(load_file(folder / "heads" / name / "model.safetensors")) == {
        f"fusion.{k}" for k in heads["depth"].fusion.state_dict()
    }
    for task in TASKS:
        own = load_file(folder / "heads" / task / "model.safetensors")
        assert {k.split(".")[0] for k in own} == {"decoder"}
    assert folder / "heads" / name / "model.safetensors" in model_weight_files(folder)
    assert len(digest(model_weight_files(folder))) == 64


def test_an_opened_checkpoint_shares_its_trunk_and_predicts_the_same(net, saved):
    heads, folder = saved
    model = open_model(str(folder))
    assert len(trunks(model.heads)) == 1
    for task, head in heads.items():
        for k, v in head.state_dict().items():
            assert torch.equal(v, model.heads[task].state_dict()[k]), k
    for task, record in answers(net, heads).items():
        torch.testing.assert_close(answers(model.backbone, model.heads, (task,))[task], record)
    shapes = open_model(str(folder), device="meta")
    assert len(trunks(shapes.heads)) == 1


def test_one_task_of_several_can_be_saved_alone(net, saved, tmp_path):
    """Its files are those of any head."""
    heads, folder = saved
    model = open_model(str(folder))
    one = model.settings.model_copy(update={"tasks": {"normals": model.settings.tasks["normals"]}})
    save_model(model.backbone, one, tmp_path / "one", torch.float32, {"normals": model.heads["normals"]})
    there = tmp_path / "one" / "heads"
    assert {p.name for p in there.iterdir()} == {"normals"}
    assert {p.name for p in (there / "normals").iterdir()} == {"config.json", "model.safetensors"}
    alone = open_model(str(tmp_path / "one")).predictor()
    record = answers(net, heads, ("normals",))["normals"]
    torch.testing.assert_close(alone(world.sphere(9, 32).image).map, record)


@pytest.mark.parametrize(
    "result, error",
    [
        ({"fusion": "../../unet"}, "the folder of fusion"),
        ({"decoder": "normals"}, "this head shares fusion"),
        ({"fusion": "gone"}, "gone has no .safetensors weights"),
        ({}, "lacks the tensor fusion"),
    ],
)
def test_files_that_do_not_belong_together_are_refused(saved, tmp_path, result, error):
    import shutil

    shutil.copytree(saved[1], tmp_path / "model")
    (tmp_path / "model" / "heads" / "normals" / "shared.json").write_text(json.dumps(result))
    with pytest.raises(ModelError, match=error):
        open_model(str(tmp_path / "model"))


# Begun with again


def test_a_run_goes_on_with_the_trunk_it_begins_with(net, saved):
    heads, folder = saved
    found = dict(open_model(str(folder)).heads)
    more = heads_of(net, (*TASKS, "mask"), found)
    assert len(trunks(more)) == 1
    assert more["mask"].fusion is found["depth"].fusion
    assert all(more[t] is found[t] for t in TASKS)
    for k, v in heads["depth"].fusion.state_dict().items():
        assert torch.equal(v, more["mask"].fusion.state_dict()[k]), k


def test_training_one_task_does_not_change_the_trunk_of_the_others(root, net, saved, tmp_path):
    heads, folder = saved
    labelled = (Source(path=str(root / "balls")),)
    made = recipe(
        root,
        ("depth",),
        model={"init_from": str(folder)},
        data={"sources": labelled},
        ema={"decay": 0.0, "update_every": 0},
    )
    list(run_recipe(made, tmp_path / "run"))
    model = open_model(str(tmp_path / "run" / "checkpoint"), dtype=torch.float32)
    assert set(model.tasks) == set(TASKS)
    assert model.heads["normals"].fusion is model.heads["semantic_logits"].fusion
    assert model.heads["depth"].fusion is not model.heads["normals"].fusion
    old, new_ = heads["depth"].state_dict(), model.heads["depth"].state_dict()
    assert not torch.allclose(old["fusion.grow.0.weight"], new_["fusion.grow.0.weight"], atol=1e-4)
    for k, v in heads["normals"].state_dict().items():  # in half floats, as runs save
        assert torch.equal(v.half(), model.heads["normals"].state_dict()[k].half()), k


def test_trunks_that_were_trained_separately_are_not_merged(net):
    apart = {t: make_head("multitask", net, 3) for t in ("depth", "normals")}
    with pytest.raises(ValueError, match=r"depth and normals have to share their fusion.*reset"):
        share_modules(apart, apart, [])
    made = heads_of(net, ("depth", "normals"))
    share_modules(made, made, [])
    assert len(trunks(made)) == 1
    other = deepcopy(made)
    other["mask"] = make_head("multitask", net, 3, widths=[128, 16, 16, 16, 16])
    with pytest.raises(ValueError, match="of mask has another shape"):
        share_modules(other, {t: other[t] for t in ("depth", "normals")}, [])


def test_a_checkpoint_stores_a_task_under_its_own_name(net):
    """A recipe may call it ``package.module:object``; its head is found again all the same."""
    found = {get_task(t).name: h for t, h in heads_of(net, ("depth", NYUD)).items()}
    assert set(found) == {"depth", "semantic_logits"}
    again = heads_of(net, ("depth", NYUD), found)
    assert again[NYUD] is found["semantic_logits"]
    assert again["depth"] is found["depth"]


# The recipes


def test_what_the_recipes_ask(net):
    made = runpy.run_path(str(RECIPES))
    nyud, pascal = made["nyud_mt"](), made["pascal_context"]()
    assert {
        get_task(t).name: (get_task(t).out_channels, get_task(t).target, w) for t, w in pascal.loss.items()
    } == {
        "semantic_logits": (21, "semantic", {"cross_entropy": 1.0}),
        "parsing_logits": (7, "parts", {"cross_entropy": 2.0}),
        "saliency": (1, "mask", {"balanced_bce": 5.0}),
        "normals": (3, "normals", {"l1": 10.0}),
    }
    assert get_task(NYUD).out_channels == 40
    assert set(nyud.loss) == {NYUD, "twofold.tasks.metric_depth:depth_10m", "normals"}
    for plan, decay, share_ in (("nyud_mt", 0.998, 500 / 795), ("pascal_context", 0.999, 1)):
        second = made[f"{plan}_improved"]()
        real, created = second.data.sources
        assert (created.labels, created.share / real.share) == ("teacher", share_)
        assert second.model.init_from == f"runs/{made[plan]().name}/checkpoint"
        # Forty images between two steps; one image an update, under all its tasks.
        assert (second.ema.decay, second.ema.update_every) == (decay, 40)
        assert (second.loop.batch_size, second.data.tasks_per_image) == (1, "all")
        first = made[plan]()
        assert (first.loop.batch_size, first.data.tasks_per_image) == (2, "all")
        for t in second.tasks:
            assert set(second.loss[t]) <= set(get_task(t).loss_names)
