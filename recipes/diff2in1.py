"""Diff-2-in-1 (Zheng et al. 2025, ICLR): a head on a frozen network, warmed up, then trained on generated images too.

    twofold data convert diff2in1 dataset/nyu --split train --out data/nyu
    twofold train recipes/diff2in1.py:warm_up
    twofold create data/nyu --model runs/diff2in1-warm-up/checkpoint --out data/nyu-created --guidance 1 --steps 50
    twofold train recipes/diff2in1.py:second_stage

docs/diff2in1.md compares them with the four commands of the released code, setting by setting. Where the paper and that
code differ, recipes follow the paper; ``official_...`` follow the code as far as settings allow.

Two differences remain in all of them: latents are the mean of the posterior, not a sample, and the teacher predicts
every pixel.
"""

from twofold.data.convert.ade20k import CLASSES
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

# The authors' model.ckpt is this model's; their own file is read as well: --set model.init_from=FOLDER.
SD15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"
NYU = Source(path="data/nyu", share=795)
# Resized to squares as in the released code: see the converter diff2in1-squeezed, and twofold create --compat official.
NYU_SQUEEZED = Source(path="data/nyu-squeezed", share=795)
GENERATED = Source(path="data/nyu-created", share=500, limit=500, labels="teacher")
GENERATED_OFFICIAL = Source(path="data/nyu-created-official", share=795, labels="teacher")
EPOCHS = 50
SCANNET_FRAMES = 20000
ADE20K_LOGITS = "twofold.data.labels:ade20k_logits"


def normals_stage(name: str, num_images: int, batch_size: int) -> Recipe:
    """Settings common to both stages: a fusion network and Bae's decoder are trained for normals on a frozen U-Net.

    An epoch drops the last incomplete batch, as the released code does.

    Args:
        name: of the run.
        num_images: images of an epoch; there are `EPOCHS`.
        batch_size: images of an update.
    """
    steps = num_images // batch_size
    return Recipe(
        name=name,
        model=DenoiserConfig(
            init_from=SD15,
            protocol=OneStep(timestep=0),
            prompts={"normals": ""},
            head=HeadConfig(name="bae"),
            latent_loss_weight=0.0,
            pixel_loss_weight=1.0,
            unet="frozen",
            text_encoder="frozen",
        ),
        data=DataConfig(sources=(NYU,), task_weights={"normals": 1.0}, size=(480, 640)),
        optimizer=OptimizerConfig(
            name="adam",
            lr=3.57e-4,
            betas=(0.9, 0.999),
            weight_decay=0.0,
            schedule="constant",
            warmup_steps=0,
            max_grad_norm=0.0,
        ),
        ema=EmaConfig(decay=0.0),
        loop=LoopConfig(steps=steps * EPOCHS, batch_size=batch_size, seed=42, save_every=steps * 5),
        validation=ValidationConfig(every=0),
    )


def warm_up() -> Recipe:
    """Normals of the 795 labelled images of NYUv2, the first stage.

    Published: mean 13.9, median 7.2, RMSE 22.4 degrees, 87.5 % below 30 (a figure of the project page).
    Images have their own size, 480 x 640, and enter the network without noise at time step 0. Adam at Bae's learning
    rate, constant, 8 images per update and 50 epochs are the settings of the code; the paper refers to those of Bae et
    al., who use OneCycle and gradient clipping.
    """
    return normals_stage("diff2in1-warm-up", 795, 8)


def bae_optimizer(recipe: Recipe) -> Recipe:
    """``recipe`` with the optimizer of Bae et al. (2021), to whose settings the paper refers.

    AdamW with a weight decay of 0.01, gradients clipped to a norm of 0.1, and OneCycle: from 4 % of 3.57e-4 to all of
    it at 30 % of the updates and down to 4e-6 of it, the first beta from 0.95 to 0.85 and back. They trained 5 epochs
    of 30 thousand images, 4 per update; the paper does not state its number of epochs of 795 images.
    """
    return recipe.replace(
        optimizer={
            "name": "adamw",
            "lr": 3.57e-4,
            "betas": (0.95, 0.999),
            "weight_decay": 0.01,
            "schedule": "onecycle",
            "warmup_steps": 0,
            "decay_steps": 0,
            "final_lr_ratio": 4e-6,
            "max_grad_norm": 0.1,
        }
    )


def warm_up_bae() -> Recipe:
    """As `warm_up`, with the optimizer of Bae et al. and 4 images per update.

    Published: mean 13.9, median 7.2, RMSE 22.4 degrees, 87.5 % below 30 (a figure of the project page).
    """
    return bae_optimizer(normals_stage("diff2in1-warm-up-bae", 795, 4))


def second_stage_bae() -> Recipe:
    """As `second_stage`, from `warm_up_bae` and with its optimizer.

    Published: mean 12.7, median 6.0, RMSE 21.6 degrees, 88.2 % below 30 (a figure of the project page).
    """
    recipe = second_stage().replace(
        name="diff2in1-second-stage-bae", model={"init_from": "runs/diff2in1-warm-up-bae/checkpoint"}
    )
    return bae_optimizer(recipe)


def official_warm_up() -> Recipe:
    """As in the released code: images resized to 512 x 512, and the noise of time step 0 added to the latent."""
    return as_released(normals_stage("diff2in1-official-warm-up", 795, 8), (NYU_SQUEEZED,))


def second_stage() -> Recipe:
    """The self-improving stage: labels, and pseudo-labels from the EMA teacher, which is the model that is saved.

    Published: mean 12.7, median 6.0, RMSE 21.6 degrees, 88.2 % below 30 (a figure of the project page).
    795 real and 500 generated images, 50 epochs, 4 images per update. The EMA teacher, which has a decay of 0.998 every
    40 images, predicts the pseudo-labels of the generated images at every update. The paper does not state the number
    of epochs; 50 is that of the code.
    """
    return normals_stage("diff2in1-second-stage", 795 + 500, 4).replace(
        model={"init_from": "runs/diff2in1-warm-up/checkpoint"},
        data={"sources": (NYU, GENERATED)},
        ema={"decay": 0.998, "update_every": 40},
    )


def official_second_stage() -> Recipe:
    """As in the released code by default: 795 generated images, 8 per update, the teacher updated every 80 images.

    Teacher and student get separate noise. In the released code most pixels of the teacher are upsampled from a
    coarser prediction; here the teacher predicts every pixel.
    """
    recipe = normals_stage("diff2in1-official-second-stage", 2 * 795, 8)
    recipe = recipe.replace(
        model={"init_from": "runs/diff2in1-official-warm-up/checkpoint"},
        ema={"decay": 0.998, "update_every": 80},
    )
    return as_released(recipe, (NYU_SQUEEZED, GENERATED_OFFICIAL))


def scannet_warm_up() -> Recipe:
    """Normals of ScanNet with FrameNet's labels, evaluated on NYUv2: the paper's transfer, first stage.

    Published: that the transfer was measured, without numbers or the number of frames. Here 20 thousand frames, evenly
    spaced over all scans, for about one epoch, 4 per update, with Bae's optimizer. Evaluate it with ``twofold evaluate
    --benchmark nyuv2-normals-bae``.
    """
    frames = Source(path="data/scannet-normals", share=SCANNET_FRAMES, limit=SCANNET_FRAMES)
    recipe = normals_stage("diff2in1-scannet-warm-up", 795, 4).replace(
        data={"sources": (frames,)}, loop={"steps": SCANNET_FRAMES // 4, "save_every": 500}
    )
    return bae_optimizer(recipe)


def scannet_second_stage() -> Recipe:
    """The transfer's second stage: 500 generated images with pseudo-labels from the EMA teacher.

    Published: see `scannet_warm_up`. The number of generated images is unknown; here it is that of NYUv2, by ``twofold
    create data/scannet-normals --count 500``, whose sources are evenly spaced over all scans.
    """
    generated = Source(path="data/scannet-created", share=500, limit=500, labels="teacher")
    warm = scannet_warm_up()
    return warm.replace(
        name="diff2in1-scannet-second-stage",
        model={"init_from": f"runs/{warm.name}/checkpoint"},
        data={"sources": (warm.data.sources[0], generated)},
        ema={"decay": 0.998, "update_every": 40},
    )


def as_released(recipe: Recipe, sources: tuple[Source, ...]) -> Recipe:
    """``recipe`` with images, noise and prompts as in the released code."""
    protocol = OneStep(timestep=0, encode="sample", add_noise=True)
    return recipe.replace(
        model={"protocol": protocol, "pad_prompts": True, "head": {"options": {"compat": "official"}}},
        data={"sources": sources, "size": (512, 512), "hflip": False},
    )


def segmentation() -> Recipe:
    """ADE20K's 150 classes by VPD (Zhao et al. 2023): the warm-up of Diff-2-in-1's segmentation.

    Published: VPD has an mIoU of 53.7; reproductions by others reached 53.1 and 49.3.
    VPD's settings: the U-Net is trained too, at a tenth of the head's learning rate, with all classes as prompts and
    their cross-attention maps as features; crops are scaled by 0.5 to 2, and no class covers 75 % or more of a crop.
    Diff-2-in-1 states that its networks are frozen, and released no code for this: ``--set model.unet=frozen --set
    optimizer.lr=8e-5 --set model.head.lr=0``. Further differences from VPD: one prompt per class instead of the average
    of 80, scaled latents, weight decay of the parameters of normalisation layers too, antialiased resizing, and no
    sliding window of 512 pixels at inference.
    """
    return Recipe(
        name="diff2in1-segmentation",
        model=DenoiserConfig(
            init_from=SD15,
            protocol=OneStep(timestep=1),
            prompts={ADE20K_LOGITS: ""},
            head=HeadConfig(
                name="fpn", options={"prompts": [f"a photo of a {name}" for name in CLASSES]}, lr=8e-5
            ),
            latent_loss_weight=0.0,
            pixel_loss_weight=1.0,
            text_encoder="frozen",
            gradient_checkpointing=True,
        ),
        data=DataConfig(
            sources=(Source(path="data/ade20k"),),
            task_weights={ADE20K_LOGITS: 1.0},
            size=(512, 512),
            augment=True,
            random_crop=RandomCrop(scale=(0.5, 2.0), cat_max_ratio=0.75),
        ),
        optimizer=OptimizerConfig(
            lr=8e-6,
            betas=(0.9, 0.999),
            weight_decay=1e-3,
            schedule="linear",
            warmup_steps=1500,
            final_lr_ratio=0.0,
            max_grad_norm=0.0,
        ),
        ema=EmaConfig(decay=0.0),
        loop=LoopConfig(steps=80000, batch_size=16, save_every=2000),
        validation=ValidationConfig(data="data/ade20k-val", every=8000, num_samples=200),
    )


def segmentation_second_stage() -> Recipe:
    """ADE20K's 20,210 images and one image generated from each with the teacher's pseudo-labels, 4 per update.

    Published: half a point of mIoU above VPD, as quoted in a review of the paper.
    A pseudo-label is the most probable class, at pixels where the source's label is valid. The length of training is
    unknown; here it is that of the first stage. Captions for generation: ``--captioner HUB_ID``.
    """
    generated = Source(path="data/ade20k-created", labels="teacher")
    return segmentation().replace(
        name="diff2in1-segmentation-second-stage",
        model={"init_from": "runs/diff2in1-segmentation/checkpoint"},
        data={"sources": (Source(path="data/ade20k"), generated)},
        ema={"decay": 0.998, "update_every": 40},
        loop={"batch_size": 4},
    )
