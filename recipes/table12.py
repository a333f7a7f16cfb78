"""GenPercept's table 12: the amount of data. Depth by latents, 480 x 640; the same fraction of both data sets.

No files were released, so the authors' selection of images is unknown. Here it is evenly spaced over each data set.
"""

from genpercept import ablation

from twofold.train import Recipe


def with_fraction(name: str, fraction: float) -> Recipe:
    """A row: ``fraction`` of the images, for the same number of updates."""
    baseline = ablation(16)
    sources = tuple(s.model_copy(update={"fraction": fraction}) for s in baseline.data.sources)
    return baseline.replace(name=f"genpercept-{name}", data={"sources": sources})


def data_90k() -> Recipe:
    """All 90 thousand images.

    Published: KITTI .100 .902, NYUv2 .053 .966, ScanNet .059 .961, DIODE .309 .768, ETH3D .068 .956 (AbsRel, delta 1).
    """
    return with_fraction("data-90k", 1.0)


def data_45k() -> Recipe:
    """Half of the images.

    Published: KITTI .101 .902, NYUv2 .056 .964, ScanNet .058 .963, DIODE .311 .764, ETH3D .070 .955 (AbsRel, delta 1).
    """
    return with_fraction("data-45k", 0.5)


def data_22k() -> Recipe:
    """A quarter of the images.

    Published: KITTI .109 .884, NYUv2 .056 .963, ScanNet .059 .963, DIODE .322 .754, ETH3D .073 .950 (AbsRel, delta 1).
    """
    return with_fraction("data-22k", 0.25)


def data_11k() -> Recipe:
    """An eighth of the images.

    Published: KITTI .117 .866, NYUv2 .060 .962, ScanNet .065 .957, DIODE .324 .753, ETH3D .076 .943 (AbsRel, delta 1).
    """
    return with_fraction("data-11k", 0.125)


def data_6k() -> Recipe:
    """A sixteenth of the images.

    Published: KITTI .117 .868, NYUv2 .063 .958, ScanNet .068 .952, DIODE .331 .744, ETH3D .084 .932 (AbsRel, delta 1).
    """
    return with_fraction("data-6k", 0.0625)
