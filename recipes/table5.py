"""GenPercept's table 5: rendered data against measured data. Depth by latents, 480 x 640, 90 % and 10 %."""

from genpercept import ablation

from twofold.train import Recipe, Source


def hypersim_vkitti() -> Recipe:
    """Rendered: Hypersim (50 thousand images) and Virtual KITTI 2 (40 thousand).

    Published: KITTI .100 .902, NYUv2 .053 .966, ScanNet .059 .961, DIODE .309 .768, ETH3D .068 .956 (AbsRel, delta 1).
    """
    return ablation(16).replace(name="genpercept-rendered")


def taskonomy_cityscapes() -> Recipe:
    """Measured: Taskonomy (50 thousand images) and Cityscapes (40 thousand).

    Published: KITTI .123 .857, NYUv2 .055 .966, ScanNet .062 .958, DIODE .293 .762, ETH3D .074 .947 (AbsRel, delta 1).
    The selection of images was not published. A smoke test has one data set and is therefore the baseline.
    """
    sources = (Source(path="data/taskonomy", share=0.9), Source(path="data/cityscapes-depth", share=0.1))
    return ablation(2).replace(name="genpercept-measured", data={"sources": sources})
