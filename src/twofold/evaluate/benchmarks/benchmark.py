"""A benchmark: one test set, and how it is scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ..protocol import EvalProtocol, EvaluationError


@dataclass(frozen=True)
class Benchmark:
    """One test set, and the rules that it sets in a protocol.

    Attributes:
        name: such as ``nyuv2-depth``.
        title: one line.
        converter: that makes its folder, as `data.convert.get_converter` takes it; empty for a folder of one's own.
        split: of the converter.
        protocols: that it may be scored by; the first unless another is passed.
        count: images that the published tables are over.
        rules: fields of the protocol that the data set determines, such as ``valid_range``, ``crop``, ``clip``,
            ``size``.
        origin: of its images; rendered ones need no ``--allow-synthetic`` when they are expected.
        notes: for the report.
        group: key of the manifest's rows by which scores are also reported separately.
        version: of the record; it rises when the record changes a number.
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
            EvaluationError: the benchmark is not scored by that one.
        """
        found = self.protocols[0]
        if name:
            named = [p for p in self.protocols if name in (p.name, p.id)]
            if not named:
                raise EvaluationError(
                    f"{self.name} is scored by {' or '.join(p.name for p in self.protocols)}, not by {name}; pass "
                    "--protocol without --benchmark to score any data by any protocol"
                )
            found = named[0]
        # Metric depth is scored without clipping.
        rules = {k: v for k, v in self.rules.items() if k != "clip" or found.align != "none"}
        return found.with_rules(**rules)
