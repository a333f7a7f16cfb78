"""E2E-FT and DMP: the whole prediction, against their pipelines written out with diffusers' own DDIM scheduler.

Both programs are these few lines: https://github.com/VisualComputingInstitute/diffusion-e2e-ft and
https://github.com/shinying/dmp. Networks are small and random.
"""

import pytest
import torch
from diffusers import DDIMScheduler

from test_protocol import SD, photo, tiny_one_step
from twofold.checkpoints import PUBLISHED
from twofold.heads import LatentHead
from twofold.predict.diffusion import DiffusionPredictor
from twofold.tasks import TASKS

SEED = 5


def predictor_of(key):
    """The predictor of a row of the table on a small network, and that network."""
    (name, how), *_ = PUBLISHED[key].tasks.items()
    net = tiny_one_step(how.protocol)
    return DiffusionPredictor(
        net, TASKS[name], how.protocol, LatentHead(), how.model_copy(update={"pad": False})
    ), net


def denoise(net, scheduler, state, condition):
    """The last result of the scheduler's steps, from ``state``; ``condition`` is concatenated in front of it."""
    for t in scheduler.timesteps:
        shown = state if condition is None else torch.cat([condition, state], 1)
        output = net.unet(shown, t, encoder_hidden_states=net.prompt_embeds[""][None]).sample
        result = scheduler.step(output, t, state)
        state = result.prev_sample
    return result


def decode(net, latent):
    return net.vae.decode(latent / net.vae.config.scaling_factor).sample[0]


@torch.no_grad()
def e2e_ft(net, image):
    """One trailing step from zeros; the clean latent that the scheduler reads, decoded: ``3 h w``."""
    scheduler = DDIMScheduler(**SD, timestep_spacing="trailing")
    scheduler.set_timesteps(1)
    latent = net.vae.encode(image[None] * 2 - 1).latent_dist.mode() * net.vae.config.scaling_factor
    return decode(net, denoise(net, scheduler, torch.zeros_like(latent), latent).pred_original_sample)


@torch.no_grad()
def dmp(net, image):
    """Five leading steps from a sample of the image latent, decoded: ``3 h w``."""
    scheduler = DDIMScheduler(**SD)
    scheduler.set_timesteps(5)
    posterior = net.vae.encode(image[None] * 2 - 1).latent_dist
    noise = torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(SEED))
    latent = (posterior.mean + posterior.std * noise) * net.vae.config.scaling_factor
    return decode(net, denoise(net, scheduler, latent, None).prev_sample)


@pytest.mark.parametrize("key", ["e2e-ft-marigold-depth", "e2e-ft-sd-depth"])
def test_e2e_ft_depth_is_that_of_its_pipeline(key):
    predictor, net = predictor_of(key)
    grey = (e2e_ft(net, photo()).mean(0, keepdim=True).clamp(-1, 1) + 1) / 2
    expected = (grey - grey.min()) / (grey.max() - grey.min())
    torch.testing.assert_close(predictor(photo()).map, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("key", ["e2e-ft-marigold-normals", "e2e-ft-sd-normals"])
def test_e2e_ft_normals_are_those_of_its_pipeline(key):
    """It divides by the length plus 1e-5, twice; x points to the left there."""
    predictor, net = predictor_of(key)
    vectors = e2e_ft(net, photo())
    for _ in range(2):
        vectors = vectors / (vectors.norm(dim=0, keepdim=True) + 1e-5)
    expected = vectors * torch.tensor([-1.0, 1, 1])[:, None, None]
    torch.testing.assert_close(predictor(photo()).map, expected, rtol=0, atol=1e-3)


def test_dmp_depth_is_that_of_its_pipeline():
    predictor, net = predictor_of("dmp-depth")
    expected = (dmp(net, photo()).mean(0, keepdim=True) / 2 + 0.5).clamp(min=0)
    torch.testing.assert_close(predictor(photo(), seed=SEED).map, expected, rtol=0, atol=1e-5)


def test_dmp_normals_are_those_of_its_pipeline():
    """Without its rounding to 8 bits."""
    predictor, net = predictor_of("dmp-normals")
    expected = torch.nn.functional.normalize(dmp(net, photo()).clamp(-1, 1), dim=0)
    torch.testing.assert_close(predictor(photo(), seed=SEED).map, expected, rtol=0, atol=1e-4)
