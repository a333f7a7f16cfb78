"""The training runs of the second version of the embedded model, each from the checkpoint of the one before.

The third version continues with `scripts/embedded` (its docstring has the commands).

    twofold render --count 160 --seed 1 --out data/rooms-codec
    twofold render --count 400 --seed 1 --spp 4 --out data/rooms-prior
    twofold render --count 1200 --seed 1 --spp 4 --out data/rooms
    twofold render --count 4000 --seed 2 --spp 4 --out data/rooms-2
    twofold render --count 300 --seed 9001 --out data/rooms-val
    twofold render --count 64 --seed 9002 --out data/rooms-dev
    twofold train recipes/embedded.py:codec_photos
    twofold train recipes/embedded.py:codec
    twofold train recipes/embedded.py:codec_white
    twofold train recipes/embedded.py:joint
    twofold train recipes/embedded.py:light
    twofold train recipes/embedded.py:more

``data/photos`` is a folder of openly licensed photographs with captions (docs/training.md lists the data sets). The
actual runs differ from these recipes in a few settings.
"""

from twofold.train import (
    AutoencoderConfig,
    DataConfig,
    DenoiserConfig,
    EmaConfig,
    LoopConfig,
    OptimizerConfig,
    Recipe,
    Source,
    ValidationConfig,
)

PHOTOS = Source(path="data/photos", share=1.0)
ROOMS = Source(path="data/rooms", share=1.0)


def codec_photos() -> Recipe:
    """The autoencoder on photographs. A short run: reconstruction of edges converges quickly."""
    return Recipe(
        name="codec-photos",
        model=AutoencoderConfig(),
        data=DataConfig(sources=(PHOTOS,), size=(128, 128)),
        optimizer=OptimizerConfig(final_lr_ratio=0.5, lr=2e-3, warmup_steps=100),
        ema=EmaConfig(decay=0.995),
        loop=LoopConfig(steps=500, batch_size=16, save_every=100),
        validation=ValidationConfig(data="data/rooms-val", num_samples=8, every=250),
    )


def codec() -> Recipe:
    """The autoencoder on photographs, rendered images, and encoded depth and normals, which latent heads decode."""
    return codec_photos().replace(
        name="codec",
        model={"init_from": "runs/codec-photos/checkpoint"},
        data={
            "sources": (PHOTOS, Source(path="data/rooms-codec")),
            "task_weights": {"image": 2.0, "depth": 1.0, "normals": 1.0},
        },
        optimizer={"final_lr_ratio": 0.05, "warmup_steps": 20, "lr": 1.5e-3},
        loop={"steps": 600},
        validation={"every": 200},
    )


def codec_white() -> Recipe:
    """As `codec`, continued on other scenes and task weights; it decorrelates the latent channels."""
    return codec().replace(
        name="codec-white",
        model={"init_from": "runs/codec/checkpoint"},
        data={
            "sources": (PHOTOS, Source(path="data/rooms-prior", share=1.0)),
            "task_weights": {"image": 1.0, "depth": 0.5, "normals": 1.0},
        },
        optimizer={"warmup_steps": 20, "lr": 2e-3},
        ema={"decay": 0.99},
        loop={"steps": 320},
        validation={"every": 150},
    )


def prior() -> Recipe:
    """The denoiser on images with captions alone, which makes it a text-to-image model."""
    return Recipe(
        name="prior",
        model=DenoiserConfig(init_from="runs/codec-white/checkpoint", reset=("unet", "text")),
        data=DataConfig(
            sources=(
                ROOMS,
                Source(path="data/rooms-2", share=2.0),
                Source(path="data/photos", share=2.0, limit=2400),
            ),
            task_weights={"image": 1.0},
            size=(144, 192),
            augment=True,
        ),
        optimizer=OptimizerConfig(lr=6e-4, warmup_steps=100, final_lr_ratio=0.1),
        ema=EmaConfig(decay=0.99),
        loop=LoopConfig(steps=500, batch_size=16, save_every=100),
    )


def joint() -> Recipe:
    """Image generation and one-step perception jointly, selected by the prompt."""
    return prior().replace(
        name="joint",
        model={"init_from": "runs/codec-white/checkpoint"},
        data={
            "sources": (ROOMS, Source(path="data/photos", share=0.5, limit=2400)),
            "task_weights": {"image": 1.0, "depth": 1.0, "normals": 1.0},
            "augment": False,
        },
        optimizer={"warmup_steps": 100, "final_lr_ratio": 0.03},
        ema={"decay": 0.997},
        loop={"steps": 2300},
        validation={"data": "data/rooms-val", "every": 400, "num_samples": 32},
    )


def light() -> Recipe:
    """As `joint`, with light heads and losses on pixels; the image task is still trained."""
    return joint().replace(
        name="light",
        model={
            "init_from": "runs/joint/checkpoint",
            "reset": (),
            "head": {"name": "light"},
            "pixel_loss_weight": 1.0,
            "latent_loss_weight": 0.1,
        },
        data={"task_weights": {"image": 0.5, "depth": 1.0, "normals": 1.0}},
        optimizer={"lr": 5e-4, "warmup_steps": 50, "final_lr_ratio": 0.02},
        ema={"decay": 0.99},
        loop={"steps": 1150, "save_every": 100},
        validation={"every": 300},
    )


def more() -> Recipe:
    """As `light`, with more scenes, random crops and colour augmentation, and reinitialized heads."""
    return light().replace(
        name="more",
        model={"init_from": "runs/light/checkpoint", "reset": ("heads",), "latent_loss_weight": 0.0},
        data={
            "augment": True,
            "sources": (
                ROOMS,
                Source(path="data/rooms-2", share=2.0),
                Source(path="data/photos", share=1.0, limit=2400),
            ),
        },
        optimizer={"lr": 6e-4, "warmup_steps": 100, "final_lr_ratio": 0.02},
        ema={"decay": 0.998},
        loop={"steps": 2500, "save_every": 100},
        validation={"data": "data/rooms-dev", "every": 500, "num_samples": 64},
    )
