"""GenPercept's table 4: trained parts of the U-Net. Depth in one step, 480 x 640.

LoRA adapters are those of all attention layers (to_q, to_k, to_v, to_out), with alpha = rank. From rank 160 on they
have more parameters than the smallest of the matrices they are added to.
"""

from genpercept import ablation, for_task

from twofold.train import Recipe


def low_rank(rank: int) -> Recipe:
    """A row: LoRA of ``rank`` on a frozen U-Net, by the squared error of latents."""
    return ablation(2).replace(name=f"genpercept-lora-{rank}", model={"unet": "lora", "lora": {"rank": rank}})


def full() -> Recipe:
    """The whole U-Net.

    Published: KITTI .100 .902, NYUv2 .053 .966, ScanNet .059 .961, DIODE .309 .768, ETH3D .068 .956 (AbsRel, delta 1).
    """
    return ablation(16).replace(name="genpercept-full")


def frozen() -> Recipe:
    """A DPT head on the features of the frozen U-Net, by the squared error of its output.

    Published: KITTI .144 .803, NYUv2 .086 .931, ScanNet .097 .911, DIODE .309 .768, ETH3D .068 .956 (AbsRel, delta 1).
    The last four numbers are those of `full`, a mistake in the paper: those of DIODE and ETH3D are unknown.
    """
    return for_task(
        ablation(2),
        "depth",
        {"mse": 1.0},
        name="genpercept-frozen",
        model={"unet": "frozen", "head": {"name": "dpt", "lr": 3e-5}},
    )


def lora_4() -> Recipe:
    """LoRA of rank 4.

    Published: KITTI .211 .644, NYUv2 .095 .914, ScanNet .100 .902, DIODE .372 .689, ETH3D .121 .864 (AbsRel, delta 1).
    """
    return low_rank(4)


def lora_16() -> Recipe:
    """LoRA of rank 16.

    Published: KITTI .166 .746, NYUv2 .085 .931, ScanNet .087 .927, DIODE .352 .712, ETH3D .104 .901 (AbsRel, delta 1).
    """
    return low_rank(16)


def lora_64() -> Recipe:
    """LoRA of rank 64.

    Published: KITTI .138 .817, NYUv2 .077 .944, ScanNet .079 .940, DIODE .336 .734, ETH3D .089 .930 (AbsRel, delta 1).
    """
    return low_rank(64)


def lora_256() -> Recipe:
    """LoRA of rank 256.

    Published: KITTI .133 .827, NYUv2 .069 .952, ScanNet .073 .947, DIODE .325 .745, ETH3D .088 .933 (AbsRel, delta 1).
    """
    return low_rank(256)


def lora_1024() -> Recipe:
    """LoRA of rank 1024.

    Published: KITTI .125 .849, NYUv2 .067 .955, ScanNet .074 .947, DIODE .324 .747, ETH3D .084 .939 (AbsRel, delta 1).
    """
    return low_rank(1024)
