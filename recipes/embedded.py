"""The runs that made the second version of the embedded model, each from the checkpoint of the one before.

The third version goes on from there with `scripts/embedded` (its docstring has the commands).

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

``data/photos`` is a folder of openly licensed photographs with captions (docs/training.md names them). The
history differs from these recipes in a few places.
"""

from twofold.train import Recipe, Source

PHOTOS = Source(path="data/photos", share=1.0)
ROOMS = Source(path="data/rooms", share=1.0)


def codec_photos() -> Recipe:
    """The autoencoder on photographs: short, because pictures alone teach it quickly what edges are."""
    return Recipe(
        name="codec-photos", stage="autoencoder", sources=(PHOTOS,), size=(128, 128), steps=500, final_lr=0.5,
        batch=16, lr=2e-3, warmup=100, ema=0.995, validation="data/rooms-val", validate_count=8,
        validate_every=250, save_every=100,
    )  # fmt: skip


def codec() -> Recipe:
    """The autoencoder on photographs, renders, and painted depth and normals, which it has to paint later."""
    return codec_photos().replace(
        name="codec", start="runs/codec-photos/checkpoint", sources=(PHOTOS, Source(path="data/rooms-codec")),
        steps=600, final_lr=0.05, warmup=20, lr=1.5e-3, mix={"image": 2.0, "depth": 1.0, "normals": 1.0},
        validate_every=200,
    )  # fmt: skip


def codec_white() -> Recipe:
    """The same at full weight on colours, after which the latent channels no longer repeat each other."""
    return codec().replace(
        name="codec-white", start="runs/codec/checkpoint",
        sources=(PHOTOS, Source(path="data/rooms-prior", share=1.0)), steps=320, warmup=20, lr=2e-3,
        mix={"image": 1.0, "depth": 0.5, "normals": 1.0}, ema=0.99, validate_every=150,
    )  # fmt: skip


def prior() -> Recipe:
    """The denoiser on images under captions alone: what makes it a text-to-image model."""
    return Recipe(
        name="prior", stage="denoiser", start="runs/codec-white/checkpoint", reset=("unet", "text"),
        sources=(
            ROOMS, Source(path="data/rooms-2", share=2.0), Source(path="data/photos", share=2.0, limit=2400),
        ),
        mix={"image": 1.0}, size=(144, 192), steps=500, batch=16, lr=6e-4, warmup=100, augment=True,
        final_lr=0.1, ema=0.99, save_every=100,
    )  # fmt: skip


def joint() -> Recipe:
    """Images under captions and one-step perception at once, told apart by their prompts."""
    return prior().replace(
        name="joint", start="runs/codec-white/checkpoint", validation="data/rooms-val",
        sources=(ROOMS, Source(path="data/photos", share=0.5, limit=2400)),
        mix={"image": 1.0, "depth": 1.0, "normals": 1.0}, steps=2300, warmup=100, augment=False,
        final_lr=0.03, ema=0.997, validate_every=400, validate_count=32,
    )  # fmt: skip


def light() -> Recipe:
    """The same network, read out by light heads whose losses are on pixels; the image task is kept alive."""
    return joint().replace(
        name="light", start="runs/joint/checkpoint", reset=(), head="light", image_weight=1.0, latent_weight=0.1,
        mix={"image": 0.5, "depth": 1.0, "normals": 1.0}, steps=1150, lr=5e-4, warmup=50, final_lr=0.02, ema=0.99,
        validate_every=300, save_every=100,
    )  # fmt: skip


def more() -> Recipe:
    """More scenes, each seen from nearer and in other colours every time, and heads that blend their cells."""
    return light().replace(
        name="more", start="runs/light/checkpoint", reset=("heads",), validation="data/rooms-dev", augment=True,
        sources=(
            ROOMS, Source(path="data/rooms-2", share=2.0), Source(path="data/photos", share=1.0, limit=2400),
        ),
        latent_weight=0.0, steps=2500, lr=6e-4, warmup=100, final_lr=0.02, ema=0.998, validate_every=500,
        validate_count=64, save_every=100,
    )  # fmt: skip
