"""What one call computes once: the latents of an image and the embedding of a prompt."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

import world
from twofold.backbones import new
from twofold.backbones.backbone import Posterior
from twofold.evaluate import score
from twofold.generate import GenerationConfig, SyntheticDataGenerator
from twofold.heads import LatentHead, PyramidHead
from twofold.predict.base import predict_tasks
from twofold.predict.config import OutputConfig
from twofold.predict.diffusion import DiffusionPredictor
from twofold.predict.module import ModulePredictor
from twofold.protocols import MultiStep, OneStep
from twofold.tasks import TASKS

PROTOCOL = MultiStep(3, final="prev")


@pytest.fixture(scope="module")
def net():
    found = new.tiny()
    new.expand_conv_in(found, PROTOCOL.channels(found.latent_channels))
    return found.eval()


@pytest.fixture
def counts(net, monkeypatch) -> Counter[str]:
    """Images encoded, prompts embedded, and passes of the U-Net."""
    found: Counter[str] = Counter()
    encode, embed = net.vae.encode, net.embed

    def counted_encode(images, *args, **kwargs):
        found["images"] += len(images)
        return encode(images, *args, **kwargs)

    def counted_embed(prompts, pad=False):
        found.update(f"prompt {p!r}" for p in prompts)
        return embed(prompts, pad)

    monkeypatch.setattr(net.vae, "encode", counted_encode)
    monkeypatch.setattr(net, "embed", counted_embed)
    return found


def predictors(net):
    return {
        name: DiffusionPredictor(
            net, TASKS[name], PROTOCOL, LatentHead(), OutputConfig(prompt=name, guidance=2.0)
        )
        for name in ("depth", "normals")
    }


IMAGES = [torch.rand(3, 32, 40), torch.rand(3, 32, 40), torch.rand(3, 48, 32)]


def test_images_and_prompts_of_one_predictor(net, counts) -> None:
    """Three images of two sizes, four members, three steps, guidance; batches of two."""
    predictors(net)["depth"](IMAGES, ensemble=4, batch=2)
    assert counts == {"images": 3, "prompt 'depth'": 1, "prompt ''": 1}


def test_images_and_prompts_of_two_tasks(net, counts) -> None:
    found = dict(predict_tasks(predictors(net), IMAGES, ensemble=2))
    assert counts == {"images": 3, "prompt 'depth'": 1, "prompt 'normals'": 1, "prompt ''": 1}
    alone = {name: p(IMAGES, ensemble=2) for name, p in predictors(net).items()}
    for name, maps in alone.items():
        for one, other in zip(maps, found[name], strict=True):
            torch.testing.assert_close(one.map, other.map)


def test_a_posterior_is_sampled_for_each_member() -> None:
    mean, std = torch.randn(2, 4, 3, 3), torch.rand(2, 4, 3, 3)
    posterior = Posterior(mean, std, 0.5, torch.float32)
    assert torch.equal(posterior.select([1, 1]).latent(), mean[[1, 1]] * 0.5)
    seeds = [torch.Generator().manual_seed(s) for s in (7, 8, 9)]
    found = posterior.select([1, 0, 1]).latent(seeds)
    for row, (i, s) in enumerate(((1, 7), (0, 8), (1, 9))):
        noise = torch.randn(4, 3, 3, generator=torch.Generator().manual_seed(s))
        torch.testing.assert_close(found[row], (mean[i] + std[i] * noise) * 0.5)


def test_inputs_of_other_sizes_are_encoded_apart(net, counts) -> None:
    both = predictors(net)
    both["normals"].size = 24
    list(predict_tasks(both, IMAGES[:1]))
    assert counts["images"] == 2


def test_a_network_of_its_own_runs_once_for_all_its_tasks() -> None:
    class Both(torch.nn.Module):
        calls = 0

        def forward(self, images):
            self.calls += 1
            return {"depth": images.mean(1, keepdim=True), "normals": images}

    network = Both()
    found = dict(predict_tasks({n: ModulePredictor(network, TASKS[n]) for n in ("depth", "normals")}, IMAGES))
    assert network.calls == 2  # one a size
    assert [p.map.shape[-2:] for p in found["normals"]] == [x.shape[-2:] for x in IMAGES]


def test_scores_of_several_tasks_encode_a_sample_once(net, counts) -> None:
    samples = [world.sphere(i, 32) for i in range(2)]
    found = score(predictors(net).values(), samples)
    assert counts == {"images": 2, "prompt 'depth'": 2, "prompt 'normals'": 2, "prompt ''": 2}
    assert found == {k: v for p in predictors(net).values() for k, v in score([p], samples).items()}


@pytest.mark.parametrize("scoring, passes", [("cheap", 1), ("all", 4)])
def test_labels_of_several_tasks_encode_an_image_once(scoring, passes, monkeypatch) -> None:
    """Of two sources: their own latents, then the generated images, mirrored and with two noise samples."""
    net = new.tiny().eval()
    found: Counter[str] = Counter()
    encode = net.vae.encode

    def counted(images, *args, **kwargs):
        found["images"] += len(images)
        return encode(images, *args, **kwargs)

    monkeypatch.setattr(net.vae, "encode", counted)
    tasks = {n: DiffusionPredictor(net, TASKS[n], OneStep(), LatentHead()) for n in ("depth", "normals")}
    config = GenerationConfig(steps=1, size=32, scoring=scoring)
    SyntheticDataGenerator(net, tasks, config).generate([world.sphere(i, 32) for i in range(2)])
    assert found["images"] == 2 * (1 + passes)


def pyramid_tasks(net, **changes):
    """Two tasks with the same prompt and protocol and one shared pyramid; ``changes`` are options of the second."""
    torch.manual_seed(0)
    heads = {n: PyramidHead.from_backbone(net, c) for n, c in (("depth", 1), ("normals", 3))}
    heads["normals"].pyramid = heads["depth"].pyramid
    options = {"depth": {}, "normals": changes}
    return {
        n: DiffusionPredictor(
            net,
            TASKS[n],
            options[n].get("protocol", OneStep()),
            heads[n].eval(),
            OutputConfig(
                prompt=options[n].get("prompt", "a map"),
                pad=options[n].get("pad", False),
                guidance=options[n].get("guidance", 1.0),
            ),
        )
        for n in heads
    }


@pytest.mark.parametrize(
    ("changes", "passes"),
    [
        ({}, 1),
        ({"prompt": "normals"}, 2),
        ({"pad": True}, 2),
        ({"protocol": OneStep(timestep=2)}, 2),
        ({"guidance": 2.0}, 3),  # one pass, and two with guidance
    ],
    ids=["the same inputs", "prompt", "padding", "time step", "guidance"],
)
def test_tasks_with_the_same_network_inputs_share_the_output(changes, passes, monkeypatch) -> None:
    net = new.tiny().eval()
    tasks = pyramid_tasks(net, **changes)
    alone = {name: predictor(IMAGES) for name, predictor in tasks.items()}
    found: Counter[str] = Counter()
    unet, pyramid = net.unet.forward, tasks["depth"].head.pyramid.forward

    def counted(name, forward):
        def run(*args, **kwargs):
            found[name] += 1
            return forward(*args, **kwargs)

        return run

    monkeypatch.setattr(net.unet, "forward", counted("unet", unet))
    monkeypatch.setattr(tasks["depth"].head.pyramid, "forward", counted("pyramid", pyramid))
    together = dict(predict_tasks(tasks, IMAGES))
    assert found == {"unet": 2 * passes, "pyramid": 2 * min(passes, 2)}  # two sizes of images
    for name, maps in alone.items():
        for one, other in zip(maps, together[name], strict=True):
            assert torch.equal(one.map, other.map)
