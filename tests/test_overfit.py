"""Every task learns through every kind of head: a small network comes to know eight pictures by heart.

The loss that is stated for a task is what 80 to 700 steps are enough for; before the first, it is 3 to 300 times that.
"""

import pytest

import world
from twofold.backbones import new
from twofold.backbones.stable_diffusion import StableDiffusion
from twofold.checkpoints import open_model
from twofold.tasks import TASKS
from twofold.train.loop import train
from twofold.train.recipe import Recipe, Source

pytestmark = pytest.mark.timeout(600)  # half a minute of processor time, on a busy machine more

# By task, the squared error of latents. They are those of the embedded model's codec, which gives canvases of black and
# white much larger ones than pictures.
LATENT = {
    "depth": 0.06, "normals": 0.03, "log_depth": 0.06, "semantic": 0.05, "albedo": 0.04, "shading": 0.04,
    "residual": 0.1, "material": 0.06, "segmentation": 0.15, "skeleton": 0.15, "disparity": 0.35,
    "sqrt_disparity": 0.35, "mask": 0.5,
    "saliency": 0.5, "matting": 0.45, "parsing": 0.35,
}  # fmt: skip
# By task, its own losses on what a DPT head paints.
DPT = {
    "depth": 0.25, "disparity": 0.25, "sqrt_disparity": 0.25, "log_depth": 0.25, "normals": 0.4, "mask": 0.2,
    "saliency": 0.2, "matting": 0.15, "segmentation": 0.3, "skeleton": 0.3, "semantic": 0.15, "parsing": 0.15,
    "semantic_logits": 0.6, "parsing_logits": 0.15, "albedo": 0.06, "shading": 0.06, "residual": 0.1, "material": 0.06,
    "keypoints": 0.001,
}  # fmt: skip
QUICK = {("depth", "latent"), ("normals", "dpt"), ("semantic_logits", "upernet")}
CASES = [
    *((task, "latent", most) for task, most in LATENT.items()),
    *((task, "dpt", most) for task, most in DPT.items()),
    ("semantic_logits", "upernet", 0.6),
    ("keypoints", "keypoint", 0.001),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """By size: joints are too small for the heatmaps of small pictures."""
    root = tmp_path_factory.mktemp("rich")

    def made(size):
        folder = root / str(size)
        return folder if folder.exists() else world.rich_folder(folder, 8, size)

    return made


@pytest.fixture(scope="module")
def codec():
    return open_model("embedded").backbone.vae


def test_every_task_is_here():
    assert set(LATENT) == {name for name, task in TASKS.items() if task.painted}
    assert set(DPT) == set(TASKS)


@pytest.mark.parametrize(
    ("task", "head", "most"),
    [pytest.param(*c, marks=() if c[:2] in QUICK else pytest.mark.slow, id="-".join(c[:2])) for c in CASES],
)
def test_eight_pictures_are_learned_by_heart(task, head, most, data, codec, tmp_path):
    pixels = head != "latent"
    joints = task == "keypoints"
    size, steps = 128 if joints else 64, (700 if head == "dpt" else 320) if joints else 100 if pixels else 80
    recipe = Recipe(
        name="overfit", stage="denoiser", sources=(Source(path=str(data(size))),), mix={task: 1.0}, size=(size, size),
        head=head, latent_weight=float(not pixels), image_weight=float(pixels), steps=steps, batch=8,
        lr=3e-3 if joints else 5e-3, warmup=5, weight_decay=0.0, ema=0.0, save_every=0, validate_every=0,
    )  # fmt: skip
    tiny = new.tiny()
    net = StableDiffusion(tiny.unet, codec, tiny.text_encoder, tiny.tokenizer, new.MINIATURE_SCHEDULER)
    losses = [r["loss"] for r in train(net, recipe, tmp_path / "run", {})]
    print(f"{task}, {head}: {losses[0]:.4f} to {sum(losses[-4:]) / 4:.4f}")
    assert sum(losses[-4:]) / 4 < most
    assert losses[0] > 3 * most
