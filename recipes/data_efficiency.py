"""Diff-2-in-1's data efficiency: ADE20K with 10 to 90 % of its images, with and without generated ones.

    twofold train recipes/data_efficiency.py:segmentation_10
    twofold create data/ade20k --fraction 0.1 --select random --select-seed 42 --captioner HUB_ID \
        --model runs/diff2in1-segmentation-10/checkpoint --out data/ade20k-created-10
    twofold train recipes/data_efficiency.py:improved_10

The paper draws 2 to 18 thousand of 20 thousand images at random, in increments of 2 thousand. It publishes neither the
draws nor the numbers of its curve. Here the images are shuffled with seed 42 and the first ones are used, so that the
10 % subset is part of the 20 % subset, and ``twofold create`` with these options selects the training images. The other
images are unused. All other settings are those of `diff2in1.segmentation` and `diff2in1.segmentation_second_stage`,
including the number of updates: whether the paper trains for fewer updates on less data is unknown.
"""

from diff2in1 import segmentation, segmentation_second_stage

from twofold.train import Recipe, Source

SEED = 42


def subset(percent: int) -> Source:
    """``percent`` % of ADE20K's training images, drawn at random with seed `SEED`."""
    return Source(path="data/ade20k", fraction=percent / 100, selection="random", selection_seed=SEED)


def labelled(percent: int) -> Recipe:
    """The baseline: VPD on a subset of the images."""
    return segmentation().replace(
        name=f"diff2in1-segmentation-{percent}", data={"sources": (subset(percent),)}
    )


def improved(percent: int) -> Recipe:
    """The second stage on the same subset, with one generated image per labelled one."""
    generated = Source(path=f"data/ade20k-created-{percent}", labels="teacher")
    return segmentation_second_stage().replace(
        name=f"diff2in1-segmentation-improved-{percent}",
        model={"init_from": f"runs/diff2in1-segmentation-{percent}/checkpoint"},
        data={"sources": (subset(percent), generated)},
    )


def segmentation_10() -> Recipe:
    """10 % of the labelled images. Published: a curve, without numbers."""
    return labelled(10)


def improved_10() -> Recipe:
    """10 % of the labelled images, and one generated image per labelled one. Published: a curve, without numbers."""
    return improved(10)


def segmentation_20() -> Recipe:
    """20 % of the labelled images. Published: a curve, without numbers."""
    return labelled(20)


def improved_20() -> Recipe:
    """20 % of the labelled images, and one generated image per labelled one. Published: a curve, without numbers."""
    return improved(20)


def segmentation_30() -> Recipe:
    """30 % of the labelled images. Published: a curve, without numbers."""
    return labelled(30)


def improved_30() -> Recipe:
    """30 % of the labelled images, and one generated image per labelled one. Published: a curve, without numbers."""
    return improved(30)


def segmentation_40() -> Recipe:
    """40 % of the labelled images. Published: a curve, without numbers."""
    return labelled(40)


def improved_40() -> Recipe:
    """40 % of the labelled images, and one generated image per labelled one. Published: a curve, without numbers."""
    return improved(40)


def segmentation_50() -> Recipe:
    """50 % of the labelled images. Published: a curve, without numbers."""
    return labelled(50)


def improved_50() -> Recipe:
    """50 % of the labelled images, and one generated image per labelled one. Published: a curve, without numbers."""
    return improved(50)


def segmentation_60() -> Recipe:
    """60 % of the labelled images. Published: a curve, without numbers."""
    return labelled(60)


def improved_60() -> Recipe:
    """60 % of the labelled images, and one generated image per labelled one. Published: a curve, without numbers."""
    return improved(60)


def segmentation_70() -> Recipe:
    """70 % of the labelled images. Published: a curve, without numbers."""
    return labelled(70)


def improved_70() -> Recipe:
    """70 % of the labelled images, and one generated image per labelled one. Published: a curve, without numbers."""
    return improved(70)


def segmentation_80() -> Recipe:
    """80 % of the labelled images. Published: a curve, without numbers."""
    return labelled(80)


def improved_80() -> Recipe:
    """80 % of the labelled images, and one generated image per labelled one. Published: a curve, without numbers."""
    return improved(80)


def segmentation_90() -> Recipe:
    """90 % of the labelled images. Published: a curve, without numbers."""
    return labelled(90)


def improved_90() -> Recipe:
    """90 % of the labelled images, and one generated image per labelled one. Published: a curve, without numbers."""
    return improved(90)
