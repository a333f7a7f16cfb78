"""What the network is told of a picture: the row's own text, a captioner's, or a template's."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch

from ..sample import Sample

TEMPLATE = "a photograph"
CLASSES = "{classes}"
_MOST_CLASSES = 5


@lru_cache(maxsize=1)
def captioner(name: str, device: str) -> Any:
    """The processor and the network of a captioner: by hub id or folder.

    Raises:
        ValueError: it cannot be had.
    """
    from transformers import AutoModelForImageTextToText, AutoProcessor

    try:
        processor = AutoProcessor.from_pretrained(name)
        network = AutoModelForImageTextToText.from_pretrained(name).to(device).eval()
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"the captioner {name!r} cannot be opened ({' '.join(str(error).split())[:160]}); give a folder or hub id "
            "of BLIP or BLIP-2, such as Salesforce/blip-image-captioning-base"
        ) from error
    return processor, network


@torch.no_grad()
def described(sample: Sample, name: str, device: str = "cpu", words: int = 40) -> str:
    """A captioner's text for a picture: greedy, so that the same picture gives the same."""
    processor, network = captioner(name, device)
    levels = (sample.image * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    asked = processor(images=levels, return_tensors="pt").to(device)
    tokens = network.generate(**asked, max_new_tokens=words, num_beams=1, do_sample=False)
    return " ".join(processor.batch_decode(tokens, skip_special_tokens=True)[0].split())


def caption_of(
    sample: Sample, template: str = TEMPLATE, name: str = "", device: str = "cpu", classes: Sequence[str] = ()
) -> tuple[str, str]:
    """A picture's caption, and where it comes from: ``row``, ``captioner:NAME`` or ``template:...``.

    Args:
        sample: its own caption comes first.
        template: said of pictures without a caption; ``{classes}`` in it becomes the classes of the sample's
            ``semantic`` target, the largest first, and needs ``classes``.
        name: of a captioner, in the template's place.
        device: that the captioner runs on.
        classes: names of the ids of ``semantic``.
    """
    if sample.caption:
        return str(sample.caption), "row"
    if name:
        return described(sample, name, device), f"captioner:{name}"
    if CLASSES not in template:
        return template, f"template:{template}"
    return template.replace(CLASSES, ", ".join(_largest(sample, classes)) or "things"), f"template:{template}"


def _largest(sample: Sample, classes: Sequence[str]) -> list[str]:
    """Names of the classes that cover most of a sample."""
    if "semantic" not in sample.targets:
        return []
    ids, counts = sample.targets["semantic"][sample.valid["semantic"]].long().unique(return_counts=True)
    order = sorted(zip((-counts).tolist(), ids.tolist(), strict=True))[:_MOST_CLASSES]
    return [classes[i] for _, i in order if i < len(classes)]
