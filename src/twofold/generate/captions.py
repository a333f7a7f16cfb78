"""Captions of source images: the row's own text, a captioner's, or a template's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..sample import Sample
from .captioner import CaptionError, described

TEMPLATE = "a photograph"
CLASSES = "{classes}"
_MOST_CLASSES = 5


def caption_of(
    sample: Sample,
    template: str = TEMPLATE,
    name: str = "",
    device: str = "cpu",
    classes: Mapping[int, str] | Sequence[str] = (),
) -> tuple[str, str]:
    """An image's caption, and where it comes from: ``row``, ``captioner:NAME`` or ``template:...``.

    Args:
        sample: its own caption comes first.
        template: said of pictures without a caption; ``{classes}`` in it becomes the classes of the sample's
            ``semantic`` target, the largest first, and needs ``classes``.
        name: of a captioner, in the template's place.
        device: that the captioner runs on.
        classes: names of the ids of ``semantic``, by id.

    Raises:
        CaptionError: the captioner returned nothing, or no class of the sample has a name.
    """
    if str(sample.caption or "").strip():
        return str(sample.caption), "row"
    if name:
        return described([sample.image], [str(sample.id)], name, device)[0], f"captioner:{name}"
    if CLASSES not in template:
        return template, f"template:{template}"
    named = _largest(sample, classes if isinstance(classes, Mapping) else dict(enumerate(classes)))
    if not named:
        missing = "no target 'semantic'" if "semantic" not in sample.targets else "no class with a name"
        raise CaptionError(
            f"the template {template!r} names classes, and {str(sample.id)!r} has {missing}; list 'classes' in the "
            "data's dataset.json, write a caption into the row ('text'), or use another template"
        )
    return template.replace(CLASSES, ", ".join(named)), f"template:{template}"


def _largest(sample: Sample, classes: Mapping[int, str]) -> list[str]:
    """Names of the classes that cover most of a sample."""
    if "semantic" not in sample.targets:
        return []
    ids, counts = sample.targets["semantic"][sample.valid["semantic"]].long().unique(return_counts=True)
    order = sorted(zip((-counts).tolist(), ids.tolist(), strict=True))
    return [classes[i] for _, i in order if i in classes][:_MOST_CLASSES]
