"""Several tasks of one image at once: how often each is trained, what is computed once, and what stays exact."""

from collections import Counter
from typing import Any

import pytest
import torch

import world
from twofold.backbones import new
from twofold.checkpoints import ModelSettings, save_model
from twofold.heads import HeadGroup, make_head
from twofold.heads.group import at
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
from twofold.train.loop import train
from twofold.train.run import run_recipe
from twofold.train.sampler import DeterministicSampler
from twofold.train.state import Ema

TASKS = ("depth", "normals", "mask")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A tiny model, and six balls with every label."""
    root = tmp_path_factory.mktemp("joint")
    save_model(new.tiny(), ModelSettings(name="tiny", size=32), root / "model", torch.float32)
    world.rich_folder(root / "balls", 6, 32)
    return root


def recipe(root, tasks=TASKS, **changes) -> Recipe:
    made = Recipe(
        name="joint",
        model=DenoiserConfig(
            init_from=str(root / "model"),
            prompts=dict.fromkeys(tasks, ""),
            head=HeadConfig(name="light"),
            latent_loss_weight=0.0,
            pixel_loss_weight=1.0,
            text_encoder="frozen",
        ),
        data=DataConfig(
            task_weights=dict.fromkeys(tasks, 1.0),
            size=(32, 32),
            sources=(Source(path=str(root / "balls")),),
            tasks_per_image="all",
        ),
        optimizer=OptimizerConfig(warmup_steps=0),
        ema=EmaConfig(decay=0.0),
        loop=LoopConfig(steps=4, batch_size=2, save_every=0),
        validation=ValidationConfig(every=0),
    )
    return made.replace(**changes)


def stage_of(plan, folder, net=None) -> DenoiserStage:
    return DenoiserStage(net or new.tiny(), plan, folder / "run", {}, DistributedContext("cpu"))


class Counted:
    """A function that counts its calls."""

    def __init__(self, function: Any) -> None:
        self.function, self.calls = function, 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        return self.function(*args, **kwargs)


# ---- which image comes when


def test_tasks_of_equal_weight_are_sampled_from_one_pool():
    """Image task and perception alternate; each image is used before any is repeated; each task has its own images."""
    plan = Recipe(
        name="x",
        model=DenoiserConfig(prompts={"depth": "", "normals": ""}),
        data=DataConfig(
            sources=(Source(path="a"), Source(path="b")),
            tasks_per_image="all",
            task_weights={"image": 1.0, "depth": 1.0, "normals": 1.0},
        ),
    )
    pools = {"image": [range(5), range(4)], "depth": [range(5), []], "normals": [range(3), range(4)]}
    order = DeterministicSampler(plan, pools)
    picks = [order(n) for n in range(180)]
    trained = Counter(one.kind for pick in picks for one in order.all_of(pick))
    assert trained["image"] == 90
    for source, size in ((0, 5), (1, 4)):
        seen = [p.sample for p in picks if p.kind != "image" and p.source == source]
        assert len(seen) == 45
        for start in range(0, len(seen) // size * size, size):
            assert sorted(seen[start : start + size]) == list(range(size))
    assert {
        one.kind for one in order.all_of(next(p for p in picks if p.kind != "image" and p.source == 1))
    } == {"normals"}
    both = next(p for p in picks if p.kind == "depth" and p.sample == 1)
    assert {one.kind for one in order.all_of(both)} == {"depth", "normals"}
    assert [order(n) for n in reversed(range(180))] == picks[::-1]


def test_frequencies_that_would_change_nothing_are_refused(root, tmp_path):
    with pytest.raises(ValueError, match=r"depth 2, normals 1.*weights of their losses"):
        stage_of(
            recipe(root, model={"prompts": {}}, data={"task_weights": {"depth": 2.0, "normals": 1.0}}),
            tmp_path,
        )


def test_a_recipe_without_tasks_has_none_to_join(root):
    with pytest.raises(ValueError, match="trains none"):
        Recipe(
            name="x",
            model=DenoiserConfig(),
            data=DataConfig(sources=(Source(path="x"),), tasks_per_image="all"),
        )


# ---- passes and losses per image


@pytest.mark.parametrize("augment", [False, True])
@pytest.mark.parametrize("head", ["light", "dpt"])
def test_an_image_goes_through_the_networks_once_for_all_its_tasks(root, augment, head, tmp_path):
    """And its loss is the sum of what its tasks are alone, averaged over images."""
    net = new.tiny()
    plan = recipe(
        root,
        model={"head": {"name": head}, "unet": "frozen"},
        data={"augment": augment, "cache_latents": False},
    )
    stage = stage_of(plan, tmp_path, net)
    encode, unet = Counted(net.encode), Counted(net.unet.forward)
    net.encode, net.unet.forward = encode, unet
    images = stage.draw(0)
    assert [set(image) for image in images] == [set(TASKS)] * 2
    assert encode.calls == 1
    for image in images:
        assert len({id(e.image.untyped_storage()) for e in image.values()}) <= 3
        assert all(torch.equal(e.image, image["depth"].image) for e in image.values())
    torch.manual_seed(0)
    loss = stage.loss(images)
    assert unet.calls == 1
    alone = [stage.loss([{kind: image[kind]}]).total.item() for image in images for kind in image]
    assert loss.total.item() == pytest.approx(sum(alone), rel=1e-4)
    assert loss.sums["loss#"] == 2
    assert {loss.sums[f"{t}#"] for t in TASKS} == {2}


def test_tasks_with_other_prompts_have_forward_passes_of_their_own(root, tmp_path):
    net = new.tiny()
    stage = stage_of(
        recipe(root, model={"prompts": {"depth": "far", "normals": "", "mask": ""}}), tmp_path, net
    )
    unet = Counted(net.unet.forward)
    net.unet.forward = unet
    stage.loss(stage.draw(0))
    assert unet.calls == 2


def test_an_image_without_some_targets_is_trained_under_the_others(root, tmp_path):
    """Beside one that has all of them, in one forward pass, with the losses it has alone."""
    net = new.tiny()
    stage = stage_of(recipe(root, model={"unet": "frozen"}), tmp_path, net)
    one, other = stage.draw(0)
    images = [{"normals": one["normals"]}, other]
    unet = Counted(net.unet.forward)
    net.unet.forward = unet
    total = stage.loss(images).total.item()
    assert unet.calls == 1
    alone = [stage.loss([{kind: image[kind]}]).total.item() for image in images for kind in image]
    assert len(alone) == 4
    assert total == pytest.approx(sum(alone), rel=1e-4)


def test_latents_are_compared_task_by_task(root, tmp_path):
    """A loss on latents, with a prompt a task, is what each task's is alone."""
    prompts = {t: t for t in ("depth", "normals")}
    changes: dict[str, Any] = {
        "model": {
            "head": {"name": "latent"},
            "latent_loss_weight": 1.0,
            "pixel_loss_weight": 0.0,
            "prompts": prompts,
        }
    }
    stage = stage_of(recipe(root, tuple(prompts), **changes), tmp_path)
    images = stage.draw(0)
    alone = [stage.loss([{kind: image[kind]}]).total.item() for image in images for kind in image]
    assert stage.loss(images).total.item() == pytest.approx(sum(alone), rel=1e-4)


def test_a_shared_trunk_runs_once_for_all_heads():
    net = new.tiny()
    heads = {t: make_head("multitask", net, c).train() for t, c in {"depth": 3, "classes": 5}.items()}
    heads["classes"].fusion = heads["depth"].fusion
    z = torch.randn(3, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        maps = net(z, torch.ones(3), net.embed([""]).expand(3, -1, -1), features="all").features
        for head in heads.values():
            head.eval()
        expected = {t: h(z, maps, net) for t, h in heads.items()}
        trunk = heads["depth"].fusion
        calls = Counted(trunk.forward)
        trunk.forward = calls
        places = {"classes": [2, 0]}
        found = HeadGroup(heads)(z, maps, net, places)
    assert calls.calls == 1
    torch.testing.assert_close(found["depth"], expected["depth"])
    torch.testing.assert_close(found["classes"], expected["classes"][[2, 0]])


def test_the_teacher_runs_a_shared_trunk_with_its_own_weights(root, tmp_path):
    """Through one run of the averaged trunk; the student's weights and statistics stay as they are."""
    source = Source(path=str(root / "balls"), labels="teacher")
    plan = recipe(
        root,
        model={"head": {"name": "multitask"}, "unet": "frozen"},
        data={"sources": (source,)},
        ema={"decay": 0.9, "update_every": 2},
    )
    stage = stage_of(plan, tmp_path)
    stage.module.train()
    stage.teacher = Ema(stage.module, 0.9, 2)
    before = {k: v.clone() for k, v in stage.heads["depth"].get_submodule("fusion").state_dict().items()}
    trunk = stage.heads["depth"].get_submodule("fusion")
    calls = Counted(trunk.forward)
    trunk.forward = calls
    one = stage.loss(stage.draw(0))
    assert calls.calls == 2  # the student's and the teacher's
    with torch.no_grad():
        for value in stage.teacher.average.values():
            value.mul_(1.5)
    assert stage.loss(stage.draw(0)).total.item() != pytest.approx(one.total.item())
    assert all(e.use_teacher_label for image in stage.draw(0) for e in image.values())
    weights = dict(trunk.named_parameters())
    assert all(torch.equal(before[k], p) for k, p in weights.items())


@pytest.mark.parametrize("unet", ["frozen", "full"])
def test_a_stored_target_is_replaced_by_the_teacher_s_for_every_task(root, unet, tmp_path):
    source = Source(path=str(root / "balls"), labels="teacher")
    stage = stage_of(
        recipe(
            root, model={"unet": unet}, data={"sources": (source,)}, ema={"decay": 0.9, "update_every": 2}
        ),
        tmp_path,
    )
    stage.teacher = Ema(stage.module, 0.9, 2)
    record: dict[str, Any] = {}
    original = stage._pixel_loss_terms

    def seen(name, decoded, examples):
        record[name] = list(examples)
        return original(name, decoded, examples)

    stage._pixel_loss_terms = seen  # type: ignore[method-assign]
    images = stage.draw(0)
    stage.loss(images)
    assert set(record) == set(TASKS)
    for name, examples in record.items():
        for image, example in zip(images, examples, strict=True):
            stored = image[name].canvas
            assert stored is not None and example.canvas.shape == stored.shape
            assert not torch.equal(example.canvas, stored)


# ---- what stays exact


def test_how_a_batch_is_split_does_not_matter(root, tmp_path):
    ends = []
    for micro in (0, 1, 3):
        plan = recipe(
            root,
            model={"unet": "frozen"},
            optimizer={"eps": 1e-3, "lr": 1e-2},
            loop={"batch_size": 6, "micro_batch_size": micro},
        )
        heads: dict[str, Any] = {}
        list(train(new.tiny(), plan, tmp_path / str(micro) / "run", heads, DistributedContext("cpu")))
        ends.append({f"{t}.{k}": v for t, h in heads.items() for k, v in h.state_dict().items()})
    for other in ends[1:]:
        for name, value in ends[0].items():
            torch.testing.assert_close(other[name], value, rtol=0, atol=1e-5)


@pytest.mark.parametrize("augment", [False, True])
def test_an_interrupted_run_ends_in_the_same_weights_and_the_teacher_counts_images(root, augment, tmp_path):
    sources = [{"path": str(root / "balls")}, {"path": str(root / "balls"), "labels": "teacher"}]
    plan = recipe(
        root,
        model={"unet": "frozen"},
        data={"sources": sources, "augment": augment},
        ema={"decay": 0.5, "update_every": 4},
        loop={"save_every": 1},
    )
    list(run_recipe(plan, tmp_path / "whole"))
    parts = run_recipe(plan, tmp_path / "parts")
    for _ in range(3):
        next(parts)
    parts.close()
    list(run_recipe(plan, tmp_path / "parts"))
    a, b = (torch.load(tmp_path / n / "state.pt", weights_only=True) for n in ("whole", "parts"))
    assert a["ema_count"] == 8  # four updates of two images, whatever the number of their tasks
    for part in ("weights", "ema"):
        assert a[part] and all(torch.equal(a[part][k], b[part][k]) for k in a[part])


def test_rows_are_picked_without_a_copy_where_all_are_wanted():
    x = torch.arange(6.0).reshape(3, 2)
    assert at(x, None) is x
    assert at(x, [0, 1, 2]) is x
    assert torch.equal(at(x, [2, 0]), x[[2, 0]])
