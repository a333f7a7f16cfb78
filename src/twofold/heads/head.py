"""The contract of a head: a module that maps the network's output to an encoded target."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from ..backbones.backbone import Backbone
from ..backbones.feature_collector import FeatureSet


class Head(nn.Module, abc.ABC):
    """Maps the clean latent and the network's features to an encoded target of the image's size.

    ``Head(**head.config)`` is a head of the same shape, which is how checkpoints store one: `config` holds the
    arguments of ``__init__`` as JSON values, and those arguments have type annotations.

    Attributes:
        kinds: names in recipes and checkpoints.
        kind_options: options that some of these names imply.
        reads_features: the set of features that `forward` reads; False for a head that reads the latent.
        shared_modules: names of submodules that the heads of a run's other tasks share, as one module.
        has_shared_output: whether `shared_output` is defined, which `HeadGroup` computes once for all tasks.
        training_options: names in `config` that matter in training only, and may change when training continues.
        has_loss: whether `loss` replaces the task's losses in training.
        has_uncertainty: whether `forward_with_uncertainty` is defined.
        has_prompts: whether `prompt_embeds` replaces the embedding of the task's prompt.
        config: arguments of ``__init__``.
    """

    kinds: tuple[str, ...] = ()
    kind_options: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    reads_features: FeatureSet = True
    shared_modules: tuple[str, ...] = ()
    has_shared_output: bool = False
    training_options: tuple[str, ...] = ()
    has_loss: bool = False
    has_uncertainty: bool = False
    has_prompts: bool = False
    config: dict[str, Any]

    def __init__(self) -> None:
        super().__init__()
        self.config = {}

    @classmethod
    def from_backbone(cls, backbone: Backbone, channels: int, **options: Any) -> Self:
        """A head with random weights for the features of ``backbone``.

        Args:
            backbone: the model whose features or latents the head reads.
            channels: output channels, ``Task.out_channels``.
            options: arguments of ``__init__`` that override the defaults for the backbone.

        Raises:
            ValueError: a number of channels or a backbone that this head does not support.
            NotImplementedError: the class does not define it, so recipes cannot create this head.
        """
        raise NotImplementedError(
            f"{cls.__name__} defines no from_backbone, which is needed to create it from a recipe"
        )

    @abc.abstractmethod
    def forward(self, x0: Tensor, features: tuple[Tensor, ...], backbone: Backbone) -> Tensor:
        """The encoded target ``b c h*stride w*stride``.

        Args:
            x0: the clean latent ``b z h w``.
            features: the maps of `reads_features`, as `Output.features`.
            backbone: the model that computed them.
        """

    @property
    def shared_ids(self) -> tuple[int, ...]:
        """Identities of the shared modules: heads with the same ones have the same `shared_output`."""
        return tuple(id(self.get_submodule(name)) for name in self.shared_modules)

    def shared_output(self, features: tuple[Tensor, ...], backbone: Backbone) -> list[Tensor]:
        """The output of the shared modules for ``features``, which `forward` takes as ``shared``."""
        raise NotImplementedError(f"{type(self).__name__} has no shared output")

    def loss(
        self,
        x0: Tensor,
        features: tuple[Tensor, ...],
        backbone: Backbone,
        target: Tensor,
        mask: Tensor,
        rngs: Sequence[torch.Generator],
    ) -> dict[str, Tensor]:
        """The head's own losses by name, ``b`` each, to be summed.

        Args:
            x0: as of `forward`.
            features: as of `forward`.
            backbone: as of `forward`.
            target: the encoded target ``b c H W``.
            mask: ``b 1 H W`` bool, where the target is valid.
            rngs: one per image, for random choices.
        """
        raise NotImplementedError(f"{type(self).__name__} has no loss of its own")

    def forward_with_uncertainty(
        self, x0: Tensor, features: tuple[Tensor, ...], backbone: Backbone
    ) -> tuple[Tensor, Tensor]:
        """`forward`, and the expected error of each pixel, ``b 1 h*stride w*stride``."""
        raise NotImplementedError(f"{type(self).__name__} predicts no uncertainty")

    def prompt_embeds(self) -> Tensor | None:
        """Embeddings ``1 n d`` in place of the task's prompt; None to use the prompt."""
        return None

    def set_training_options(self, config: Mapping[str, Any]) -> None:
        """Take over `training_options` from another head's ``config``."""
        self.config |= {name: config[name] for name in self.training_options}
