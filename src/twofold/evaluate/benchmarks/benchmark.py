"""A benchmark: one test set and the protocols that score it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ..protocol import EvalProtocol, EvaluationError


@dataclass(frozen=True)
class Benchmark:
    """One test set, and the fields that it sets in a protocol.

    Attributes:
        name: name, such as ``nyuv2-depth``.
        title: description in one line.
        converter: name of the converter of the data, for `data.convert.get_converter`; empty if there is none.
        split: split of the converter.
        protocols: protocols that score the data; the first is the default.
        count: number of images in published evaluations.
        rules: fields of the protocol that the data set determines, such as ``valid_range``, ``crop``, ``clip``,
            ``size``.
        origin: origin of the images; ``rendered`` images of such a benchmark need no ``--allow-synthetic``.
        notes: remarks for the report.
        group: key of the manifest's rows by which scores are also reported separately.
        version: version of the record; it increases when a change of the record changes a score.
    """

    name: str
    title: str
    converter: str
    split: str
    protocols: tuple[EvalProtocol, ...]
    count: int
    rules: Mapping[str, Any] = field(default_factory=dict)
    origin: Literal["real", "rendered"] = "real"
    notes: str = ""
    group: str = ""
    version: int = 1

    @property
    def id(self) -> str:
        """Name and version."""
        return f"{self.name}@{self.version}"

    def protocol(self, name: str = "") -> EvalProtocol:
        """The protocol of that name or id, with the rules of this data set; the first for an empty name.

        Raises:
            EvaluationError: the benchmark has no such protocol.
        """
        protocol = next((p for p in self.protocols if name in ("", p.name, p.id)), None)
        if protocol is None:
            raise EvaluationError(
                f"{self.name} is scored by {' or '.join(p.name for p in self.protocols)}, not by {name}; pass "
                "--protocol without --benchmark to score any data by any protocol"
            )
        # Metric depth is scored without clipping.
        rules = {k: v for k, v in self.rules.items() if k != "clip" or protocol.align != "none"}
        return protocol.with_rules(**rules)
