"""Class logits from features and attention maps of class names; networks of the user's own in place of the head."""

import pytest
import torch
from torch import nn

import world
from twofold.backbones import new
from twofold.checkpoints import ModelSettings, open_model, save_model
from twofold.evaluate import score
from twofold.heads import FPNHead, Head, make_head
from twofold.predict.diffusion import DiffusionPredictor
from twofold.predict.module import ModulePredictor
from twofold.protocols import OneStep
from twofold.tasks import TASKS, get_task
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
from twofold.train.loop import train

CLASSES = ["wall", "ball"]


@pytest.fixture(scope="module")
def net():
    return new.tiny()


def made(net, **options):
    torch.manual_seed(0)
    return make_head("fpn", net, 3, **options).eval()


def shown(net, head, h=5, w=7):
    z = torch.randn(2, 4, h, w, generator=torch.Generator().manual_seed(0))
    text = head.prompt_embeds()
    text = net.embed([""]) if text is None else text
    with torch.no_grad():
        return net(z, torch.tensor([1, 1]), text.expand(2, -1, -1), features=head.reads_features).features


@torch.no_grad()
def test_with_class_names_it_reads_attention_maps(net):
    head = made(net, prompts=["a red chair", "a depth map", "surface normals", "a wall"])
    assert head.reads_features == "attention"
    assert head.config["attention_levels"] == list(net.cross_attention_levels) == [1, 2]
    features = shown(net, head)
    assert [probs.shape[1] for probs in features[-2:]] == [4, 4]  # one per prompt, not one per token
    widths = [layer.in_channels for layer in head.laterals]
    plain = [level[-1] for level in reversed(net.levels)]
    assert widths == [plain[0], plain[1] + 4, plain[2] + 4, plain[3]]
    before = head(torch.zeros(0), features, net)
    assert before.shape == (2, 3, 40, 56)
    changed = (*features[:-1], features[-1].flip(-1))
    assert not torch.allclose(head(torch.zeros(0), changed, net), before)
    with pytest.raises(ValueError, match="reads 2 attention maps and got 0"):
        head(torch.zeros(0), features[:-2], net)


def test_stable_diffusion_s_head_has_the_published_widths():
    with torch.device("meta"):
        head = FPNHead(150, prompts=["x"] * 150)
    assert [layer.in_channels for layer in head.laterals] == [320, 790, 1430, 1280]
    # As in VPD's configuration: 256 channels in the pyramid and after it.
    assert {layer.out_channels for layer in head.laterals} == {256}
    convs = [conv for scale in head.scales for conv in scale.get_submodule("convs").children()]
    assert {(conv.in_channels, conv.out_channels) for conv in convs if isinstance(conv, nn.Conv2d)} == {
        (256, 256)
    }
    assert head.classify.in_channels == 256
    assert [len(list(scale.get_submodule("convs").children())) for scale in head.scales] == [1, 1, 2, 3]


@torch.no_grad()
def test_initial_prompt_embeds_are_those_of_the_text_encoder(net):
    head = made(net, prompts=["a red chair", "a depth map"])
    expected = torch.stack([net.embed([p])[0, -1] for p in head.config["prompts"]])
    torch.testing.assert_close(head.prompt_embeds()[0], expected, rtol=0, atol=1e-3)
    assert made(net).prompt_embeds() is None


def test_the_text_adapter_gets_gradients_through_the_network(net):
    head = made(net, prompts=["a red chair", "a depth map"]).train()
    z = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    features = net(z, torch.tensor([1]), head.prompt_embeds(), features="attention").features
    head(z, features, net).square().sum().backward()
    assert head.text_adapter.gain.grad.abs().max() > 0
    assert all(p.grad is not None for p in head.parameters())


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return world.rich_folder(tmp_path_factory.mktemp("rich") / "data", 4, 32)


def test_a_run_of_the_trainer_and_its_checkpoint(data, tmp_path):
    """A ball (class 1) on a wall (class 4), given by name."""
    net = new.tiny()
    recipe = Recipe(
        name="seg",
        model=DenoiserConfig(
            head=HeadConfig(name="fpn", options={"prompts": ["a wall", "a red chair"], "dropout": 0.0}),
            unet="frozen",
            text_encoder="frozen",
            latent_loss_weight=0.0,
            pixel_loss_weight=1.0,
        ),
        data=DataConfig(
            sources=(Source(path=str(data)),), task_weights={"semantic_logits": 1.0}, size=(32, 32)
        ),
        optimizer=OptimizerConfig(lr=1e-2, warmup_steps=2),
        ema=EmaConfig(decay=0.0),
        loop=LoopConfig(steps=16, batch_size=4, save_every=0),
        validation=ValidationConfig(every=0),
    )
    heads: dict[str, Head] = {}
    losses = [r["loss"] for r in train(net, recipe, tmp_path / "run", heads)]
    assert losses[-1] < 0.5 * losses[0]
    settings = ModelSettings(size=32).with_tasks(["semantic_logits"], OneStep(), "seg", "fpn")
    save_model(net, settings, tmp_path / "model", torch.float32, heads)
    task = get_task("semantic_logits")
    ours = DiffusionPredictor(net, task, OneStep(), heads["semantic_logits"].eval(), size=32)
    read = open_model(str(tmp_path / "model")).predictor()
    photo = world.sphere(0, 32).image
    assert torch.equal(read(photo).map, ours(photo).map)


class Plain(nn.Module):
    """A user's network: images to normals, without a diffusion model."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(3, 16, 5, padding=2), nn.ReLU(), nn.Conv2d(16, 3, 5, padding=2))

    def forward(self, images):
        return {"normals": self.layers(images)}


def test_a_user_s_network_is_scored_before_and_after_training(data):
    network, task = Plain(), TASKS["normals"]
    predictor = ModulePredictor(network, task)
    balls = [world.sphere(seed, 32) for seed in range(3)]
    with torch.no_grad():
        before = score([predictor], balls)["normals/mean"]
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for step in range(60):
        ball = balls[step % 3]
        output = network.layers(ball.image[None])
        known = ball.valid["normals"][None]
        optimizer.zero_grad()
        task.loss(output, ball.targets["normals"][None], known).backward()
        optimizer.step()
    with torch.no_grad():
        after = score([predictor], balls)["normals/mean"]
    assert after < 0.5 * before
