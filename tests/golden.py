"""Networks with closed-form weights, whose outputs are known from independent runs of the original modules."""

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from twofold.backbones.stable_diffusion import StableDiffusion

SCHEDULER = {
    "num_train_timesteps": 1000, "beta_start": 1.0, "beta_end": 1.0, "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction", "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1,
}  # fmt: skip


def fill(module):
    """Weights by rule: keys sorted, w = sin(1.3 k + 0.37 i), scaled by fan-in; biases 0.05 w; norm gains 1 + 0.1 w."""
    state = module.state_dict()
    for k, key in enumerate(sorted(state)):
        value = state[key]
        w = torch.sin(1.3 * k + 0.37 * torch.arange(value.numel(), dtype=torch.float64)).reshape(value.shape)
        if value.ndim >= 2:
            w = w / value[0].numel() ** 0.5
        elif key.endswith("weight"):
            w = 1 + 0.1 * w
        else:
            w = 0.05 * w
        state[key] = w.float()
    module.load_state_dict(state)
    return module.eval()


def backbone():
    """A four-level U-Net and KL autoencoder of test size; no text encoder, the embedding is a formula.

    The weights are float32 as in the original runs; the sums are float64, so that no kernel's order of adding matters.
    """
    unet = UNet2DConditionModel(
        in_channels=4, out_channels=4, block_out_channels=(32, 64, 64, 64), attention_head_dim=(1, 2, 2, 2),
        cross_attention_dim=16, layers_per_block=2, use_linear_projection=True,
    )  # fmt: skip
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(32, 32, 64, 64), layers_per_block=2, norm_num_groups=32, scaling_factor=0.18215,
    )  # fmt: skip
    return StableDiffusion(fill(unet), fill(vae), torch.nn.Identity(), None, SCHEDULER).double()


def image():
    """64 x 96 RGB in [-1, 1]."""
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(96.0), indexing="ij")
    return torch.stack([
        torch.sin(0.11 * y + 0.07 * x), torch.cos(0.05 * y - 0.13 * x), torch.sin(0.02 * y + 0.2 * x)
    ])[None].double()  # fmt: skip


def text():
    """Two tokens of width 16."""
    return torch.sin(0.3 * torch.arange(32.0)).reshape(1, 2, 16).double()


def summary(x):
    """Mean, standard deviation, largest magnitude, first and last element."""
    x = x.double()
    flat = x.flatten()
    return [x.mean().item(), x.std().item(), x.abs().max().item(), flat[0].item(), flat[-1].item()]
