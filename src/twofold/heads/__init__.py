"""Heads map a network's output to an encoded target. A head is called as ``head(x0, features, backbone)``.

Optional attributes: ``reads_features``, the feature set that it reads (`backbones.feature_collector.FeatureSet`; True
by default); ``loss``, its own in place of its task's in training, as `BaeHead.loss`; ``with_uncertainty``, the output
with its expected error, as `BaeHead.with_uncertainty`; ``text``, embeddings in place of the prompt's, as
`FPNHead.text`; ``shares``, names of the modules shared with the heads of a run's other tasks, as
`MultiTaskHead.shares`, and ``shared_output``, the shared modules' output, so that `HeadGroup` runs them once.
"""

import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ..backbones.backbone import Backbone
from ..suggest import did_you_mean, unknown
from .bae import BaeHead
from .dpt import DPTHead
from .fpn import FPNHead
from .group import HeadGroup
from .keypoint import KeypointHead
from .latent import LatentHead
from .light import LightHead
from .multitask import MultiTaskHead
from .pyramid import PyramidHead
from .shared import share, shared_parts
from .upernet import UperNetHead

# By the names that recipes and checkpoints have for them. A checkpoint also holds the `config` of a head, so that
# ``HEADS[name](**config)`` is one of the same shape, with the same ending.
HEADS: dict[str, type[nn.Module]] = {
    "latent": LatentHead,
    "light": LightHead,
    "dpt": DPTHead,
    "dpt-relu": DPTHead,
    "dpt-elu": DPTHead,
    "upernet": UperNetHead,
    "keypoint": KeypointHead,
    "bae": BaeHead,
    "fpn": FPNHead,
    "multitask": MultiTaskHead,
    "pyramid": PyramidHead,
}

# What a name says beyond the class: that of GenPercept's first version is ``dpt-elu``.
OPTIONS: dict[str, dict[str, Any]] = {
    "dpt-relu": {"ending": "relu"},
    "dpt-elu": {"ending": "elu+1", "unused_first_residual": True},
}


def make_head(kind: str, backbone: Backbone, channels: int, **options: Any) -> Any:
    """A fresh head for ``backbone``; random through torch's global generator, in its weights and in dropout.

    Args:
        kind: one of `HEADS`.
        backbone: whose features or latents it reads.
        channels: that it paints, ``Task.outputs``: of the map, or its class logits.
        options: of the head's class, in place of what fits the backbone: ``width``, ``ending``, ``dropout`` and so on.

    Raises:
        ValueError: no head of that name, an option that it does not have, or channels that it cannot paint.
    """
    if kind not in HEADS:
        raise ValueError(unknown("head", kind, HEADS))
    made: Any = HEADS[kind]
    known = inspect.signature(made.__init__).parameters
    strange = [name for name in options if name not in known]
    if strange:
        has = ", ".join(n for n in known if n not in ("self", "args", "kwargs")) or "none"
        hint = did_you_mean(strange[0], known)
        raise ValueError(f"a {kind} head has no option {strange[0]!r}{hint}; its options: {has}")
    return made.from_backbone(backbone, channels, **{**OPTIONS.get(kind, {}), **options})


def text_of(head: nn.Module, prompt: Callable[[], Tensor]) -> Tensor:
    """What the network is told, ``1 n d``: a head's own words where it has any, else the embedded prompt."""
    own: Any = getattr(head, "text", None)
    said = None if own is None else own()
    return prompt() if said is None else said


__all__ = [
    "HEADS",
    "OPTIONS",
    "BaeHead",
    "DPTHead",
    "FPNHead",
    "HeadGroup",
    "KeypointHead",
    "LatentHead",
    "LightHead",
    "MultiTaskHead",
    "PyramidHead",
    "UperNetHead",
    "make_head",
    "share",
    "shared_parts",
    "text_of",
]
