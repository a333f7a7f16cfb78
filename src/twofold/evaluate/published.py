"""Published numbers: one data file, each number with its source and known doubts.

Numbers are stored as printed, misprints included. `read` is where a number was read: in the ``paper`` or
``repository``, off a ``figure``, or ``quoted`` by another source, which has to be checked before use elsewhere. A
published table is one entry of ``tables`` in that file.
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
        benchmark: as in `benchmarks.BENCHMARKS`, or a data set that is not available.
        protocol: its name: one of `benchmarks.EVAL_PROTOCOLS`, or one of `external_protocols`.
        method: its name in the source.
        metric: as in the protocol.
        value: in the metric's unit (shares as fractions, angles in degrees, shares of angles in %).
        printed: the same with as many digits as were printed.
        source: key of `sources`.
        table: of the source.
        note: on the row.
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
        """Id of the protocol. Only numbers of one protocol may be compared, or share a table."""
        return protocol_id(self.protocol)


@cache
def _contents() -> dict[str, Any]:
    # Decimals, because 0.060 says more than 0.06.
    return json.loads(FILE.read_text("utf-8"), parse_float=Decimal)


def sources() -> dict[str, dict[str, str]]:
    """Sources of the numbers: title, url and where they were read, by key."""
    return _contents()["sources"]


def external_protocols() -> dict[str, str]:
    """Protocols of published numbers that this package does not implement: titles by id."""
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
    return tuple(number for table in _contents()["tables"] for number in _of(table))


def _of(table: dict[str, Any]) -> list[Number]:
    found = []
    for method, values in table["rows"].items():
        for column, value in zip(table["columns"], values, strict=True):
            if value is None:
                continue
            benchmark, metric = column.split()
            scaled = value * table.get("scale", 1)
            doubt = _doubt(table, method, column)
            note = table.get("note", "")
            where = (table["source"], table["table"], note, doubt)
            found.append(
                Number(benchmark, table["protocol"], method, metric, float(scaled), f"{scaled}", *where)
            )
    return found


def _doubt(table: dict[str, Any], method: str, column: str) -> str:
    here = (table["source"], table["table"], column)
    doubts = [d for d in _contents()["doubts"] if (d["source"], d["table"], d["column"]) == here]
    return "; ".join(d["why"] for d in doubts if d["method"] in (method, "*"))


def published(benchmark: str, protocol: str = "") -> list[dict[str, Any]]:
    """The rows of a benchmark, a method each, as a report has them; of one protocol, or of all.

    Each has ``method``, ``protocol`` (its id), ``scores`` and ``printed`` by metric, ``source`` (title),
    ``url``, ``table``, ``read``, ``note`` and ``doubts`` by metric.
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
