"""GenPercept's table 2: pretrained parts and losses. Depth in one step, 480 x 640."""

from genpercept import DISTANCES, ablation, for_task

from twofold.train import Recipe


def baseline() -> Recipe:
    """The squared error of latents: GenPercept's baseline.

    Published: KITTI .100 .902, NYUv2 .053 .966, ScanNet .059 .961, DIODE .309 .768, ETH3D .068 .956 (AbsRel, delta 1).
    """
    return ablation(16).replace(name="genpercept-latent-mse")


def unet_from_scratch() -> Recipe:
    """A U-Net with random weights in place of Stable Diffusion's.

    Published: KITTI .219 .650, NYUv2 .186 .736, ScanNet .183 .729, DIODE .426 .614, ETH3D .185 .741 (AbsRel, delta 1).
    """
    return ablation(2).replace(name="genpercept-unet-from-scratch", model={"reset": ("unet",)})


def decoder_from_scratch() -> Recipe:
    """A decoder with random weights, trained with the U-Net by the squared error of the decoded map.

    Published: KITTI .096 .916, NYUv2 .055 .964, ScanNet .058 .964, DIODE .302 .759, ETH3D .071 .950 (AbsRel, delta 1).
    The released code ignores the switch in its file, so the published row is `decoder_as_released`.
    """
    return for_task(
        ablation(4),
        "depth",
        {"mse": 1.0},
        name="genpercept-decoder-from-scratch",
        model={"reset": ("decoder",), "decoder": "full", "head": {"lr": 3e-5}},
    )


def decoder_as_released() -> Recipe:
    """As `decoder_from_scratch` was actually trained: the pretrained decoder, fine-tuned.

    Published: KITTI .096 .916, NYUv2 .055 .964, ScanNet .058 .964, DIODE .302 .759, ETH3D .071 .950 (AbsRel, delta 1).
    """
    return decoder_from_scratch().replace(name="genpercept-decoder-tuned", model={"reset": ()})


def image_mse() -> Recipe:
    """The squared error of the decoded map, with a frozen decoder.

    Published: KITTI .097 .915, NYUv2 .054 .964, ScanNet .059 .964, DIODE .305 .760, ETH3D .071 .953 (AbsRel, delta 1).
    """
    return for_task(ablation(8), "depth", {"mse": 1.0}, name="genpercept-image-mse")


def image_mse_ssi_gradient() -> Recipe:
    """Plus the scale- and shift-invariant loss and the gradient loss: `genpercept.py:depth`.

    Published: KITTI .094 .923, NYUv2 .052 .966, ScanNet .056 .965, DIODE .302 .767, ETH3D .066 .967 (AbsRel, delta 1).
    Table 6 prints .957 as the last number.
    """
    return for_task(ablation(8), "depth", DISTANCES, name="genpercept-image-mse-ssi-gradient")


def dpt_from_scratch() -> Recipe:
    """A DPT head in place of the decoder, by the squared error of its output.

    Published: KITTI .099 .912, NYUv2 .055 .964, ScanNet .058 .963, DIODE .302 .759, ETH3D .069 .956 (AbsRel, delta 1).
    """
    return for_task(
        ablation(16),
        "depth",
        {"mse": 1.0},
        name="genpercept-dpt",
        model={"head": {"name": "dpt", "lr": 3e-5}},
    )
