"""What a published evaluation pins, as a value: which pixels, which fit, which average, which size."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from ..named_code import names_code

Align = Literal[
    "none", "affine", "disparity", "sqrt_disparity", "log_depth", "scale", "median", "moments", "l1"
]

# Say where a record comes from; they decide no number.
_WORDS = ("title", "source", "notes")


class EvaluationError(ValueError):
    """An evaluation that cannot be done as asked. One line: what was found, where, and the way out."""


@dataclass(frozen=True)
class EvalProtocol:
    """One way to score predictions, frozen: two numbers are comparable when their protocols are equal.

    A benchmark fills in what its data decides (`valid_range`, `crop`, `clip`, `size` and the like). When a record
    changes a number, its `version` rises; a test holds every record against its fingerprint.

    Attributes:
        name: such as ``depth/marigold-ls``.
        version: of the record; ``name@version`` stands beside every result.
        title: in words.
        target: as in ``Sample.targets``.
        spaces: what the numbers of a prediction may be (``Task.space``).
        align: how depth is fitted before it is measured, image by image: a name of `metrics.ALIGNMENTS`, or
            of a task that fits in its own space.
        metrics: ``family.name`` of `twofold.metrics`, or ``package.module:NAME`` of one's own; examples are ordered by
            the first.
        average: how numbers of pixels become one, in words: over ``images``, ``pixels``, or the whole ``set``.
        valid_range: metres; truth counts strictly between.
        window: of image and truth, cut out before anything is predicted: a name of `WINDOWS`.
        crop: where truth counts: a name of `metrics.CROPS`.
        clip: metres that an aligned prediction is held in.
        fit_columns: the fit sees every map decimated to so many columns (rows are kept), where its longer edge has
            more pixels; 0 for all of them.
        size: longest edge a model is shown; 0 is the picture's own, None the model's.
        seed: of whatever is random in a model.
        classes: how many, of ids; 0 for what the data's header says.
        ignore: ids of the truth that do not count.
        source: where it is published.
        notes: what one has to know.
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
        """All that decides a number, as JSON values; infinity is a word there."""
        said = {key: value for key, value in asdict(self).items() if key not in _WORDS}
        return json.loads(json.dumps(_plain(said)))

    @property
    def fingerprint(self) -> str:
        """Of the settings: equal for equal ways to score."""
        text = json.dumps(self.settings, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def names(self) -> tuple[str, ...]:
        """The metrics' names, without family or module."""
        return tuple(metric.partition(":" if names_code(metric) else ".")[2] for metric in self.metrics)

    @property
    def uses_8bit_vectors(self) -> bool:
        """Whether vectors are scored as 8-bit files have them (`metrics.quirks`)."""
        return all(name.endswith("_of_bytes") for name in self.names)

    def with_rules(self, **rules: Any) -> EvalProtocol:
        """The same protocol where a data set decides: `valid_range`, `crop`, `clip`, `size`, `classes` and the like."""
        return replace(self, **rules)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return str(value) if value in (float("inf"), float("-inf")) else value
