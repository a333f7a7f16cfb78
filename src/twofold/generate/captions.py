"""Captions of source images: the row's own text, a captioner's, or a template's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..sample import Sample
from .captioner import CaptionError, generate_captions

TEMPLATE = "a photograph"
CLASSES = "{classes}"
_MAX_CLASSES = 5


def get_caption(
    sample: Sample,
    template: str = TEMPLATE,
    name: str = "",
    device: str = "cpu",
    classes: Mapping[int, str] | Sequence[str] = (),
) -> tuple[str, str]:
    """An image's caption, and its source: ``row``, ``captioner:NAME`` or ``template:...``.

    Args:
        sample: its own caption comes first.
        template: caption of images without one; ``{classes}`` in it becomes the classes of the sample's ``semantic``
            target, the largest first, and needs ``classes``.
        name: of a captioner, in place of the template.
        device: of the captioner.
        classes: names of the ids of ``semantic``, by id.

    Raises:
        CaptionError: the captioner returned nothing, or no class of the sample has a name.
    """
    if str(sample.caption or "").strip():
        return str(sample.caption), "row"
    if name:
        return generate_captions([sample.image], [str(sample.id)], name, device)[0], f"captioner:{name}"
    if CLASSES not in template:
        return template, f"template:{template}"
    names = _largest_classes(sample, classes if isinstance(classes, Mapping) else dict(enumerate(classes)))
    if not names:
        missing = "no target 'semantic'" if "semantic" not in sample.targets else "no class with a name"
        raise CaptionError(
            f"the template {template!r} names classes, and {str(sample.id)!r} has {missing}; list 'classes' in the "
            "data's dataset.json, write a caption into the row ('text'), or use another template"
        )
    return template.replace(CLASSES, ", ".join(names)), f"template:{template}"


def _largest_classes(sample: Sample, classes: Mapping[int, str]) -> list[str]:
    """Names of the classes that cover most of a sample."""
    if "semantic" not in sample.targets:
        return []
    ids, counts = sample.targets["semantic"][sample.valid["semantic"]].long().unique(return_counts=True)
    order = sorted(zip((-counts).tolist(), ids.tolist(), strict=True))
    return [classes[i] for _, i in order if i in classes][:_MAX_CLASSES]
