"""Reads published scores from `published.json`, each with its source and known errors.

Numbers are stored as printed, misprints included. The entry ``read`` of a source is where its numbers were read: in
the ``paper`` or ``repository``, off a ``figure``, or ``quoted`` by another source, which has to be checked before use
elsewhere. Each entry of ``tables`` is one published table.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

from .benchmarks import EVAL_PROTOCOLS

FILE = Path(__file__).with_name("published.json")


@dataclass(frozen=True)
class Number:
    """One published score.

    Attributes:
        benchmark: key of `benchmarks.BENCHMARKS`, or the name of a data set without a benchmark.
        protocol: name of the protocol, in `benchmarks.EVAL_PROTOCOLS` or `external_protocols`.
        method: name of the method in the source.
        metric: name of the metric in the protocol.
        value: the score in the metric's unit (fractions in [0, 1], angles in degrees, fractions of angles in %).
        printed: the score as text, with as many digits as were printed.
        source: key of `sources`.
        table: number or name of the table in the source.
        note: remark about the table.
        doubt: why the number is probably wrong, or empty.
    """

    benchmark: str
    protocol: str
    method: str
    metric: str
    value: float
    printed: str
    source: str
    table: str
    note: str = ""
    doubt: str = ""

    @property
    def protocol_id(self) -> str:
        """Id of the protocol. Numbers are comparable, and share a table, only if their ids are equal."""
        return protocol_id(self.protocol)


@cache
def _contents() -> dict[str, Any]:
    # Decimals preserve the number of digits: 0.060 is more precise than 0.06.
    return json.loads(FILE.read_text("utf-8"), parse_float=Decimal)


def sources() -> dict[str, dict[str, str]]:
    """Sources of the numbers by key; each has ``title``, ``url`` and ``read``."""
    return _contents()["sources"]


def external_protocols() -> dict[str, str]:
    """Titles, by id, of the protocols of published numbers that this package does not implement."""
    return _contents()["external_protocols"]


def protocol_id(protocol: str) -> str:
    """Name and version of a protocol of published numbers, by its name.

    Raises:
        KeyError: the file has numbers of an unknown protocol.
    """
    if protocol in EVAL_PROTOCOLS:
        return EVAL_PROTOCOLS[protocol].id
    if f"{protocol}@1" not in external_protocols():
        raise KeyError(
            f"{FILE.name} has numbers by {protocol}, which is neither in EVAL_PROTOCOLS nor in external_protocols"
        )
    return f"{protocol}@1"


def protocol_title(id: str) -> str:
    """The title of a protocol of published numbers."""
    name = id.partition("@")[0]
    return EVAL_PROTOCOLS[name].title if name in EVAL_PROTOCOLS else external_protocols()[id]


@cache
def numbers() -> tuple[Number, ...]:
    """Every published number, in the order of the file."""
    return tuple(number for table in _contents()["tables"] for number in _numbers_in(table))


def _numbers_in(table: dict[str, Any]) -> list[Number]:
    found = []
    for method, values in table["rows"].items():
        for column, value in zip(table["columns"], values, strict=True):
            if value is None:
                continue
            benchmark, metric = column.split()
            scaled = value * table.get("scale", 1)
            origin = (table["source"], table["table"], table.get("note", ""), _doubt(table, method, column))
            found.append(
                Number(benchmark, table["protocol"], method, metric, float(scaled), f"{scaled}", *origin)
            )
    return found


def _doubt(table: dict[str, Any], method: str, column: str) -> str:
    key = (table["source"], table["table"], column)
    doubts = [d for d in _contents()["doubts"] if (d["source"], d["table"], d["column"]) == key]
    return "; ".join(d["why"] for d in doubts if d["method"] in (method, "*"))


def published(benchmark: str, protocol: str = "") -> list[dict[str, Any]]:
    """The published scores of a benchmark, a row for each method, as in a report.

    Each row has ``method``, ``protocol`` (its id), ``scores`` and ``printed`` by metric, ``source`` (title), ``url``,
    ``table``, ``read``, ``note`` and ``doubts`` by metric.

    Args:
        benchmark: name of the benchmark.
        protocol: name of the only protocol to include; empty for all.
    """
    rows: dict[tuple[str, ...], dict[str, Any]] = {}
    for n in numbers():
        if n.benchmark != benchmark or protocol not in ("", n.protocol):
            continue
        source = sources()[n.source]
        row = rows.setdefault(
            (n.method, n.protocol, n.source, n.table),
            {
                "method": n.method,
                "protocol": n.protocol_id,
                "scores": {},
                "printed": {},
                "source": source["title"],
                "url": source["url"],
                "table": n.table,
                "read": source["read"],
                "note": n.note,
                "doubts": {},
            },
        )
        row["scores"][n.metric], row["printed"][n.metric] = n.value, n.printed
        if n.doubt:
            row["doubts"][n.metric] = n.doubt
    return list(rows.values())
