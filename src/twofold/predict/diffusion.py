"""DiffusionPredictor: image in, dense map out. One backbone, one task, one protocol, one head."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from typing import Any, Literal

import torch
from pydantic import ValidationError
from torch import Tensor

from ..backbones.backbone import Backbone
from ..backbones.image_encoder import ImageFeatures
from ..ensemble import MERGES, Merged
from ..finite import clamp_finite, finite_per_image
from ..heads import Head, text_of
from ..image import pad_to_multiple
from ..image.resize import OutputResize
from ..protocols import DenoiserOutput, ModelInput, MultiStep, OneStep, reason
from ..tasks import Task
from .base import BasePredictor, Edge
from .prediction import SPACES


@dataclass(frozen=True)
class OutputConfig:
    """How a network was taught to be asked, and how its answer is to be read.

    Attributes:
        prompt: the text it is told; the task's own when None.
        pad: whether the prompt is filled up to the tokenizer's length (77), as some were trained.
        guidance: of the prompt over the empty one (Ho & Salimans 2022); 1 is none.
        space: what a map's numbers are; the task's own when empty.
        frame: that vectors are painted in; they leave as RUB.
        stretch: whether each image's answer is stretched to fill the range (E2E-FT, GenPercept's DPT head).
        clip: what is held in [-1, 1]: the ``mean`` of the decoded channels (of vectors, nothing), or all ``channels``
            before it (Lotus, and the published networks of normals but E2E-FT's); ``lower`` holds the mean above -1
            only, so that a map may exceed 1 (DMP's depth, of which 1 is 8 metres).
        part: which target of a network that answers several.
        image_features: whether the network gets the maps of its image encoder.
        resize: how maps are brought back to the input's size, see `image.resized_output`.
        odd_sizes: images whose sides are no multiples of the stride are extended to the next one, which the maps are
            cropped from (``pad``); or encoded as they are, so that the latent is rounded down and the map, up to a
            stride smaller than the image, is resized to it (``floor``, as the original programs do).
    """

    prompt: str | None = None
    pad: bool = False
    guidance: float = 1.0
    space: str = ""
    frame: Literal["RUB", "LUB", "RDF"] = "RUB"
    stretch: bool = False
    clip: Literal["mean", "channels", "lower"] = "mean"
    part: int = 0
    image_features: bool = False
    resize: OutputResize = "bilinear"
    odd_sizes: Literal["pad", "floor"] = "pad"


class DiffusionPredictor(BasePredictor):
    """A diffusion model asked one dense task.

    Args:
        backbone: the networks.
        task: what is asked.
        protocol: how the answer is reached.
        head: what reads it out, called as ``head(x0, features, backbone)``.
        reading: what else the network was taught with.
        size: longest edge images are brought to before they are shown; 0 leaves them as they are.
        about: facts to carry in every prediction's settings.
        ensemble: how many answers are drawn and merged when a call does not say.
        edge: which edge ``size`` is about; ``both`` squeezes every picture into a square, as some were trained.

    Raises:
        ValueError: the network is not shown as many channels as the protocol makes, its schedule lacks a time step of
            the protocol, or an ensemble is asked of a deterministic protocol.
    """

    def __init__(
        self,
        backbone: Backbone,
        task: Task,
        protocol: OneStep | MultiStep,
        head: Head,
        reading: OutputConfig = OutputConfig(),
        size: int = 0,
        about: Mapping[str, Any] | None = None,
        ensemble: int = 1,
        edge: Edge = "longest",
    ) -> None:
        super().__init__(task, size, about, edge, reading.space, reading.frame, reading.resize)
        _check_channels(backbone, protocol)
        _check_times(backbone, protocol)
        if reading.image_features and getattr(backbone, "image_adapter", None) is None:
            raise ValueError("image features are asked of a network that has no image encoder")
        if reading.stretch and task.out_channels != 1:
            raise ValueError(f"{task.name} is not one number a pixel, and cannot be stretched to its range")
        if reading.clip == "lower" and task.space not in SPACES:
            raise ValueError(
                f"clip='lower' is for distances, which {task.name} is not; use 'mean' or 'channels'"
            )
        if not 0 <= reading.part < protocol.num_outputs:
            raise ValueError(f"part {reading.part} of an answer with {protocol.num_outputs} part(s)")
        self.backbone, self.protocol, self.head, self.reading = backbone, protocol, head, reading
        self.ensemble = self._drawn(ensemble)
        self.prompt = task.prompt if reading.prompt is None else reading.prompt

    @property
    def _method(self) -> str:
        steps = getattr(self.protocol, "steps", 1)
        head = type(self.head).__name__
        return f"{steps} step{'s' if steps != 1 else ''} ({self.protocol.kind}), head={head}"

    @property
    def is_stochastic(self) -> bool:
        """Whether answers with other seeds are others."""
        return self.protocol.is_stochastic

    def look(self, query: ModelInput, image_features: ImageFeatures | None = None) -> DenoiserOutput:
        """Show the network a query and read its word as a clean latent; see `Backbone.image_features`."""
        taps = self.head.reads_features
        labels = None
        if self.protocol.class_labels is not None:
            numbers = torch.tensor(self.protocol.class_labels, device=query.x.device, dtype=query.x.dtype)
            labels = numbers.expand(len(query.x), -1)
        prompt = text_of(self.head, lambda: self.backbone.embed([self.prompt], self.reading.pad))
        text = prompt.expand(len(query.x), -1, -1)
        said = self.backbone(
            query.x, query.t, text, features=taps, class_labels=labels, image_features=image_features
        )
        word = said.prediction
        if self.reading.guidance != 1:
            empty = self.backbone.embed([""], self.reading.pad).expand(len(query.x), -1, -1)
            plain = self.backbone(
                query.x, query.t, empty, class_labels=labels, image_features=image_features
            ).prediction
            word = torch.lerp(plain, word, self.reading.guidance)
        return DenoiserOutput(query.to_x0(word), said.features)

    def canvases(self, images: Tensor, seed: int | Sequence[int] = 0) -> Tensor:
        """Images ``b 3 h w`` in [0, 1] to canvases of the same size; padded to the stride inside, not stretched."""
        return self.painted(*self._asked(images, seed))

    def paint(self, images: Tensor, seeds: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        """See `BasePredictor`: padded to the stride inside, not stretched."""
        return self.painted_surely(*self._asked(images, seeds))

    @torch.no_grad()
    def _asked(self, images: Tensor, seed: int | Sequence[int]) -> tuple[DenoiserOutput, tuple[int, int]]:
        padded, size = self._padded(images)
        seeds = [seed] * len(images) if isinstance(seed, int) else list(seed)
        rngs = [torch.Generator().manual_seed(s) for s in seeds]
        weights = next(self.backbone.parameters())
        drawn = rngs if self.protocol.encode == "sample" else None
        latent = self.backbone.encode((padded * 2 - 1).to(weights), drawn)
        maps = self.backbone.image_features(padded) if self.reading.image_features else None
        look = partial(self.look, image_features=maps)
        return self.protocol.sample(look, latent, rngs, self.backbone.schedule), size

    def _padded(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Images as they are encoded, and the size (height, width) that canvases are cut to."""
        height, width, stride = *images.shape[-2:], self.backbone.stride
        if self.reading.odd_sizes == "pad":
            return pad_to_multiple(images, stride)
        if min(height, width) < stride:
            raise ValueError(
                f"an image of {height}x{width} pixels is smaller than a latent cell of {stride}x{stride}, which "
                "odd_sizes='floor' leaves nothing of; use odd_sizes='pad', or a larger size"
            )
        return images, (height // stride * stride, width // stride * stride)

    def painted(self, answer: DenoiserOutput, size: tuple[int, int]) -> Tensor:
        """What the head makes of an answer: canvases ``b c h w`` on the CPU, cut to ``size`` (height, width)."""
        return self.painted_surely(answer, size)[0]

    @torch.no_grad()
    def painted_surely(self, answer: DenoiserOutput, size: tuple[int, int]) -> tuple[Tensor, Tensor | None]:
        """As `painted`, and how far off the head expects each pixel to be, ``b 1 h w``, where it says so."""
        h, w = size
        z = self.backbone.latent_channels
        x0 = answer.x0[:, self.reading.part * z : (self.reading.part + 1) * z]
        shown = x0, answer.features, self.backbone
        if self.head.has_uncertainty:
            said, doubt = self.head.forward_with_uncertainty(*shown)
        else:
            said, doubt = self.head(*shown), None
        canvas = self._in_range(said[..., :h, :w].float().cpu())
        # A head may turn infinite features into ordinary numbers; NaN keeps such an image recognisable.
        read = answer.features if self.head.reads_features else ()
        broken = ~finite_per_image(*(read or (x0,))).cpu()
        canvas = canvas.masked_fill(broken.reshape(-1, 1, 1, 1), float("nan"))
        return canvas, None if doubt is None else doubt[..., :h, :w].float().cpu()

    def _decode(self, canvas: Tensor) -> Tensor:
        """See `BasePredictor`; ``clip="lower"`` in place of the task's range."""
        if self.reading.clip == "lower":
            return (canvas.float().mean(1, keepdim=True).clamp(min=-1) + 1) / 2
        return super()._decode(canvas)

    def _in_range(self, canvas: Tensor) -> Tensor:
        if self.reading.clip == "channels":
            canvas = clamp_finite(canvas, -1, 1)
        if not self.reading.stretch:
            return canvas
        # What the decoder paints is held in range first; a head's numbers have no range but their own.
        taps = bool(self.head.reads_features)
        return stretched(
            canvas if taps else clamp_finite(canvas.mean(1, keepdim=True), -1, 1).expand_as(canvas)
        )

    def asked(
        self,
        ensemble: int | None = None,
        merge: str = "",
        frame: str = "",
        resize: OutputResize | None = None,
        odd_sizes: Literal["pad", "floor"] | None = None,
        **changes: Any,
    ) -> DiffusionPredictor:
        """The same networks, asked otherwise: ``asked(ensemble=10, steps=50)``.

        Args:
            ensemble: how many answers are drawn.
            merge: how they become one, in place of the task's own way: ``affine``, ``scale``, ``compat`` or ``median``
                for distances, ``closest`` or ``mean`` for vectors, ``median`` for anything else.
            frame: that maps of vectors leave in, in place of RUB.
            resize: how maps are brought back to the input's size; see `OutputConfig`, also for ``odd_sizes``.
            odd_sizes: ``floor`` is what the original programs do with sizes that are no multiples of the stride.
            changes: of the protocol's settings.

        Raises:
            ValueError: the protocol has no such setting or does not allow the value, or the task no such merging.
        """
        known = {f.name for f in fields(self.protocol)}
        for name in changes:
            if name not in known:
                raise ValueError(
                    f"this model is asked in {self.protocol.kind}; that has no {name!r} to change"
                )
        if "steps" in changes and getattr(self.protocol, "timesteps", None) is not None:
            changes = {"timesteps": None, **changes}
        try:
            protocol = replace(self.protocol, **changes)
        except ValidationError as error:
            raise ValueError(f"this model cannot be asked so: {reason(error)}") from None
        about = dict(self.about)
        if "protocol" in about:
            about["protocol"] = asdict(protocol)
        count = self.ensemble if ensemble is None else ensemble
        read = {k: v for k, v in (("resize", resize), ("odd_sizes", odd_sizes)) if v is not None}
        about |= {k: v for k, v in read.items() if k in about}
        reading = replace(self.reading, **read)
        made = DiffusionPredictor(
            self.backbone, self.task, protocol, self.head, reading, self.size, about, count, self.edge
        )
        made.merge, made.frame = self.merge, frame or self.frame
        if merge:
            made.merge = merging(merge, self.task)
            made.about["merge"] = merge
        return made


def merging(name: str, task: Task) -> Callable[[Tensor], Merged]:
    """The way of merging called ``name``.

    Raises:
        ValueError: it is not one for the task's kind of map.
    """
    if task.frame is not None:
        able = ("closest", "mean")
    else:
        able = ("affine", "scale", "compat", "median") if task.space in SPACES else ("median",)
    if name not in able:
        raise ValueError(f"an ensemble of {task.name} is merged by {' or '.join(able)}, not by {name!r}")
    return MERGES[name]


def stretched(canvas: Tensor) -> Tensor:
    """Each image of ``b c h w``, averaged over channels, from its own smallest and largest value to [-1, 1]."""
    grey = canvas.mean(1, keepdim=True)
    low, high = grey.amin((1, 2, 3), keepdim=True), grey.amax((1, 2, 3), keepdim=True)
    return ((grey - low) / (high - low).clamp(min=1e-8) * 2 - 1).expand_as(canvas)


def _check_channels(backbone: Backbone, protocol: OneStep | MultiStep) -> None:
    shown, taken = protocol.channels(backbone.latent_channels), backbone.input_channels
    if shown != taken:
        raise ValueError(
            f"the network takes {taken} channels, and this protocol shows it {shown} "
            f"(condition={protocol.condition!r}, parts={protocol.num_outputs}); they do not belong together"
        )


def _check_times(backbone: Backbone, protocol: OneStep | MultiStep) -> None:
    """Whether the schedule has every time step at which the protocol looks values up."""
    if isinstance(protocol, MultiStep):
        schedule = backbone.schedule if protocol.noise is None else protocol.noise.schedule
        times = [
            *protocol.times(schedule),
            *(() if protocol.train_timestep is None else (protocol.train_timestep,)),
        ]
    elif protocol.add_noise:
        schedule, times = backbone.schedule, [protocol.timestep]
    else:
        return
    last = schedule.steps if schedule.prediction_type == "flow" else schedule.steps - 1
    wrong = [t for t in times if not 0 <= t <= last]
    if wrong:
        raise ValueError(
            f"the protocol has the time step {wrong[0]}, and the schedule has those from 0 to {last}"
        )
