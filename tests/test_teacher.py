"""An EMA teacher: sources of its pseudo-labels, and the frequency of its updates."""

import pytest
import torch
from torch import nn

import world
from twofold.backbones import new
from twofold.checkpoints import ModelSettings, save_model
from twofold.data import Folder, FolderWriter
from twofold.protocols import MultiStep, Noise
from twofold.sample import Sample
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
from twofold.train.state import Ema, State


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A tiny model, four labelled images, and the same images without labels."""
    root = tmp_path_factory.mktemp("teacher")
    save_model(new.tiny(), ModelSettings(name="tiny", size=32), root / "model", torch.float32)
    world.folder(root / "balls", 4, 32)
    writer = FolderWriter(root / "bare", {"name": "bare", "targets": {}})
    for ball in Folder(root / "balls"):
        writer.write(Sample(ball.image, id=f"bare-{ball.id}"))
    writer.finish()
    return root


def recipe(root, **changes):
    made = Recipe(
        name="improve",
        model=DenoiserConfig(
            init_from=str(root / "model"),
            unet="frozen",
            text_encoder="frozen",
            head=HeadConfig(name="light"),
            latent_loss_weight=0.0,
            pixel_loss_weight=1.0,
        ),
        data=DataConfig(
            task_weights={"depth": 1.0, "normals": 1.0},
            size=(32, 32),
            sources=(Source(path=str(root / "balls")), Source(path=str(root / "bare"), labels="teacher")),
        ),
        optimizer=OptimizerConfig(warmup_steps=0),
        ema=EmaConfig(decay=0.9, update_every=4),
        loop=LoopConfig(steps=3, batch_size=4),
        validation=ValidationConfig(every=0),
    )
    return made.replace(**changes)


@pytest.mark.parametrize("batches", [[1] * 200, [4] * 50, [8] * 25, [80, 7, 80, 33]])
def test_the_teacher_is_updated_every_forty_examples_for_any_batch_size(batches):
    """In closed form: with a constant student, n updates leave decay ** n of the distance."""
    module = nn.Linear(2, 2)
    ema = Ema(module, 0.998, 40)
    first = ema.average["weight"].clone()
    with torch.no_grad():
        module.weight += 1
    for size in batches:
        ema.update(size)
    expected = first + 1 - 0.998 ** (sum(batches) // 40)
    assert torch.allclose(ema.average["weight"], expected, atol=1e-5)


@pytest.mark.parametrize("change", ["shared", "own look", "walk", "latent"])
def test_the_student_is_trained_on_pseudo_labels(root, change, tmp_path):
    """Examples of such a source have predictions of the averaged weights, without gradient; others stored labels."""
    changes = {
        "shared": {},
        "own look": {"model": {"unet": "full"}},
        "walk": {"model": {"unet": "full", "protocol": MultiStep(1, start="zeros", noise=Noise())}},
        "latent": {
            "model": {
                "unet": "full",
                "head": {"name": "latent"},
                "latent_loss_weight": 1.0,
                "pixel_loss_weight": 0.0,
            }
        },
    }
    made = recipe(root, **changes[change])
    net = new.tiny()
    if change == "walk":
        new.expand_conv_in(net, 8)
    stage = DenoiserStage(net, made, tmp_path / "run", {}, DistributedContext("cpu"))
    stage.teacher = Ema(stage.module, 0.9, 4)
    record = {}

    def seen(name, decoded, examples):
        record[name] = list(examples)
        return original(name, decoded, examples)

    original, stage._pixel_loss_terms = stage._pixel_loss_terms, seen  # type: ignore[method-assign]
    drawn = stage.draw(0)
    examples = [e for image in drawn for e in image.values()]
    assert [e.use_teacher_label for e in examples] == [False, False, True, True]
    before = stage.loss(drawn).total.item()
    for group in record.values():
        for e in group:
            stored = next(x for x in examples if x.name == e.name and x.kind == e.kind)
            assert e.canvas is not None and not e.canvas.requires_grad
            assert stored.canvas is not None
            assert torch.equal(e.canvas, stored.canvas) != e.use_teacher_label
    with torch.no_grad():  # another teacher, another lesson, though nothing that is stored has changed
        for value in stage.teacher.average.values():
            value.mul_(1.5)
    assert stage.loss(stage.draw(0)).total.item() != pytest.approx(before)


def test_only_the_student_is_trained_and_the_teacher_is_saved(root, tmp_path):
    """With a decay of 1 the teacher does not change, and its student does."""
    made = recipe(root, ema={"decay": 0.999999})
    heads: dict = {}
    net = new.tiny()
    frozen = {k: v.clone() for k, v in net.state_dict().items()}
    list(train(net, made, tmp_path / "run", heads))
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    moved = [(state["weights"][k] - v).abs().max().item() for k, v in state["ema"].items()]
    assert max(moved) > 1e-4
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in frozen.items())
    assert all(p.requires_grad for h in heads.values() for p in h.parameters())


def test_an_improving_run_that_is_interrupted_ends_in_the_same_weights(root, tmp_path):
    made = recipe(root, loop={"steps": 5, "save_every": 2})
    list(run_recipe(made, tmp_path / "whole"))
    records = run_recipe(made, tmp_path / "parts")
    for _ in range(4):
        next(records)
    records.close()
    list(run_recipe(made, tmp_path / "parts"))
    a, b = (torch.load(tmp_path / n / "state.pt", weights_only=True) for n in ("whole", "parts"))
    for part in ("weights", "ema"):
        assert all(torch.equal(a[part][k], b[part][k]) for k in a[part])


def test_a_teacher_needs_an_average(root):
    with pytest.raises(ValueError, match="needs averaged weights"):
        recipe(root, ema={"decay": 0.0})


class _Twice(nn.Module):
    """One layer under two names, and one weight in two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = self.second = nn.Linear(2, 2)
        self.third, self.fourth = nn.Linear(2, 2), nn.Linear(2, 2)
        self.fourth.weight = self.third.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fourth(self.third(self.second(self.first(x))))


def test_the_student_keeps_its_weights_where_a_layer_has_two_names():
    """The teacher predicts with its own weights, and the student's are unchanged afterwards."""
    module = _Twice()
    ema = Ema(module, 0.9, 1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(2)
    before = {k: (id(v), v.detach().clone()) for k, v in module.named_parameters(remove_duplicate=False)}
    x = torch.rand(3, 2)
    output = ema.ema_forward(module, (x,))
    for k, v in module.named_parameters(remove_duplicate=False):
        assert id(v) == before[k][0], k
        assert torch.equal(v, before[k][1])
    with ema.ema_scope():
        torch.testing.assert_close(module(x), output)


def test_running_statistics_of_the_teacher_are_averaged(tmp_path):
    """They are used for its predictions; a plain average uses the student's."""
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    teacher, plain = Ema(module, 0.5, 4), Ema(module, 0.5)
    x = torch.rand(8, 2, generator=torch.Generator().manual_seed(0)) + 5
    optimizer = torch.optim.SGD(module.parameters(), 0.0)
    state = State(tmp_path / "state.pt", module, teacher, optimizer, torch.amp.GradScaler(enabled=False))
    module(x)  # moves the statistics, and nothing else
    mean = module[1].get_buffer("running_mean").clone()
    with torch.no_grad():
        module[0].get_parameter("weight").add_(1)
    for _ in range(3):
        teacher.update(4)
        plain.update()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    with teacher.ema_scope():
        torch.testing.assert_close(module[1].get_buffer("running_mean"), mean * (1 - 0.5**3))
        output = module(x)
    torch.testing.assert_close(teacher.ema_forward(module, (x,)), output)
    with plain.ema_scope():
        assert torch.equal(module[1].get_buffer("running_mean"), mean)
    assert all(torch.equal(v, module.state_dict()[k]) for k, v in before.items())
    assert int(module[1].get_buffer("num_batches_tracked")) == 1
    state.save(3)
    teacher.buffers["1.running_mean"].zero_()
    assert state.load() == 3
    torch.testing.assert_close(teacher.buffers["1.running_mean"], mean * (1 - 0.5**3))
