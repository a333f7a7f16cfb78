"""Training as the methods that twofold reads were trained: Marigold, E2E-FT, Lotus, DMP.

Values are those of their released scripts where there are any; what this trainer does otherwise is in the docstrings
and in docs/recipes.md. All but DMP begin from the copy of Stable Diffusion 2.1 that `genpercept.py` names, the authors
from SD 2 (Marigold, E2E-FT) and SD 2 base (Lotus): ``--set model.init_from=OWNER/NAME`` changes it. DMP begins from SD
1.4. Half floats are bf16 here, fp16 there.
"""

from genpercept import HYPERSIM, VKITTI, ablation, taught

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
    """Marigold v1-0: depth by walks from noise into which coarser noise is mixed.

    Published, ensembles of ten, 50 steps: KITTI .099 .916, NYUv2 .055 .964, ScanNet .064 .951, DIODE .308 .773,
    ETH3D .065 .960 (AbsRel, delta 1).
    """
    return ablation(2).replace(name="marigold-depth", model={"protocol": MARIGOLD_NOISE})


def marigold_depth_v1_1() -> Recipe:
    """Marigold v1-1: its schedule ends in pure noise, and four steps are enough.

    Its authors published no table of it alone; others measured NYUv2 .0577 with ensembles of ten.
    """
    return ablation(2).replace(name="marigold-depth-v1-1", model={"protocol": MARIGOLD_TRAILING})


def marigold_normals() -> Recipe:
    """Marigold's normals v1-1, at twice the rate.

    The authors mix Hypersim, InteriorVerse and Sintel and blur and colour a third of the pictures each; here it is
    Hypersim alone, mirrored.
    """
    return ablation(2).replace(
        name="marigold-normals",
        model={"protocol": MARIGOLD_TRAILING, "prompts": {"normals": ""}},
        data={"task_weights": {"normals": 1.0}, "sources": (HYPERSIM,)},
        optimizer={"lr": 6e-5},
    )


def end_to_end(task: str, losses: dict[str, float], name: str) -> Recipe:
    """What E2E-FT's four models share: one step beside zeros at the last time step, with a loss on the decoded image.

    The empty prompt is filled up to 77 tokens. The authors then ask with two of them; this asks as it was taught. Where
    the first layer is doubled they halve its bias as well. Their answers are clipped before they are judged.
    """
    return taught(
        ablation(2),
        task,
        losses,
        name=name,
        model={"protocol": ZEROS, "gradient_checkpointing": True, "pad_prompts": True},
        optimizer={"decay_steps": 20000, "name": "adamw", "weight_decay": 0.01, "max_grad_norm": 1.0},
        loop={"steps": 20000, "precision": "fp32"},
    )


def e2e_ft_depth() -> Recipe:
    """E2E-FT from Stable Diffusion, depth, by the error up to scale and shift.

    Published, AbsRel: KITTI .096, NYUv2 .054, ScanNet .058, DIODE .303, ETH3D .064.
    The authors fit to metres, this to the range of the picture, beyond which both hold depth.
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
    """E2E-FT from Stable Diffusion, normals, by the angle.

    Published, mean angle: NYUv2 16.5, ScanNet 15.3, iBims-1 16.1, Sintel 33.5.
    The authors mix in VKITTI2 (10 %) with normals of their own making; this is Hypersim alone.
    """
    return end_to_end("normals", {"angular": 1.0}, "e2e-ft-normals").replace(data={"sources": (HYPERSIM,)})


def e2e_ft_marigold_normals() -> Recipe:
    """As `e2e_ft_normals`, from Marigold's weights.

    Published, mean angle: NYUv2 16.2, ScanNet 14.7, iBims-1 15.8, Sintel 33.5.
    The authors began from an older GonzaloMG/marigold-normals.
    """
    return e2e_ft_normals().replace(
        name="e2e-ft-marigold-normals", model={"init_from": "prs-eth/marigold-normals-v0-1"}
    )


def lotus(protocol: OneStep, task: str, name: str) -> Recipe:
    """What Lotus' models share: x0 prediction with the squared error of latents, at time step 999.

    The authors train on every image twice, for annotation and for reconstruction, selected by a class
    embedding ("detail preserver"); this teaches the annotation alone. They also draw the latents of pictures from
    the encoder's posterior in training; here that is done in use only.
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
    """Lotus-G v1-0, depth, with noise beside the image. Its numbers were not checked here."""
    return lotus(LOTUS_G, "depth", "lotus-g-depth")


def lotus_d_depth() -> Recipe:
    """Lotus-D v1-0, depth, of the image alone. Its numbers were not checked here."""
    return lotus(LOTUS_D, "depth", "lotus-d-depth")


def lotus_g_disparity() -> Recipe:
    """Lotus-G v2: disparity between its 2 %-98 % quantiles, as the released scripts train. Numbers: not checked."""
    return lotus(LOTUS_G, "disparity", "lotus-g-disparity")


def lotus_d_disparity() -> Recipe:
    """Lotus-D v2: disparity between its 2 %-98 % quantiles, as the released scripts train. Numbers: not checked."""
    return lotus(LOTUS_D, "disparity", "lotus-d-disparity")


def lotus_g_normals() -> Recipe:
    """Lotus-G, normals. The authors mix in VKITTI2 (10 %) with normals of their own making. Numbers: not checked."""
    return lotus(LOTUS_G, "normals", "lotus-g-normals")


def lotus_d_normals() -> Recipe:
    """Lotus-D, normals. Otherwise as `lotus_g_normals`."""
    return lotus(LOTUS_D, "normals", "lotus-d-normals")


def dmp(task: str) -> Recipe:
    """DMP: deterministic steps from the image to its labels by low-rank additions to SD 1.4, which predict v.

    As its README publishes it: 8 images an update, 50,000 updates, AdamW at 1e-4 along a cosine without warm-up,
    weight decay 0.01, gradients clipped at 1, 512 pixels, rank 4, seed 42. Of its two kinds of checkpoint this is the
    one without text, whose empty prompt is padded to 77 tokens; that of depth learns from Hypersim, that of normals
    from 100 scenes of images drawn by Stable Diffusion, for which Hypersim stands here. The authors draw latents from
    the encoder's posterior, here they are its mean.
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
    """DMP, normals, never mirrored. No comparable numbers are known to us."""
    return dmp("normals").replace(name="dmp-normals", data={"hflip": False})
