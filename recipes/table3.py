"""GenPercept's table 3: the prompt and the time step of the network. Depth by latents, 480 x 640.

The released files use micro-batches of two in all rows but the first, which has sixteen.
"""

from genpercept import ablation

from twofold.protocols import OneStep
from twofold.train import Recipe


def conditioned(name: str, prompt: str = "", **protocol: object) -> Recipe:
    """A row: another prompt, or other time steps (arguments of `OneStep`)."""
    one_step = OneStep(**{"timestep": 1, "train_timesteps": "random", **protocol})
    return ablation(2).replace(
        name=f"genpercept-{name}", model={"prompts": {"depth": prompt}, "protocol": one_step}
    )


def baseline() -> Recipe:
    """The empty prompt; random time steps in training, 1 at inference.

    Published: KITTI .100 .902, NYUv2 .053 .966, ScanNet .059 .961, DIODE .309 .768, ETH3D .068 .956 (AbsRel, delta 1).
    """
    return ablation(16).replace(name="genpercept-empty-prompt")


def prompt_sensible() -> Recipe:
    """A prompt that describes the input: "A high quality RGB image".

    Published: KITTI .101 .900, NYUv2 .053 .967, ScanNet .058 .964, DIODE .312 .762, ETH3D .070 .954 (AbsRel, delta 1).
    """
    return conditioned("prompt-sensible", "A high quality RGB image")


def prompt_random() -> Recipe:
    """A prompt of random characters.

    Published: KITTI .099 .904, NYUv2 .054 .965, ScanNet .059 .963, DIODE .311 .763, ETH3D .069 .955 (AbsRel, delta 1).
    """
    return conditioned("prompt-random", "F3@qV!k2*#Zp^n%1Lz")


def time_step_1() -> Recipe:
    """Time step 1 in training and at inference.

    Published: KITTI .100 .906, NYUv2 .054 .965, ScanNet .060 .961, DIODE .304 .769, ETH3D .069 .956 (AbsRel, delta 1).
    """
    return conditioned("time-step-1", timestep=1, train_timesteps="same")


def time_step_500() -> Recipe:
    """Time step 500 in training and at inference.

    Published: KITTI .102 .897, NYUv2 .053 .966, ScanNet .059 .961, DIODE .307 .765, ETH3D .068 .956 (AbsRel, delta 1).
    """
    return conditioned("time-step-500", timestep=500, train_timesteps="same")


def time_step_900() -> Recipe:
    """Time step 900 in training and at inference.

    Published: KITTI .105 .891, NYUv2 .054 .966, ScanNet .058 .964, DIODE .309 .762, ETH3D .068 .953 (AbsRel, delta 1).
    """
    return conditioned("time-step-900", timestep=900, train_timesteps="same")
