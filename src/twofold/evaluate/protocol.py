"""An evaluation protocol as a value: valid pixels, alignment, metrics, average and input size."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from ..io import sha256_text
from ..named_code import names_code

Align = Literal[
    "none", "affine", "disparity", "sqrt_disparity", "log_depth", "scale", "median", "moments", "l1"
]

# Fields that decide no number.
_DESCRIPTIVE = ("title", "source", "notes")


class EvaluationError(ValueError):
    """An evaluation that is not possible. One line: what was found, where, and what to do."""


@dataclass(frozen=True)
class EvalProtocol:
    """One way to score predictions; two numbers are comparable when their protocols are equal.

    A benchmark sets the fields that its data determines (`valid_range`, `crop`, `clip`, `size` and others). A record
    that changes a number gets another `version`; a test compares the fingerprints of released records.

    Attributes:
        name: such as ``depth/marigold-ls``.
        version: of the record; every result has ``name@version``.
        title: one line.
        target: as in ``Sample.targets``.
        spaces: of predictions (``Task.space``) that it scores.
        align: how depth is aligned before it is scored, image by image: a name of `metrics.ALIGNMENTS`, or of a task
            that aligns in its own space.
        metrics: ``family.name`` of `twofold.metrics`, or ``package.module:NAME`` of one's own; examples are ordered by
            the first.
        average: of the metrics: over ``images``, over ``pixels``, or over the whole ``set``.
        valid_range: in metres; truth is valid strictly between.
        window: that image and truth are cropped to before prediction: a name of `WINDOWS`.
        crop: where truth is valid: a name of `metrics.CROPS`.
        clip: range in metres that an aligned prediction is clipped to.
        fit_columns: alignment uses maps decimated to this many columns (all rows) where their longer edge has more
            pixels; 0 uses all.
        size: longest edge of a model's input; 0 is the image's own, None the model's.
        seed: of a stochastic model.
        classes: number of classes, of ids; 0 for that of the data's header.
        ignore: ids of the truth that are invalid.
        source: its publication.
        notes: for the report.
    """

    name: str
    version: int
    title: str
    target: str
    spaces: tuple[str, ...]
    metrics: tuple[str, ...]
    align: Align = "none"
    average: Literal["images", "pixels", "set"] = "images"
    valid_range: tuple[float, float] | None = None
    window: str = ""
    crop: str = ""
    clip: tuple[float, float] | None = None
    fit_columns: int = 0
    size: int | None = None
    seed: int = 0
    classes: int = 0
    ignore: tuple[int, ...] = ()
    source: str = ""
    notes: str = ""

    @property
    def id(self) -> str:
        """Name and version."""
        return f"{self.name}@{self.version}"

    @property
    def settings(self) -> dict[str, Any]:
        """All fields that decide a number, as JSON values; infinity is a string."""
        fields = {key: value for key, value in asdict(self).items() if key not in _DESCRIPTIVE}
        return json.loads(json.dumps(_plain(fields)))

    @property
    def fingerprint(self) -> str:
        """A hash of the settings."""
        text = json.dumps(self.settings, sort_keys=True)
        return sha256_text(text)[:12]

    @property
    def names(self) -> tuple[str, ...]:
        """The metrics' names, without family or module."""
        return tuple(metric.partition(":" if names_code(metric) else ".")[2] for metric in self.metrics)

    @property
    def uses_8bit_vectors(self) -> bool:
        """Whether vectors are scored after quantization to 8 bits (`metrics.quirks`)."""
        return all(name.endswith("_of_bytes") for name in self.names)

    def with_rules(self, **rules: Any) -> EvalProtocol:
        """The same protocol with fields that a data set determines, such as `valid_range`, `crop`, `clip`, `size`."""
        return replace(self, **rules)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return str(value) if value in (float("inf"), float("-inf")) else value
