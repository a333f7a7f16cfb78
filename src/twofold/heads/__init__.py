"""Heads: modules that map the network's output to an encoded target; see `Head`."""

import inspect
from typing import Any

from ..backbones.backbone import Backbone
from ..named_code import find_object, names_code
from ..suggest import did_you_mean, unknown
from .bae import BaeHead as BaeHead
from .dpt import DPTHead as DPTHead
from .fpn import FPNHead as FPNHead
from .group import HeadGroup as HeadGroup
from .head import Head as Head
from .keypoint import KeypointHead as KeypointHead
from .latent import LatentHead as LatentHead
from .light import LightHead as LightHead
from .multitask import MultiTaskHead as MultiTaskHead
from .pyramid import PyramidHead as PyramidHead
from .shared import find_shared as find_shared, share_modules as share_modules
from .upernet import UperNetHead as UperNetHead

# By the names that recipes and checkpoints use; the import of a head above registers it.
HEADS: dict[str, type[Head]] = {
    kind: head
    for head in tuple(globals().values())
    if isinstance(head, type) and issubclass(head, Head)
    for kind in vars(head).get("kinds", ())
}


def get_head(kind: str, trusted: bool = True) -> type[Head]:
    """The class of a head.

    Args:
        kind: one of `HEADS`, or ``package.module:Name`` for a class of the user's own.
        trusted: whether the user passed the name; a name from a file imports no module, see `named_code`.

    Raises:
        ValueError: no such head.
    """
    if kind in HEADS:
        return HEADS[kind]
    if not names_code(kind):
        raise ValueError(f"{unknown('head', kind, HEADS)}; or package.module:Name")
    found = find_object(kind, "head", type, trusted, f"import {kind.partition(':')[0]} first")
    if issubclass(found, Head):
        return found
    raise ValueError(f"{kind} is another class; expected a subclass of twofold.heads.Head")


def make_head(kind: str, backbone: Backbone, channels: int, **options: Any) -> Any:
    """A head for ``backbone`` with random weights from torch's global generator, which its dropout uses too.

    Args:
        kind: see `get_head`.
        backbone: whose features or latents it reads.
        channels: of the output, ``Task.out_channels``.
        options: arguments of the head's class that override the defaults for the backbone: ``width``,
            ``activation``, ``dropout`` and so on.

    Raises:
        ValueError: no such head, an option that it does not have, or channels that it does not support.
    """
    head = get_head(kind)
    parameters = inspect.signature(head.__init__).parameters
    strange = [name for name in options if name not in parameters]
    if strange:
        has = ", ".join(n for n in parameters if n not in ("self", "args", "kwargs")) or "none"
        hint = did_you_mean(strange[0], parameters)
        raise ValueError(f"a {kind} head has no option {strange[0]!r}{hint}; its options: {has}")
    return head.from_backbone(backbone, channels, **{**head.kind_options.get(kind, {}), **options})
