"""Image-to-text networks of transformers: an image to a caption."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ..environment import quiet_libraries

# Asked of networks that follow instructions (a chat template beside the weights); captioners need no question.
QUESTION = "Describe the image in one sentence."
ENCODER_DECODER = "vision-encoder-decoder"


class CaptionError(ValueError):
    """An image that gets no caption. One line: which, why, and what to do."""


@dataclass(frozen=True)
class Captioner:
    """A network and what prepares its input and reads its output.

    Attributes:
        name: hub id or folder.
        network: of transformers, with ``generate``.
        images: images to tensors.
        text: token ids to text.
        chat: whether the network is asked by a chat template.
    """

    name: str
    network: Any
    images: Any
    text: Any
    chat: bool = False

    @torch.no_grad()
    def __call__(self, images: Sequence[Tensor], words: int = 40) -> list[str]:
        """A caption of each image ``3 h w`` in [0, 1]: by greedy search, so that the same image gives the same.

        Args:
            images: of any sizes.
            words: most tokens of a caption.
        """
        levels = [(x * 255).round().byte().permute(1, 2, 0).cpu().numpy() for x in images]
        shown: dict[str, Any] = {"images": levels, "return_tensors": "pt"}
        if self.chat:
            shown |= {"text": [self._question()] * len(levels), "padding": True}
        inputs = self.images(**shown).to(self.network.device)
        tokens = self.network.generate(**inputs, max_new_tokens=words, num_beams=1, do_sample=False)
        if self.chat:
            tokens = tokens[:, inputs["input_ids"].shape[1] :]
        return [" ".join(t.split()) for t in self.text.batch_decode(tokens, skip_special_tokens=True)]

    def _question(self) -> str:
        content = [{"type": "image"}, {"type": "text", "text": QUESTION}]
        return self.images.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )


@lru_cache(maxsize=1)
def open_captioner(name: str, device: str = "cpu") -> Captioner:
    """A captioner by hub id or folder: BLIP, BLIP-2, GIT, an image encoder with a text decoder (ViT-GPT2, in the manner
    of ClipCap), or any other network that transformers opens as image-to-text.

    Raises:
        ValueError: it cannot be opened.
    """
    try:
        with quiet_libraries():
            return _opened(name, device)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"the captioner {name!r} cannot be opened ({' '.join(str(error).split())[:160]}); give a folder or hub id "
            "of an image-to-text model of transformers, such as Salesforce/blip-image-captioning-base"
        ) from error


def _opened(name: str, device: str) -> Captioner:
    from transformers import (
        AutoConfig,
        AutoImageProcessor,
        AutoModelForImageTextToText,
        AutoProcessor,
        AutoTokenizer,
        VisionEncoderDecoderModel,
    )

    if AutoConfig.from_pretrained(name).model_type == ENCODER_DECODER:
        network = VisionEncoderDecoderModel.from_pretrained(name).to(device).eval()
        return Captioner(
            name, network, AutoImageProcessor.from_pretrained(name), AutoTokenizer.from_pretrained(name)
        )
    processor = AutoProcessor.from_pretrained(name)
    network = AutoModelForImageTextToText.from_pretrained(name).to(device).eval()
    return Captioner(name, network, processor, processor, bool(getattr(processor, "chat_template", None)))


def described(images: Sequence[Tensor], ids: Sequence[str], name: str, device: str = "cpu") -> list[str]:
    """A captioner's text for images ``3 h w`` called ``ids``.

    Raises:
        CaptionError: it returns nothing for one of them.
    """
    texts = open_captioner(name, device)(images)
    for id, text in zip(ids, texts, strict=True):
        if not text:
            raise CaptionError(
                f"the captioner {name} returned an empty caption for {id!r}; write a caption into its row ('text'), or "
                "use another captioner"
            )
    return texts
