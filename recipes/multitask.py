"""Several dense tasks at once: NYUD-MT and PASCAL-Context as Diff-2-in-1 (Zheng et al. 2025) learns them.

    twofold data convert nyud-mt TREE --split train --out data/nyud-mt         # and --split val --out data/nyud-mt-val
    twofold train recipes/multitask.py:nyud_mt
    twofold create data/nyud-mt --model runs/nyud-mt/checkpoint --strength 0.6 --count 500 --out data/nyud-mt-created
    twofold train recipes/multitask.py:nyud_mt_improved
    twofold train recipes/multitask.py:nyud_mt --smoke-test                           # in miniature

Losses, their weights and the optimizer are those of InvPT's and TaskPrompter's programs (Ye & Xu 2022, 2023), whose
settings Diff-2-in-1's paper says it keeps; boundaries, which they learn too, are left out as they are there. How the
diffusion model's maps met those networks was not published: here the fused maps stand in place of a transformer's
tokens, under decoders of our own. Not as there: depth, in metres, ends at 10 m, where a head of theirs has no bounds
(as there it is divided by the zoom, so that 5 m are 10 m where a crop is shrunk by half); saliency is one share a pixel
in place of two logits; crops, zoomed by 0.5 to 2 as there, are padded at the right and at the bottom, not around. An
example is one picture under all its tasks (``tasks_per_image="all"``): one forward pass of the U-Net and of the fusion
network, and a loss that is the sum over tasks.
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
# 1 on the canvas of that depth is 5 m: with this weight the loss is the mean error in metres, as theirs.
METRES = 5.0
NYUD_CLASSES = "twofold.data.labels:nyud_mt_logits"
PASCAL_CLASSES = "twofold.data.labels:pascal_mt_logits"
# Images between two steps of the EMA teacher.
EVERY = 40


def together(name: str, data: str, losses: dict[str, dict[str, float]], size: tuple[int, int]) -> Recipe:
    """What both benchmarks share: two images per update, each task's losses on its head's output.

    Args:
        name: of the run.
        data: folder of the examples; its held-out ones are in the folder of that name with ``-val``.
        losses: by task.
        size: height and width of an example.
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


def improved(recipe: Recipe, real: float, created: float, decay: float) -> Recipe:
    """The second stage: from where the first ended, with pictures that it created and a teacher labels at each step.

    One picture an update, as published; the teacher moves after every 40 of them.

    Args:
        recipe: of the first stage.
        real: pictures with labels.
        created: pictures without, in the folder of the first stage's data with ``-created``.
        decay: of the teacher.
    """
    (labelled,) = recipe.data.sources
    made = Source(path=f"{labelled.path}-created", share=created, labels="teacher")
    return recipe.replace(
        name=f"{recipe.name}-improved",
        model={"init_from": f"runs/{recipe.name}/checkpoint"},
        data={"sources": (labelled.model_copy(update={"share": real}), made)},
        ema={"decay": decay, "update_every": EVERY},
        loop={"batch_size": 1},
    )


def nyud_mt() -> Recipe:
    """NYUD-MT: 40 classes, depth, normals, from 795 pictures.

    Published, with boundaries and ViT-L: InvPT 53.56 mIoU, .5183 m RMSE, 19.04 degrees; TaskPrompter 55.90, .5062,
    18.58. Diff-2-in-1's own numbers are not known to us.
    """
    losses = {NYUD_CLASSES: {"cross_entropy": 1.0}, NYUD_DEPTH: {"l1": METRES}, "normals": {"l1": 10.0}}
    return together("nyud-mt", "data/nyud-mt", losses, (448, 576))


def nyud_mt_improved() -> Recipe:
    """NYUD-MT's second stage: 500 created pictures, and a teacher of decay 0.998."""
    return improved(nyud_mt(), 795, 500, 0.998)


def pascal_context() -> Recipe:
    """PASCAL-Context: 21 classes, parts of people, saliency, normals, from 4998 pictures.

    Published, with boundaries and ViT-L: InvPT 79.03 mIoU, 67.61 mIoU of parts, 84.81 max F, 14.15 degrees;
    TaskPrompter 80.79, 68.81, 84.26, 13.58. Diff-2-in-1's own numbers are not known to us.
    """
    losses = {
        PASCAL_CLASSES: {"cross_entropy": 1.0},
        "parsing_logits": {"cross_entropy": 2.0},
        "saliency": {"balanced_bce": 5.0},
        "normals": {"l1": 10.0},
    }
    return together("pascal-context", "data/pascal-mt", losses, (512, 512))


def pascal_context_improved() -> Recipe:
    """PASCAL-Context's second stage: a created picture for every real one, and a teacher of decay 0.999."""
    return improved(pascal_context(), 4998, 4998, 0.999)
