"""Multi-task learning on NYUD-MT and PASCAL-Context, as in Diff-2-in-1 (Zheng et al. 2025).

    twofold data convert nyud-mt TREE --split train --out data/nyud-mt         # and --split val --out data/nyud-mt-val
    twofold train recipes/multitask.py:nyud_mt
    twofold create data/nyud-mt --model runs/nyud-mt/checkpoint --strength 0.6 --count 500 --out data/nyud-mt-created
    twofold train recipes/multitask.py:nyud_mt_improved
    twofold train recipes/multitask.py:nyud_mt --smoke-test                           # reduced: minutes on a CPU

Losses, their weights and the optimizer are those of the released code of InvPT and TaskPrompter (Ye & Xu 2022, 2023),
to whose settings the paper of Diff-2-in-1 refers; like there, boundaries are left out. How Diff-2-in-1 joins the
diffusion model's feature maps and those networks was not published: here the fused maps replace a transformer's tokens,
with decoders of this library. Differences from InvPT and TaskPrompter: metric depth ends at 10 m instead of being
unbounded (as there, it is divided by the scale of a crop: at scale 0.5, 5 m become 10 m); saliency is one probability
per pixel instead of two logits; crops, scaled by 0.5 to 2 as there, are padded at the right and at the bottom only. An
example is an image with all its tasks (``tasks_per_image="all"``): one forward pass of the U-Net and of the fusion
network, and the sum of the tasks' losses.
"""

from twofold.protocols import OneStep
from twofold.train import (
    DataConfig,
    DenoiserConfig,
    EmaConfig,
    HeadConfig,
    LoopConfig,
    OptimizerConfig,
    RandomCrop,
    Recipe,
    Source,
    ValidationConfig,
)

SD15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"
NYUD_DEPTH = "twofold.tasks.metric_depth:depth_10m"
# 1 in the encoded target of that depth is 5 m: with this weight the loss is the mean error in metres, as theirs.
METRES = 5.0
NYUD_CLASSES = "twofold.data.labels:nyud_mt_logits"
PASCAL_CLASSES = "twofold.data.labels:pascal_mt_logits"
# Images between two updates of the EMA teacher.
EMA_UPDATE_EVERY = 40


def multi_task(name: str, data: str, losses: dict[str, dict[str, float]], size: tuple[int, int]) -> Recipe:
    """Settings common to both benchmarks: two images per update, each task's losses on its head's output.

    Args:
        name: of the run.
        data: folder of the training samples; the validation samples are in the folder of that name with ``-val``.
        losses: by task, weights by name of the loss.
        size: height and width of an example, pixels.
    """
    return Recipe(
        name=name,
        model=DenoiserConfig(
            init_from=SD15,
            prompts=dict.fromkeys(losses, ""),
            protocol=OneStep(timestep=0),
            unet="frozen",
            text_encoder="frozen",
            head=HeadConfig(name="multitask"),
            latent_loss_weight=0.0,
            pixel_loss_weight=1.0,
        ),
        data=DataConfig(
            sources=(Source(path=data),),
            task_weights=dict.fromkeys(losses, 1.0),
            size=size,
            augment=True,
            random_crop=RandomCrop(scale=(0.5, 2.0), relative_to="image", cat_max_ratio=0.75),
            tasks_per_image="all",
        ),
        loss=losses,
        optimizer=OptimizerConfig(
            name="adam",
            lr=2e-5,
            betas=(0.9, 0.999),
            weight_decay=1e-6,
            schedule="poly",
            warmup_steps=0,
            final_lr_ratio=0.0,
            max_grad_norm=0.0,
        ),
        ema=EmaConfig(decay=0.0),
        loop=LoopConfig(steps=40000, batch_size=2, save_every=1000),
        validation=ValidationConfig(data=f"{data}-val", every=4000, num_samples=100),
    )


def improved(recipe: Recipe, real: float, generated: float, decay: float) -> Recipe:
    """The second stage: from the first one's checkpoint, with generated images that the EMA teacher labels.

    One image per update, as published; the teacher is updated after every 40 images.

    Args:
        recipe: of the first stage.
        real: number of labelled images.
        generated: number of generated images, in the folder of the first stage's data with ``-created``.
        decay: of the teacher.
    """
    (labelled,) = recipe.data.sources
    pseudo_labelled = Source(path=f"{labelled.path}-created", share=generated, labels="teacher")
    return recipe.replace(
        name=f"{recipe.name}-improved",
        model={"init_from": f"runs/{recipe.name}/checkpoint"},
        data={"sources": (labelled.model_copy(update={"share": real}), pseudo_labelled)},
        ema={"decay": decay, "update_every": EMA_UPDATE_EVERY},
        loop={"batch_size": 1},
    )


def nyud_mt() -> Recipe:
    """NYUD-MT: 40 classes, depth and normals, from 795 images.

    Published, with boundaries and ViT-L: InvPT 53.56 mIoU, .5183 m RMSE, 19.04 degrees; TaskPrompter 55.90, .5062,
    18.58. Diff-2-in-1 published no numbers.
    """
    losses = {NYUD_CLASSES: {"cross_entropy": 1.0}, NYUD_DEPTH: {"l1": METRES}, "normals": {"l1": 10.0}}
    return multi_task("nyud-mt", "data/nyud-mt", losses, (448, 576))


def nyud_mt_improved() -> Recipe:
    """NYUD-MT's second stage: 500 generated images, and an EMA teacher of decay 0.998."""
    return improved(nyud_mt(), 795, 500, 0.998)


def pascal_context() -> Recipe:
    """PASCAL-Context: 21 classes, parts of people, saliency and normals, from 4998 images.

    Published, with boundaries and ViT-L: InvPT 79.03 mIoU, 67.61 mIoU of parts, 84.81 max F, 14.15 degrees;
    TaskPrompter 80.79, 68.81, 84.26, 13.58. Diff-2-in-1 published no numbers.
    """
    losses = {
        PASCAL_CLASSES: {"cross_entropy": 1.0},
        "parsing_logits": {"cross_entropy": 2.0},
        "saliency": {"balanced_bce": 5.0},
        "normals": {"l1": 10.0},
    }
    return multi_task("pascal-context", "data/pascal-mt", losses, (512, 512))


def pascal_context_improved() -> Recipe:
    """PASCAL-Context's second stage: one generated image per real one, and an EMA teacher of decay 0.999."""
    return improved(pascal_context(), 4998, 4998, 0.999)
