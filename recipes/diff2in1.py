"""Diff-2-in-1 (Zheng et al. 2025, ICLR): a head is warmed up on a frozen network, and improves on what that draws.

    twofold data convert diff2in1 dataset/nyu --split train --out data/nyu
    twofold train recipes/diff2in1.py:warm_up
    twofold create data/nyu --model runs/diff2in1-warm-up/checkpoint --out data/nyu-created --guidance 1 --steps 50
    twofold train recipes/diff2in1.py:second_stage

docs/diff2in1.md holds these against the four commands of the released code, setting by setting. Where the paper and
that code differ, recipes follow the paper; ``official_...`` follow the code as far as settings reach.

What none of them does as that code: latents are the mean of their posterior and not a draw, and the teacher answers
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
# As the released code sees them: see the converter diff2in1-squeezed, and twofold create --compat official.
NYU_SQUEEZED = Source(path="data/nyu-squeezed", share=795)
CREATED = Source(path="data/nyu-created", share=500, limit=500, labels="teacher")
CREATED_OFFICIAL = Source(path="data/nyu-created-official", share=795, labels="teacher")
EPOCHS = 50
SCANNET_FRAMES = 20000
ADE20K_LOGITS = "twofold.data.labels:ade20k_logits"


def taught(name: str, pictures: int, batch: int) -> Recipe:
    """What both stages share: a fusion network and Bae's decoder learn normals from a network that stays as it is.

    An epoch leaves out the pictures that do not fill a batch, as that code does.

    Args:
        name: of the run.
        pictures: in an epoch, of 50.
        batch: pictures an update.
    """
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
        loop=LoopConfig(
            steps=pictures // batch * EPOCHS, batch_size=batch, seed=42, save_every=pictures // batch * 5
        ),
        validation=ValidationConfig(every=0),
    )


def warm_up() -> Recipe:
    """Normals of the 795 labelled pictures of NYUv2, the first stage.

    Published: mean 13.9, median 7.2, RMSE 22.4 degrees, 87.5 % below 30 (a figure of the project page).
    Pictures keep their shape, 480 x 640, and are shown clean at time step 0. Adam at Bae's rate, held, 8 pictures, 50
    epochs: the code's; the paper says those of Bae et al., who let the rate rise and fall, and clip.
    """
    return taught("diff2in1-warm-up", 795, 8)


def bae_optimizer(recipe: Recipe) -> Recipe:
    """``recipe`` with the optimizer of Bae et al. (2021), whose settings the paper says it keeps.

    AdamW with a weight decay of 0.01, gradients clipped to a norm of 0.1, and OneCycle: from 4 % of 3.57e-4 to all of
    it at 30 % of the updates and down to 4e-6 of it, the first beta from 0.95 to 0.85 and back. They trained 5 epochs
    of 30 thousand pictures, 4 an update; how many of 795 the paper trained is not known to us.
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
    """As `warm_up`, with the optimizer of Bae et al., 4 pictures an update.

    Published: mean 13.9, median 7.2, RMSE 22.4 degrees, 87.5 % below 30 (a figure of the project page).
    """
    return bae_optimizer(taught("diff2in1-warm-up-bae", 795, 4))


def second_stage_bae() -> Recipe:
    """As `second_stage`, from `warm_up_bae` and with its optimizer.

    Published: mean 12.7, median 6.0, RMSE 21.6 degrees, 88.2 % below 30 (a figure of the project page).
    """
    made = second_stage().replace(
        name="diff2in1-second-stage-bae", model={"init_from": "runs/diff2in1-warm-up-bae/checkpoint"}
    )
    return bae_optimizer(made)


def official_warm_up() -> Recipe:
    """As the released code trains: squeezed to 512 x 512, with the noise of time step 0 on the latent."""
    return as_released(taught("diff2in1-official-warm-up", 795, 8), (NYU_SQUEEZED,))


def second_stage() -> Recipe:
    """The self-improving stage: the student learns from labels and from its teacher, who is what is kept.

    Published: mean 12.7, median 6.0, RMSE 21.6 degrees, 88.2 % below 30 (a figure of the project page).
    795 real and 500 created pictures, each seen 50 times, 4 an update; what the created ones show is said by the
    teacher as it is then, who follows by a decay of 0.998 every 40 pictures. How many epochs the paper took is not
    known to us; 50 are the code's.
    """
    return taught("diff2in1-second-stage", 795 + 500, 4).replace(
        model={"init_from": "runs/diff2in1-warm-up/checkpoint"},
        data={"sources": (NYU, CREATED)},
        ema={"decay": 0.998, "update_every": 40},
    )


def official_second_stage() -> Recipe:
    """As the released code trains by its defaults: all 795 created pictures, 8 an update, the teacher moved every 80.

    Noise is drawn for the teacher and for the student. Its teacher answers most pixels by stretching a coarser answer;
    ours answers all of them.
    """
    recipe = taught("diff2in1-official-second-stage", 2 * 795, 8)
    recipe = recipe.replace(
        model={"init_from": "runs/diff2in1-official-warm-up/checkpoint"},
        ema={"decay": 0.998, "update_every": 80},
    )
    return as_released(recipe, (NYU_SQUEEZED, CREATED_OFFICIAL))


def scannet_warm_up() -> Recipe:
    """Normals of ScanNet with FrameNet's labels, to be tested on NYUv2: the paper's transfer, first stage.

    Published: that the transfer was measured; its numbers are not known to us. Nor is how many frames were used: here
    20 thousand, evenly from all scans, each seen once or so, 4 an update, with Bae's optimizer. Test it with
    ``twofold evaluate --benchmark nyuv2-normals-bae``.
    """
    frames = Source(path="data/scannet-normals", share=SCANNET_FRAMES, limit=SCANNET_FRAMES)
    recipe = taught("diff2in1-scannet-warm-up", 795, 4).replace(
        data={"sources": (frames,)}, loop={"steps": SCANNET_FRAMES // 4, "save_every": 500}
    )
    return bae_optimizer(recipe)


def scannet_second_stage() -> Recipe:
    """The transfer's second stage: 500 created pictures, which the teacher labels.

    Published: see `scannet_warm_up`. How many were created is not known: as many as of NYUv2, by ``twofold create
    data/scannet-normals --count 500``, which takes them evenly from all scans.
    """
    created = Source(path="data/scannet-created", share=500, limit=500, labels="teacher")
    warm = scannet_warm_up()
    return warm.replace(
        name="diff2in1-scannet-second-stage",
        model={"init_from": f"runs/{warm.name}/checkpoint"},
        data={"sources": (warm.data.sources[0], created)},
        ema={"decay": 0.998, "update_every": 40},
    )


def as_released(recipe: Recipe, sources: tuple[Source, ...]) -> Recipe:
    """``recipe`` with pictures and words as the released code shows them to the network."""
    shown = OneStep(timestep=0, encode="sample", add_noise=True)
    return recipe.replace(
        model={"protocol": shown, "pad_prompts": True, "head": {"options": {"compat": "official"}}},
        data={"sources": sources, "size": (512, 512), "hflip": False},
    )


def segmentation() -> Recipe:
    """ADE20K's 150 classes by VPD (Zhao et al. 2023): what Diff-2-in-1's segmentation is warmed up as.

    Published: VPD has an mIoU of 53.7; others who ran it again found 53.1 and 49.3.
    VPD's own settings: the U-Net is trained too, at a tenth of the head's rate, with all classes as prompts and
    their cross-attention maps as features; crops are zoomed by 0.5 to 2 and have no class on 75 % or more of
    their pixels. According to Diff-2-in-1 its networks are frozen, and nothing of this was released: ``--set
    model.unet=frozen --set optimizer.lr=8e-5 --set model.head.lr=0`` is that. VPD averages 80 phrases a class,
    this has one; it leaves latents unscaled, this scales them; it decays no norms' weights, this all; its images
    are not antialiased where they shrink, these are; in use it slides a window of 512.
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
    """ADE20K's 20,210 pictures and one created of each, whose classes the teacher says, 4 an update.

    Published: half a point of mIoU above VPD, as a review of the paper quotes it.
    The class that is likeliest is learned, wherever the source's label holds. How long it was trained is not known:
    here as many updates as the first stage. Captions for creating: ``--captioner HUB_ID``.
    """
    created = Source(path="data/ade20k-created", labels="teacher")
    return segmentation().replace(
        name="diff2in1-segmentation-second-stage",
        model={"init_from": "runs/diff2in1-segmentation/checkpoint"},
        data={"sources": (Source(path="data/ade20k"), created)},
        ema={"decay": 0.998, "update_every": 40},
        loop={"batch_size": 4},
    )
