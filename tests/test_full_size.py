"""The same code at full size: SD 2.1's architecture with random weights, in bfloat16, on a CPU."""

import shutil

import pytest
import torch

from twofold.backbones import new
from twofold.checkpoints import ModelSettings, open_model, save_model

NEEDED = 12 << 30


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_full_size_predicts_in_bfloat16_through_the_same_code(tmp_path):
    if shutil.disk_usage(tmp_path).free < NEEDED:
        pytest.skip("needs 12 GB of disk for two copies of 2 GB and room to write them")
    settings = ModelSettings(name="sd21-random", size=64).with_tasks(["depth", "normals"], 1, "none")
    save_model(new.sd21(dtype=torch.bfloat16), settings, tmp_path / "sd21", torch.bfloat16)
    model = open_model(str(tmp_path / "sd21"), dtype=torch.bfloat16)
    assert sum(p.numel() for p in model.backbone.unet.parameters()) == 865_910_724
    image = torch.rand(3, 48, 64, generator=torch.Generator().manual_seed(0))
    found = model.predictor("depth")(image)
    assert found.map.shape == (1, 48, 64)
    assert bool(found.map.isfinite().all())
    with torch.no_grad():
        z = model.backbone.encode(image[None].bfloat16() * 2 - 1)
    assert z.shape == (1, 4, 6, 8)
