"""Diff-2-in-1's data efficiency: ADE20K with 10 to 90 % of its pictures, with and without created ones.

    twofold train recipes/data_efficiency.py:segmentation_10
    twofold create data/ade20k --fraction 0.1 --select random --select-seed 42 --captioner HUB_ID \
        --model runs/diff2in1-segmentation-10/checkpoint --out data/ade20k-created-10
    twofold train recipes/data_efficiency.py:improved_10

The paper takes 2 to 18 thousand of 20 thousand pictures at random, 2 thousand at a time; its curve is not known to us,
nor its draws. Here a picture is used if it is among the first of a shuffle by seed 42, so that the 10 % are part of the
20 %, and ``twofold create`` with these options takes the pictures that were trained on. The others are not used at all.
Everything else is as in `diff2in1.segmentation` and `diff2in1.segmentation_second_stage`, the number of updates too:
whether the paper shortened training with the data is not known.
"""

from diff2in1 import segmentation, segmentation_second_stage

from twofold.train import Recipe, Source

SEED = 42


def part(percent: int) -> Source:
    """So many percent of ADE20K's training pictures, at random."""
    return Source(path="data/ade20k", fraction=percent / 100, selection="random", selection_seed=SEED)


def labelled(percent: int) -> Recipe:
    """VPD on a part of the pictures: what created ones are to better."""
    return segmentation().replace(name=f"diff2in1-segmentation-{percent}", data={"sources": (part(percent),)})


def improved(percent: int) -> Recipe:
    """The second stage on the same part, with one created picture of each."""
    created = Source(path=f"data/ade20k-created-{percent}", labels="teacher")
    return segmentation_second_stage().replace(
        name=f"diff2in1-segmentation-improved-{percent}",
        model={"init_from": f"runs/diff2in1-segmentation-{percent}/checkpoint"},
        data={"sources": (part(percent), created)},
    )


def segmentation_10() -> Recipe:
    """10 % of the labels. Published: a curve, whose numbers are not known to us."""
    return labelled(10)


def improved_10() -> Recipe:
    """10 % of the labels, and created pictures. Published: a curve, whose numbers are not known to us."""
    return improved(10)


def segmentation_20() -> Recipe:
    """20 % of the labels. Published: a curve, whose numbers are not known to us."""
    return labelled(20)


def improved_20() -> Recipe:
    """20 % of the labels, and created pictures. Published: a curve, whose numbers are not known to us."""
    return improved(20)


def segmentation_30() -> Recipe:
    """30 % of the labels. Published: a curve, whose numbers are not known to us."""
    return labelled(30)


def improved_30() -> Recipe:
    """30 % of the labels, and created pictures. Published: a curve, whose numbers are not known to us."""
    return improved(30)


def segmentation_40() -> Recipe:
    """40 % of the labels. Published: a curve, whose numbers are not known to us."""
    return labelled(40)


def improved_40() -> Recipe:
    """40 % of the labels, and created pictures. Published: a curve, whose numbers are not known to us."""
    return improved(40)


def segmentation_50() -> Recipe:
    """50 % of the labels. Published: a curve, whose numbers are not known to us."""
    return labelled(50)


def improved_50() -> Recipe:
    """50 % of the labels, and created pictures. Published: a curve, whose numbers are not known to us."""
    return improved(50)


def segmentation_60() -> Recipe:
    """60 % of the labels. Published: a curve, whose numbers are not known to us."""
    return labelled(60)


def improved_60() -> Recipe:
    """60 % of the labels, and created pictures. Published: a curve, whose numbers are not known to us."""
    return improved(60)


def segmentation_70() -> Recipe:
    """70 % of the labels. Published: a curve, whose numbers are not known to us."""
    return labelled(70)


def improved_70() -> Recipe:
    """70 % of the labels, and created pictures. Published: a curve, whose numbers are not known to us."""
    return improved(70)


def segmentation_80() -> Recipe:
    """80 % of the labels. Published: a curve, whose numbers are not known to us."""
    return labelled(80)


def improved_80() -> Recipe:
    """80 % of the labels, and created pictures. Published: a curve, whose numbers are not known to us."""
    return improved(80)


def segmentation_90() -> Recipe:
    """90 % of the labels. Published: a curve, whose numbers are not known to us."""
    return labelled(90)


def improved_90() -> Recipe:
    """90 % of the labels, and created pictures. Published: a curve, whose numbers are not known to us."""
    return improved(90)
