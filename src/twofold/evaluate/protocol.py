"""An evaluation protocol as a record: valid pixels, alignment, metrics, average and input size."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from ..io import sha256_text
from ..named_code import names_code

Align = Literal[
    "none", "affine", "disparity", "sqrt_disparity", "log_depth", "scale", "median", "moments", "l1"
]

# Fields that do not affect the scores.
_DESCRIPTIVE = ("title", "source", "notes")


class EvaluationError(ValueError):
    """An evaluation is not possible. The message is one line: what was found, where, and what to do."""


@dataclass(frozen=True)
class EvalProtocol:
    """One way to score predictions; two scores are comparable if their protocols are equal.

    A benchmark sets the fields that its data determines (`valid_range`, `crop`, `clip`, `size` and others). A record
    whose change changes a score gets another `version`; a test compares the fingerprints of released records.

    Attributes:
        name: name, such as ``depth/marigold-ls``.
        version: version of the record; every result has ``name@version``.
        title: description in one line.
        target: key of ``Sample.targets``.
        spaces: quantities of predictions (``Task.space``) that it scores, such as ``depth`` or ``disparity``.
        align: how the depth of each image is aligned before it is scored: a name of `metrics.ALIGNMENTS`, or of a task
            that aligns in its own space.
        metrics: each ``family.name`` of `twofold.metrics`, or the user's own as ``package.module:NAME``; examples are
            ranked by the first.
        average: whether the metrics are averaged over ``images`` or ``pixels``, or computed from the whole ``set``.
        valid_range: range in metres; truth is valid strictly between its bounds.
        window: name of the window in `WINDOWS` that image and truth are cropped to before prediction.
        crop: name of the region in `metrics.CROPS` in which truth is valid.
        clip: range in metres that an aligned prediction is clipped to.
        fit_columns: number of columns (with all rows) that alignment uses of maps whose longer edge has more pixels;
            0 uses all.
        size: longest edge of a model's input; 0 is the size of each image, None the model's default.
        seed: random seed of a stochastic model.
        classes: number of classes, for class ids; 0 for that in the header of the data.
        ignore: class ids of the truth that are invalid.
        source: publication of the protocol.
        notes: remarks for the report.
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
        """All fields that affect the scores, as JSON values; infinity is a string."""
        fields = {key: value for key, value in asdict(self).items() if key not in _DESCRIPTIVE}
        return json.loads(json.dumps(_to_json_value(fields)))

    @property
    def fingerprint(self) -> str:
        """A hash of the settings."""
        return sha256_text(json.dumps(self.settings, sort_keys=True))[:12]

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


def _to_json_value(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _to_json_value(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_to_json_value(v) for v in value]
    return str(value) if value in (float("inf"), float("-inf")) else value
