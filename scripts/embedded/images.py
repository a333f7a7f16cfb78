"""The image task: denoising of latents under captions, which preserves the ability to generate images.

python -m scripts.embedded.images LATENTS.pt DATA_FOLDER:SHARE [DATA_FOLDER:SHARE ...] [--size 128]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from twofold.backbones.stable_diffusion import StableDiffusion
from twofold.checkpoints import open_model
from twofold.data.folder import Folder
from twofold.diffusion import from_x0
from twofold.environment import has_fast_bfloat16
from twofold.image import resize

BATCH, DROPPED = 16, 0.1


class ImageTask:
    """Batches of latents with their captions, and their loss."""

    def __init__(self, backbone: StableDiffusion, latents: Path, device: torch.device) -> None:
        self.backbone, self.device = backbone, device
        self.sources = torch.load(latents, weights_only=True)

    def loss(self, step: int) -> Tensor:
        """Squared error of the prediction at uniformly random times (Salimans & Ho 2022), for the batch of a step."""
        rng, schedule = np.random.default_rng([9, step]), self.backbone.schedule
        shares = np.array([s["share"] for s in self.sources])
        source = self.sources[int(rng.choice(len(shares), p=shares / shares.sum()))]
        chosen = rng.integers(len(source["latents"]), size=BATCH)
        x0 = source["latents"][torch.from_numpy(chosen)].float()
        generator = torch.Generator().manual_seed(int(rng.integers(1 << 62)))
        t = torch.randint(schedule.steps, (BATCH,), generator=generator)
        noise = torch.randn(x0.shape, generator=generator)
        x, alpha, sigma = schedule.add_noise(x0, noise, t)
        target = from_x0(x0, noise, alpha, sigma, schedule.prediction_type).to(self.device)
        captions = ["" if rng.random() < DROPPED else source["captions"][i] for i in chosen]
        with torch.no_grad():
            text = self.backbone.embed(captions, pad=True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=has_fast_bfloat16(self.device)):
            found = self.backbone(x.to(self.device), t.to(self.device), text).prediction
        return (found.float() - target).square().mean()


@torch.no_grad()
def encode(backbone: StableDiffusion, folder: Folder, size: int) -> dict:
    """Latents of the central squares of a folder's images and of their mirror images, and the captions."""
    latents, captions, waiting = [], [], []
    for i, row in enumerate(tqdm(folder.rows, desc=f"encoding {folder.root.name}", disable=None)):
        image = folder[i].image
        h, w = image.shape[-2:]
        scale = size / min(h, w)
        image = resize(image, (max(size, round(h * scale)), max(size, round(w * scale)))).clamp(0, 1)
        top, left = (image.shape[-2] - size) // 2, (image.shape[-1] - size) // 2
        image = image[:, top : top + size, left : left + size]
        waiting += [image, image.flip(-1)]
        captions += [str(row.get("text") or row.get("caption") or "")] * 2
        if len(waiting) >= 64 or i + 1 == len(folder.rows):
            x = torch.stack(waiting).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16, enabled=has_fast_bfloat16("cpu")):
                latents.append(backbone.encode(x * 2 - 1).half())
            waiting = []
    return {"latents": torch.cat(latents), "captions": captions}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("folders", nargs="+", help="FOLDER:SHARE of the image examples")
    parser.add_argument("--size", type=int, default=128, help="edge of the squares, pixels")
    parser.add_argument("--start", default="embedded", help="checkpoint whose autoencoder encodes")
    given = parser.parse_args()
    backbone = open_model(given.start).backbone
    backbone.vae.to(memory_format=torch.channels_last)
    found = []
    for name in given.folders:
        path, _, share = name.rpartition(":")
        found.append({**encode(backbone, Folder(path, targets=()), given.size), "share": float(share)})
    torch.save(found, given.out)


if __name__ == "__main__":
    main()
