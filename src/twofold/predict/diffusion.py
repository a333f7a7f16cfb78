"""DiffusionPredictor: predicts one task with a backbone, a protocol and a head."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from ..backbones.backbone import Backbone, Posterior
from ..backbones.image_encoder import ImageFeatures
from ..diffusion import guided
from ..heads import Head
from ..image import pad_to_multiple
from ..image.resize import OutputResize
from ..protocols import DenoiserOutput, ModelInput, MultiStep, OneStep, expand_class_labels, with_settings
from ..tasks import Task
from .base import BasePredictor
from .batching import Edge, ImageBatch
from .checks import check_channels, check_times, get_ensemble_fn
from .config import DEFAULT_CONFIG, OutputConfig, minmax_normalize
from .finite import clamp_finite, finite_per_image
from .prediction import SPACES


@dataclass(frozen=True)
class Conditioning:
    """The conditioning of the network at every denoising step.

    Attributes:
        prompt_embeds: ``1 n d``.
        negative_prompt_embeds: embedding of the empty prompt; None without guidance.
        image_features: maps of the image encoder; None for a network trained without them.
    """

    prompt_embeds: Tensor
    negative_prompt_embeds: Tensor | None = None
    image_features: ImageFeatures | None = None


class DiffusionPredictor(BasePredictor):
    """A diffusion model as a predictor of one dense task.

    Args:
        backbone: the networks.
        task: the task that is predicted.
        protocol: how the prediction is computed.
        head: maps the clean latent or the network's features to an encoded target.
        config: conditioning and output settings of the network.
        size: longest edge in pixels that images are resized to; 0 keeps their size.
        metadata: entries of every prediction's settings.
        ensemble: default number of predictions that are merged.
        edge: the edge that ``size`` refers to; ``both`` resizes every image to a square, as some networks were trained.

    Raises:
        ValueError: network and protocol differ in input channels, the schedule lacks a time step of the protocol, the
            config does not fit network, task or protocol, or an ensemble of a deterministic protocol.
    """

    def __init__(
        self,
        backbone: Backbone,
        task: Task,
        protocol: OneStep | MultiStep,
        head: Head,
        config: OutputConfig = DEFAULT_CONFIG,
        size: int = 0,
        metadata: Mapping[str, Any] | None = None,
        ensemble: int = 1,
        edge: Edge = "longest",
    ) -> None:
        super().__init__(task, size, metadata, edge, config)
        check_channels(backbone, protocol)
        check_times(backbone, protocol)
        if config.image_features and not backbone.has_image_encoder:
            raise ValueError("image_features is set, but the network has no image encoder")
        if config.minmax_normalize and task.out_channels != 1:
            raise ValueError(
                f"minmax_normalize is for tasks of one channel; {task.name} has {task.out_channels}"
            )
        if config.clip == "lower" and task.space not in SPACES:
            raise ValueError(
                f"clip='lower' is for distances, which {task.name} is not; use 'mean' or 'channels'"
            )
        if not 0 <= config.output_index < protocol.num_outputs:
            raise ValueError(
                f"output_index is {config.output_index}; expected 0 to {protocol.num_outputs - 1}, as the protocol "
                f"has num_outputs={protocol.num_outputs}"
            )
        self.backbone, self.protocol, self.head = backbone, protocol, head
        self.ensemble = self._check_ensemble_size(ensemble)
        self.prompt = task.prompt if config.prompt is None else config.prompt

    @property
    def _method(self) -> str:
        steps = self.protocol.steps if isinstance(self.protocol, MultiStep) else 1
        head = type(self.head).__name__
        return f"{steps} step{'s' if steps != 1 else ''} ({self.protocol.kind}), head={head}"

    @property
    def is_stochastic(self) -> bool:
        """Whether the prediction depends on the seed."""
        return self.protocol.is_stochastic

    def conditioning(
        self,
        image_features: ImageFeatures | None = None,
        embed: Callable[[Backbone, str, bool], Tensor] | None = None,
    ) -> Conditioning:
        """The conditioning of every denoising step.

        Args:
            image_features: maps of the image encoder.
            embed: ``(backbone, prompt, pad)`` -> ``1 n d``, to use cached embeddings.
        """
        embed = embed or (lambda backbone, prompt, pad: backbone.embed([prompt], pad))
        own = self.head.prompt_embeds()
        prompt = embed(self.backbone, self.prompt, self.config.pad) if own is None else own
        negative = embed(self.backbone, "", self.config.pad) if self.config.guidance != 1 else None
        return Conditioning(prompt, negative, image_features)

    def denoise(self, model_input: ModelInput, conditioning: Conditioning | None = None) -> DenoiserOutput:
        """One forward pass (two with guidance): the clean latent and the features; see `protocols.DenoiseFn`."""
        conditioning = conditioning or self.conditioning()
        count = len(model_input.x)
        network = partial(
            self.backbone,
            model_input.x,
            model_input.t,
            class_labels=expand_class_labels(self.protocol.class_labels, model_input.x),
            image_features=conditioning.image_features,
        )
        features: tuple[Tensor, ...] = ()

        def conditional() -> Tensor:
            nonlocal features
            prompt = conditioning.prompt_embeds.expand(count, -1, -1)
            output = network(text=prompt, features=self.head.reads_features)
            features = output.features
            return output.prediction

        def unconditional() -> Tensor:
            assert conditioning.negative_prompt_embeds is not None
            return network(text=conditioning.negative_prompt_embeds.expand(count, -1, -1)).prediction

        prediction = guided(conditional, unconditional, self.config.guidance)()
        return DenoiserOutput(model_input.to_x0(prediction), features)

    def predict_images(self, images: Tensor, seed: int | Sequence[int] = 0) -> Tensor:
        """Network outputs ``b c h w`` on the CPU for images ``b 3 h w`` in [0, 1], before they are decoded to maps."""
        seeds = [seed] * len(images) if isinstance(seed, int) else seed
        return self.predict_raw(ImageBatch(list(images)), range(len(images)), seeds)[0]

    @torch.no_grad()
    def predict_raw(
        self, inputs: ImageBatch, index: Sequence[int], seeds: Sequence[int]
    ) -> tuple[Tensor, Tensor | None]:
        """See `BasePredictor.predict_raw`; images are padded to the stride, not resized to it."""
        size = self._output_size(*inputs.shape)
        if self.protocol.is_stochastic or self.head.has_prompts:
            return self.decode_output(self._sample(inputs, index, seeds), size)
        # Tasks that differ in the head alone, as the embedded model's do, share the network's output.
        config = self.config.odd_sizes, self.config.pad, self.config.guidance, self.config.image_features
        key = id(self.backbone), self.prompt, config, self.protocol, self.head.reads_features, tuple(index)
        output: DenoiserOutput = inputs.cached(key, lambda: self._sample(inputs, index, seeds))
        shared: list[Tensor] | None = None
        if self.head.has_shared_output:
            shared = inputs.cached(
                (self.head.shared_ids, key),
                lambda: self.head.shared_output(output.features, self.backbone),
            )
        return self.decode_output(output, size, shared)

    def _sample(self, inputs: ImageBatch, index: Sequence[int], seeds: Sequence[int]) -> DenoiserOutput:
        """The protocol's output for the images at ``index``; all images are encoded at the first call."""
        backbone, key = self.backbone, (id(self.backbone), self.config.odd_sizes)

        def encode() -> Posterior:
            weights = next(backbone.parameters())
            return backbone.posterior((self._pad(inputs.images) * 2 - 1).to(weights))

        posterior: Posterior = inputs.cached(("posterior", *key), encode)
        features: ImageFeatures | None = None
        if self.config.image_features:
            found: ImageFeatures = inputs.cached(
                ("image features", *key), lambda: backbone.image_features(self._pad(inputs.images)) or ()
            )
            features = tuple(x[list(index)] for x in found)
        rngs = [torch.Generator().manual_seed(s) for s in seeds]
        latent = posterior.select(index).latent(rngs if self.protocol.encode == "sample" else None)
        denoise = partial(self.denoise, conditioning=self.conditioning(features, inputs.embed))
        return self.protocol.sample(denoise, latent, rngs, backbone.schedule)

    def _pad(self, images: Tensor) -> Tensor:
        """Images padded for encoding."""
        return pad_to_multiple(images, self.backbone.stride)[0] if self.config.odd_sizes == "pad" else images

    def _output_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width that the output of an image of ``height`` and ``width`` is cropped to."""
        stride = self.backbone.stride
        if self.config.odd_sizes == "pad":
            return height, width
        if min(height, width) < stride:
            raise ValueError(
                f"an image of {height}x{width} pixels is smaller than a latent cell of {stride}x{stride}, so with "
                "odd_sizes='floor' its latent is empty; use odd_sizes='pad', or a larger size"
            )
        return height // stride * stride, width // stride * stride

    @torch.no_grad()
    def decode_output(
        self, output: DenoiserOutput, size: tuple[int, int], shared: Sequence[Tensor] | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """The head's output ``b c h w`` on the CPU, cropped to ``size`` (height, width), and its expected error.

        ``shared`` is `Head.shared_output`, if it is computed already. The error is ``b 1 h w``, or None for a head
        that predicts none.
        """
        h, w = size
        z = self.backbone.latent_channels
        x0 = output.x0[:, self.config.output_index * z : (self.config.output_index + 1) * z]
        if self.head.has_uncertainty:
            decoded, uncertainty = self.head.forward_with_uncertainty(x0, output.features, self.backbone)
        else:
            options = {} if shared is None else {"shared": shared}
            decoded, uncertainty = self.head(x0, output.features, self.backbone, **options), None
        decoded = self._to_range(decoded[..., :h, :w].float().cpu().contiguous())
        # A head may turn infinite features into finite numbers: fill such images with NaN, so that they are detected.
        read = output.features if self.head.reads_features else ()
        broken = ~finite_per_image(*(read or (x0,))).cpu()
        decoded = decoded.masked_fill(broken.reshape(-1, 1, 1, 1), float("nan"))
        return decoded, None if uncertainty is None else uncertainty[..., :h, :w].float().cpu()

    def _to_range(self, output: Tensor) -> Tensor:
        if self.config.clip == "channels":
            output = clamp_finite(output, -1, 1)
        if not self.config.minmax_normalize:
            return output
        # Decoded images are clipped first; the outputs of a head on features have no fixed range.
        if self.head.reads_features:
            return minmax_normalize(output)
        return minmax_normalize(clamp_finite(output.mean(1, keepdim=True), -1, 1).expand_as(output))

    def with_options(
        self,
        ensemble: int | None = None,
        merge: str = "",
        frame: str = "",
        resize: OutputResize | None = None,
        odd_sizes: Literal["pad", "floor"] | None = None,
        **changes: Any,
    ) -> DiffusionPredictor:
        """The same networks with other options: ``with_options(ensemble=10, steps=50)``.

        Args:
            ensemble: number of predictions that are merged.
            merge: how they are merged instead of the task's default: ``affine``, ``scale``, ``compat`` or ``median``
                for distances, ``closest`` or ``mean`` for vectors, ``median`` for other maps.
            frame: frame of the vectors of a map, instead of RUB.
            resize: how maps are resized to the input's size; see `OutputConfig`.
            odd_sizes: see `OutputConfig`.
            changes: settings of the protocol to change.

        Raises:
            ValueError: the protocol has no such setting or does not allow the value, or the merging does not apply to
                the task.
        """
        protocol = with_settings(self.protocol, changes)
        metadata = dict(self.metadata)
        if "protocol" in metadata:
            metadata["protocol"] = asdict(protocol)
        count = self.ensemble if ensemble is None else ensemble
        options = {k: v for k, v in (("resize", resize), ("odd_sizes", odd_sizes)) if v is not None}
        metadata |= {k: v for k, v in options.items() if k in metadata}
        config = self.config.model_copy(update=options)
        made = DiffusionPredictor(
            self.backbone, self.task, protocol, self.head, config, self.size, metadata, count, self.edge
        )
        made.merge, made.frame = self.merge, frame or self.frame
        if merge:
            made.merge = get_ensemble_fn(merge, self.task)
            made.metadata["merge"] = merge
        return made
