"""GenPercept's table 1: from diffusion to one step, by the noise and its schedule.

All rows are depth by the squared error of latents. The network's input is the image and Gaussian noise (``gaussian``;
``gaussian_multires`` with multi-resolution noise), as in Marigold, or the image used as the noise (``rgb_noise``), as
in DMP. Betas increase up to (1, 1), where only noise is left: then ten steps are bit-identical to one, and
``rgb_noise_beta_1`` is GenPercept. Names contain the last beta.

The two rows before the last of each block break the factor of four: 0.0136 and 0.0544 were probably intended as first
betas, but the paper and the released files have the printed values. Which of the two Gaussian blocks has
multi-resolution noise is inferred from their numbers and from Marigold's ablation.

Settings of the paper: 480 x 640, 30000 updates of 32 examples, micro-batches of two of one data set (16 in the last
row).
"""

from genpercept import ablation

from twofold.protocols import MultiStep, Noise, OneStep
from twofold.train import Recipe


def multi_step(
    name: str, start: float, end: float, image_as_noise: bool, multires: bool = False, steps: int = 10
) -> Recipe:
    """A row of the table.

    Args:
        name: of the run.
        start: first beta.
        end: last beta.
        image_as_noise: whether the image is used as the noise.
        multires: whether the noise is multi-resolution noise.
        steps: denoising steps at inference; training does not depend on them.
    """
    protocol = MultiStep(
        steps=steps,
        start="image" if image_as_noise else "gaussian",
        condition="replace" if image_as_noise else "concat",
        noise=Noise(start, end),
        spacing="leading",
        final="x0",
        noise_strategy="original" if multires else None,
    )
    return ablation(2).replace(name=f"genpercept-{name.replace('_', '-')}", model={"protocol": protocol})


def gaussian_multires_beta_0_003() -> Recipe:
    """Multi-resolution Gaussian noise, betas (0.0002125, 0.003), ten steps.

    Published: KITTI .358 .462, NYUv2 .297 .555, ScanNet .246 .625, DIODE .494 .565, ETH3D .267 .640 (AbsRel, delta 1).
    """
    return multi_step("gaussian_multires_beta_0_003", 0.0002125, 0.003, image_as_noise=False, multires=True)


def gaussian_multires_beta_0_006() -> Recipe:
    """Multi-resolution Gaussian noise, betas (0.000425, 0.006), ten steps.

    Published: KITTI .122 .854, NYUv2 .106 .887, ScanNet .136 .829, DIODE .345 .716, ETH3D .086 .927 (AbsRel, delta 1).
    """
    return multi_step("gaussian_multires_beta_0_006", 0.000425, 0.006, image_as_noise=False, multires=True)


def gaussian_multires_beta_0_012() -> Recipe:
    """Multi-resolution Gaussian noise, betas (0.00085, 0.012), ten steps.

    Published: KITTI .099 .909, NYUv2 .063 .956, ScanNet .075 .937, DIODE .316 .764, ETH3D .075 .947 (AbsRel, delta 1).
    This is Marigold.
    """
    return multi_step("gaussian_multires_beta_0_012", 0.00085, 0.012, image_as_noise=False, multires=True)


def gaussian_multires_beta_0_048() -> Recipe:
    """Multi-resolution Gaussian noise, betas (0.0034, 0.048), ten steps.

    Published: KITTI .100 .906, NYUv2 .057 .963, ScanNet .063 .957, DIODE .308 .768, ETH3D .074 .948 (AbsRel, delta 1).
    """
    return multi_step("gaussian_multires_beta_0_048", 0.0034, 0.048, image_as_noise=False, multires=True)


def gaussian_multires_beta_0_192() -> Recipe:
    """Multi-resolution Gaussian noise, betas (0.136, 0.192), ten steps.

    Published: KITTI .119 .861, NYUv2 .058 .963, ScanNet .061 .961, DIODE .315 .760, ETH3D .073 .950 (AbsRel, delta 1).
    """
    return multi_step("gaussian_multires_beta_0_192", 0.136, 0.192, image_as_noise=False, multires=True)


def gaussian_multires_beta_0_768() -> Recipe:
    """Multi-resolution Gaussian noise, betas (0.544, 0.768), ten steps.

    Published: KITTI .124 .852, NYUv2 .060 .961, ScanNet .064 .958, DIODE .322 .749, ETH3D .079 .943 (AbsRel, delta 1).
    """
    return multi_step("gaussian_multires_beta_0_768", 0.544, 0.768, image_as_noise=False, multires=True)


def gaussian_multires_beta_1() -> Recipe:
    """Multi-resolution Gaussian noise, betas (1, 1), ten steps.

    Published: KITTI .104 .897, NYUv2 .055 .965, ScanNet .059 .962, DIODE .312 .762, ETH3D .069 .955 (AbsRel, delta 1).
    """
    return multi_step("gaussian_multires_beta_1", 1, 1, image_as_noise=False, multires=True)


def gaussian_multires_beta_1_in_one() -> Recipe:
    """Multi-resolution Gaussian noise, betas (1, 1), one step.

    Published: KITTI .104 .897, NYUv2 .055 .965, ScanNet .059 .962, DIODE .312 .762, ETH3D .069 .955 (AbsRel, delta 1).
    The weights and numbers are those of ten steps.
    """
    return multi_step("gaussian_multires_beta_1_in_one", 1, 1, image_as_noise=False, multires=True, steps=1)


def gaussian_beta_0_003() -> Recipe:
    """Gaussian noise, betas (0.0002125, 0.003), ten steps.

    Published: KITTI .587 .255, NYUv2 .337 .490, ScanNet .257 .604, DIODE .600 .469, ETH3D .372 .503 (AbsRel, delta 1).
    """
    return multi_step("gaussian_beta_0_003", 0.0002125, 0.003, image_as_noise=False)


def gaussian_beta_0_006() -> Recipe:
    """Gaussian noise, betas (0.000425, 0.006), ten steps.

    Published: KITTI .536 .289, NYUv2 .313 .527, ScanNet .248 .621, DIODE .565 .499, ETH3D .328 .575 (AbsRel, delta 1).
    """
    return multi_step("gaussian_beta_0_006", 0.000425, 0.006, image_as_noise=False)


def gaussian_beta_0_012() -> Recipe:
    """Gaussian noise, betas (0.00085, 0.012), ten steps.

    Published: KITTI .153 .807, NYUv2 .162 .802, ScanNet .187 .737, DIODE .411 .641, ETH3D .157 .826 (AbsRel, delta 1).
    """
    return multi_step("gaussian_beta_0_012", 0.00085, 0.012, image_as_noise=False)


def gaussian_beta_0_048() -> Recipe:
    """Gaussian noise, betas (0.0034, 0.048), ten steps.

    Published: KITTI .101 .907, NYUv2 .058 .963, ScanNet .066 .954, DIODE .309 .765, ETH3D .074 .950 (AbsRel, delta 1).
    """
    return multi_step("gaussian_beta_0_048", 0.0034, 0.048, image_as_noise=False)


def gaussian_beta_0_192() -> Recipe:
    """Gaussian noise, betas (0.136, 0.192), ten steps.

    Published: KITTI .115 .870, NYUv2 .056 .965, ScanNet .060 .961, DIODE .313 .763, ETH3D .072 .953 (AbsRel, delta 1).
    """
    return multi_step("gaussian_beta_0_192", 0.136, 0.192, image_as_noise=False)


def gaussian_beta_0_768() -> Recipe:
    """Gaussian noise, betas (0.544, 0.768), ten steps.

    Published: KITTI .124 .848, NYUv2 .059 .963, ScanNet .063 .958, DIODE .318 .752, ETH3D .077 .946 (AbsRel, delta 1).
    """
    return multi_step("gaussian_beta_0_768", 0.544, 0.768, image_as_noise=False)


def gaussian_beta_1() -> Recipe:
    """Gaussian noise, betas (1, 1), ten steps.

    Published: KITTI .102 .901, NYUv2 .054 .966, ScanNet .059 .962, DIODE .312 .762, ETH3D .071 .955 (AbsRel, delta 1).
    """
    return multi_step("gaussian_beta_1", 1, 1, image_as_noise=False)


def gaussian_beta_1_in_one() -> Recipe:
    """Gaussian noise, betas (1, 1), one step.

    Published: KITTI .102 .901, NYUv2 .054 .966, ScanNet .059 .962, DIODE .312 .762, ETH3D .071 .955 (AbsRel, delta 1).
    The weights and numbers are those of ten steps.
    """
    return multi_step("gaussian_beta_1_in_one", 1, 1, image_as_noise=False, steps=1)


def rgb_noise_beta_0_003() -> Recipe:
    """The image as the noise, betas (0.0002125, 0.003), ten steps.

    Published: KITTI .476 .336, NYUv2 .267 .601, ScanNet .216 .677, DIODE .457 .588, ETH3D .185 .757 (AbsRel, delta 1).
    """
    return multi_step("rgb_noise_beta_0_003", 0.0002125, 0.003, image_as_noise=True)


def rgb_noise_beta_0_006() -> Recipe:
    """The image as the noise, betas (0.000425, 0.006), ten steps.

    Published: KITTI .265 .630, NYUv2 .201 .072, ScanNet .195 .717, DIODE .386 .674, ETH3D .116 .880 (AbsRel, delta 1).
    The .072 is a misprint, probably for .7xx.
    """
    return multi_step("rgb_noise_beta_0_006", 0.000425, 0.006, image_as_noise=True)


def rgb_noise_beta_0_012() -> Recipe:
    """The image as the noise, betas (0.00085, 0.012), ten steps.

    Published: KITTI .134 .837, NYUv2 .117 .871, ScanNet .147 .808, DIODE .353 .721, ETH3D .093 .919 (AbsRel, delta 1).
    This is DMP with a fully trained U-Net.
    """
    return multi_step("rgb_noise_beta_0_012", 0.00085, 0.012, image_as_noise=True)


def rgb_noise_beta_0_048() -> Recipe:
    """The image as the noise, betas (0.0034, 0.048), ten steps.

    Published: KITTI .107 .890, NYUv2 .077 .939, ScanNet .087 .923, DIODE .318 .766, ETH3D .078 .940 (AbsRel, delta 1).
    """
    return multi_step("rgb_noise_beta_0_048", 0.0034, 0.048, image_as_noise=True)


def rgb_noise_beta_0_192() -> Recipe:
    """The image as the noise, betas (0.136, 0.192), ten steps.

    Published: KITTI .107 .890, NYUv2 .063 .959, ScanNet .068 .955, DIODE .305 .773, ETH3D .073 .948 (AbsRel, delta 1).
    """
    return multi_step("rgb_noise_beta_0_192", 0.136, 0.192, image_as_noise=True)


def rgb_noise_beta_0_768() -> Recipe:
    """The image as the noise, betas (0.544, 0.768), ten steps.

    Published: KITTI .106 .897, NYUv2 .061 .959, ScanNet .066 .952, DIODE .309 .768, ETH3D .075 .945 (AbsRel, delta 1).
    """
    return multi_step("rgb_noise_beta_0_768", 0.544, 0.768, image_as_noise=True)


def rgb_noise_beta_1() -> Recipe:
    """The image as the noise, betas (1, 1), ten steps.

    Published: KITTI .100 .902, NYUv2 .053 .966, ScanNet .059 .961, DIODE .309 .768, ETH3D .068 .956 (AbsRel, delta 1).
    """
    return multi_step("rgb_noise_beta_1", 1, 1, image_as_noise=True)


def rgb_noise_beta_1_in_one() -> Recipe:
    """GenPercept: one denoising step on the image, and the baseline of all ablations.

    Published: KITTI .100 .902, NYUv2 .053 .966, ScanNet .059 .961, DIODE .309 .768, ETH3D .068 .956 (AbsRel, delta 1).
    The same function of the same weights as `rgb_noise_beta_1`, without a schedule; micro-batches of sixteen.
    """
    return ablation(16).replace(
        name="genpercept-one-step", model={"protocol": OneStep(train_timesteps="random")}
    )
