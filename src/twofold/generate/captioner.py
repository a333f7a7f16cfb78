"""Image captioning with image-to-text models of transformers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ..environment import quiet_libraries

# Prompt of instruction-following models (with a chat template beside the weights); captioners need none.
PROMPT = "Describe the image in one sentence."
ENCODER_DECODER = "vision-encoder-decoder"


class CaptionError(ValueError):
    """An image without a caption. One line: which image, why, and what to do."""


@dataclass(frozen=True)
class Captioner:
    """A network with its image processor and tokenizer.

    Attributes:
        name: hub id or folder.
        network: of transformers, with ``generate``.
        image_processor: images to tensors.
        tokenizer: token ids to text.
        chat: whether the prompt goes through a chat template.
    """

    name: str
    network: Any
    image_processor: Any
    tokenizer: Any
    chat: bool = False

    @torch.no_grad()
    def __call__(self, images: Sequence[Tensor], max_tokens: int = 40) -> list[str]:
        """A caption of each image ``3 h w`` in [0, 1], by greedy search, which is deterministic.

        Args:
            images: of any sizes.
            max_tokens: of a caption.
        """
        levels = [(x * 255).round().byte().permute(1, 2, 0).cpu().numpy() for x in images]
        arguments: dict[str, Any] = {"images": levels, "return_tensors": "pt"}
        if self.chat:
            arguments |= {"text": [self._prompt()] * len(levels), "padding": True}
        inputs = self.image_processor(**arguments).to(self.network.device)
        tokens = self.network.generate(**inputs, max_new_tokens=max_tokens, num_beams=1, do_sample=False)
        if self.chat:
            tokens = tokens[:, inputs["input_ids"].shape[1] :]
        return [" ".join(t.split()) for t in self.tokenizer.batch_decode(tokens, skip_special_tokens=True)]

    def _prompt(self) -> str:
        content = [{"type": "image"}, {"type": "text", "text": PROMPT}]
        return self.image_processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )


@lru_cache(maxsize=1)
def open_captioner(name: str, device: str = "cpu") -> Captioner:
    """A captioner by hub id or folder: BLIP, BLIP-2, GIT, an image encoder with a text decoder
    (such as ViT-GPT2), or any other model that transformers opens as image-to-text.

    Raises:
        ValueError: it cannot be opened.
    """
    try:
        with quiet_libraries():
            return _open(name, device)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"the captioner {name!r} cannot be opened ({' '.join(str(error).split())[:160]}); give a folder or hub id "
            "of an image-to-text model of transformers, such as Salesforce/blip-image-captioning-base"
        ) from error


def _open(name: str, device: str) -> Captioner:
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


def generate_captions(
    images: Sequence[Tensor], ids: Sequence[str], name: str, device: str = "cpu"
) -> list[str]:
    """Captions of images ``3 h w`` with these ``ids``.

    Raises:
        CaptionError: the captioner returns an empty text for one of them.
    """
    texts = open_captioner(name, device)(images)
    for id, text in zip(ids, texts, strict=True):
        if not text:
            raise CaptionError(
                f"the captioner {name} returned an empty caption for {id!r}; write a caption into its row ('text'), or "
                "use another captioner"
            )
    return texts
