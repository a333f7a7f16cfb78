"""Training recipes of other methods whose checkpoints twofold reads: Marigold, E2E-FT, Lotus, DMP.

Values are those of the released scripts where there are any; docstrings and docs/recipes.md list the differences. All
but DMP start from the copy of Stable Diffusion 2.1 in `genpercept.py`, whereas the authors start from SD 2 (Marigold,
E2E-FT) and SD 2 base (Lotus): ``--set model.init_from=OWNER/NAME`` changes it. DMP starts from SD 1.4. Half precision
is bf16 here and fp16 in the released scripts.
"""

from genpercept import HYPERSIM, VKITTI, ablation, for_task

from twofold.protocols import MultiStep, Noise, OneStep
from twofold.train import Recipe

SD14 = "CompVis/stable-diffusion-v1-4"
MARIGOLD_NOISE = MultiStep(
    steps=10, spacing="leading", final="prev", noise=Noise(), noise_strategy="original"
)
MARIGOLD_TRAILING = MultiStep(
    steps=4, spacing="trailing", final="prev", noise=Noise(zero_snr=True), noise_strategy="original"
)
ZEROS = MultiStep(steps=1, start="zeros", noise=Noise())
LOTUS_G = OneStep(timestep=999, prediction_type="x0", condition="concat", start="gaussian", encode="sample")
LOTUS_D = OneStep(timestep=999, prediction_type="x0", encode="sample")


def marigold_depth() -> Recipe:
    """Marigold v1-0: multi-step depth from multi-resolution noise.

    Published, ensembles of ten, 50 steps: KITTI .099 .916, NYUv2 .055 .964, ScanNet .064 .951, DIODE .308 .773,
    ETH3D .065 .960 (AbsRel, delta 1).
    """
    return ablation(2).replace(name="marigold-depth", model={"protocol": MARIGOLD_NOISE})


def marigold_depth_v1_1() -> Recipe:
    """Marigold v1-1: a schedule with zero terminal SNR, and four denoising steps.

    The authors published no separate table; others measured NYUv2 .0577 with ensembles of ten.
    """
    return ablation(2).replace(name="marigold-depth-v1-1", model={"protocol": MARIGOLD_TRAILING})


def marigold_normals() -> Recipe:
    """Marigold's normals v1-1, at twice the learning rate.

    The authors mix Hypersim, InteriorVerse and Sintel, blur a third of the images and change the colours of a third;
    here it is Hypersim alone, mirrored.
    """
    return ablation(2).replace(
        name="marigold-normals",
        model={"protocol": MARIGOLD_TRAILING, "prompts": {"normals": ""}},
        data={"task_weights": {"normals": 1.0}, "sources": (HYPERSIM,)},
        optimizer={"lr": 6e-5},
    )


def end_to_end(task: str, losses: dict[str, float], name: str) -> Recipe:
    """Settings common to E2E-FT's four models: one step from zeros at the last time step, a loss on the decoded image.

    The empty prompt is padded to 77 tokens. Differences: the authors predict with the unpadded prompt of two tokens,
    here prediction pads too; they also halve the bias of the first layer when they double its input channels; they clip
    predictions before the loss.
    """
    return for_task(
        ablation(2),
        task,
        losses,
        name=name,
        model={"protocol": ZEROS, "gradient_checkpointing": True, "pad_prompts": True},
        optimizer={"decay_steps": 20000, "name": "adamw", "weight_decay": 0.01, "max_grad_norm": 1.0},
        loop={"steps": 20000, "precision": "fp32"},
    )


def e2e_ft_depth() -> Recipe:
    """E2E-FT from Stable Diffusion, depth, by the scale- and shift-invariant error.

    Published, AbsRel: KITTI .096, NYUv2 .054, ScanNet .058, DIODE .303, ETH3D .064.
    The authors align with depth in metres, this with depth normalised per image; both clip depth to its range.
    """
    return end_to_end("depth", {"ssi": 1.0}, "e2e-ft-depth")


def e2e_ft_marigold_depth() -> Recipe:
    """As `e2e_ft_depth`, from Marigold's weights.

    Published, AbsRel: KITTI .096, NYUv2 .052, ScanNet .058, DIODE .302, ETH3D .062.
    """
    return e2e_ft_depth().replace(
        name="e2e-ft-marigold-depth", model={"init_from": "prs-eth/marigold-depth-v1-0"}
    )


def e2e_ft_normals() -> Recipe:
    """E2E-FT from Stable Diffusion, normals, by the angular error.

    Published, mean angle: NYUv2 16.5, ScanNet 15.3, iBims-1 16.1, Sintel 33.5.
    The authors mix in VKITTI2 (10 %) with normals that they computed themselves; this is Hypersim alone.
    """
    return end_to_end("normals", {"angular": 1.0}, "e2e-ft-normals").replace(data={"sources": (HYPERSIM,)})


def e2e_ft_marigold_normals() -> Recipe:
    """As `e2e_ft_normals`, from Marigold's weights.

    Published, mean angle: NYUv2 16.2, ScanNet 14.7, iBims-1 15.8, Sintel 33.5.
    The authors start from an older GonzaloMG/marigold-normals.
    """
    return e2e_ft_normals().replace(
        name="e2e-ft-marigold-normals", model={"init_from": "prs-eth/marigold-normals-v0-1"}
    )


def lotus(protocol: OneStep, task: str, name: str) -> Recipe:
    """Settings common to Lotus' models: x0 prediction with the squared error of latents, at time step 999.

    The authors train on every image twice, for annotation and for reconstruction, selected by a class embedding
    ("detail preserver"); this trains the annotation only. They also sample image latents from the encoder's posterior
    in training; here only at inference.
    """
    vkitti = VKITTI.model_copy(update={"size": (375, 1242)})
    return ablation(16).replace(
        name=name,
        model={"protocol": protocol, "prompts": {task: ""}, "gradient_checkpointing": True},
        data={
            "task_weights": {task: 1.0},
            "size": (576, 768),
            "sources": (HYPERSIM, vkitti) if task != "normals" else (HYPERSIM,),
        },
        optimizer={
            "name": "adamw",
            "weight_decay": 0.01,
            "max_grad_norm": 1.0,
            "schedule": "constant",
            "warmup_steps": 0,
            "decay_steps": 0,
        },
        loop={"batch_size": 128, "steps": 20000, "seed": 42},
    )


def lotus_g_depth() -> Recipe:
    """Lotus-G v1-0, depth, from the image and noise. Published numbers were not checked."""
    return lotus(LOTUS_G, "depth", "lotus-g-depth")


def lotus_d_depth() -> Recipe:
    """Lotus-D v1-0, depth, from the image alone. Published numbers were not checked."""
    return lotus(LOTUS_D, "depth", "lotus-d-depth")


def lotus_g_disparity() -> Recipe:
    """Lotus-G v2: disparity between its 2 %-98 % quantiles, as in the released scripts. Numbers: not checked."""
    return lotus(LOTUS_G, "disparity", "lotus-g-disparity")


def lotus_d_disparity() -> Recipe:
    """Lotus-D v2: disparity between its 2 %-98 % quantiles, as in the released scripts. Numbers: not checked."""
    return lotus(LOTUS_D, "disparity", "lotus-d-disparity")


def lotus_g_normals() -> Recipe:
    """Lotus-G, normals. The authors mix in VKITTI2 (10 %) with normals that they computed. Numbers: not checked."""
    return lotus(LOTUS_G, "normals", "lotus-g-normals")


def lotus_d_normals() -> Recipe:
    """Lotus-D, normals; otherwise as `lotus_g_normals`."""
    return lotus(LOTUS_D, "normals", "lotus-d-normals")


def dmp(task: str) -> Recipe:
    """DMP: deterministic steps from the image to its labels, with LoRA of SD 1.4 and v-prediction.

    Settings of its README: 8 images per update, 50,000 updates, AdamW at 1e-4 with a cosine schedule without warm-up,
    weight decay 0.01, gradients clipped at 1, 512 pixels, rank 4, seed 42. Of its two kinds of checkpoint this is the
    one without text, whose empty prompt is padded to 77 tokens. The depth model is trained on Hypersim; the normals
    model is trained on images of 100 scenes generated by Stable Diffusion there, and on Hypersim here. The authors
    sample training latents from the encoder's posterior; here they are its mean.
    """
    protocol = MultiStep(
        steps=5, start="image", condition="replace", spacing="leading", final="prev", noise=Noise(),
        encode="sample",
    )  # fmt: skip
    return ablation(8).replace(
        name="dmp",
        model={
            "init_from": SD14,
            "protocol": protocol,
            "prompts": {task: ""},
            "pad_prompts": True,
            "unet": "lora",
            "lora": {"rank": 4},
        },
        data={"task_weights": {task: 1.0}, "size": (512, 512), "sources": (HYPERSIM,)},
        optimizer={
            "name": "adamw",
            "lr": 1e-4,
            "weight_decay": 0.01,
            "max_grad_norm": 1.0,
            "schedule": "cosine",
            "warmup_steps": 0,
            "decay_steps": 0,
            "final_lr_ratio": 0.0,
        },
        loop={"steps": 50000, "batch_size": 8, "seed": 42},
    )


def dmp_depth() -> Recipe:
    """DMP, depth in metres / 8, mirrored half the time.

    GenPercept's paper measured KITTI .240, NYUv2 .109, ScanNet .146, DIODE .361, ETH3D .128 (AbsRel).
    """
    return dmp("twofold.tasks.metric_depth:depth_8m").replace(name="dmp-depth")


def dmp_normals() -> Recipe:
    """DMP, normals, without mirroring. No comparable published numbers."""
    return dmp("normals").replace(name="dmp-normals", data={"hflip": False})
