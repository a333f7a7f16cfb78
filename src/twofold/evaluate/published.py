"""Published numbers: one data file, each with its source, and with what is doubtful about it.

A number stands here as it was printed, misprints included. `read` says how far to trust the copy: ``paper`` and
``repository`` were read there, ``figure`` was read off a picture, ``quoted`` was found in somebody else's quotation
and is to be checked before it is used anywhere else.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

from .standards import STANDARDS

FILE = Path(__file__).with_name("published.json")


@dataclass(frozen=True)
class Number:
    """One published score.

    Attributes:
        benchmark: as in `benchmarks.BENCHMARKS`, or a data set that cannot be had.
        standard: name of the protocol; one of `standards.STANDARDS`, or one that only others score by, see `protocols`.
        method: as its source calls it.
        metric: as in the standard.
        value: in the metric's unit (shares as fractions, angles in degrees, shares of angles in %).
        printed: the same with as many digits as were printed.
        source: key of `sources`.
        table: of the source.
        note: what one has to know of the row.
        doubt: why the number is likely wrong; empty where nothing speaks against it.
    """

    benchmark: str
    standard: str
    method: str
    metric: str
    value: float
    printed: str
    source: str
    table: str
    note: str = ""
    doubt: str = ""

    @property
    def protocol(self) -> str:
        """Id of the protocol. Only numbers of one protocol may be compared, or share a table."""
        return protocol_id(self.standard)


@cache
def _contents() -> dict[str, Any]:
    # Decimals, because 0.060 says more than 0.06.
    return json.loads(FILE.read_text("utf-8"), parse_float=Decimal)


def sources() -> dict[str, dict[str, str]]:
    """What the numbers were taken from: title, url and how it was read, by key."""
    return _contents()["sources"]


def protocols() -> dict[str, str]:
    """Protocols of published numbers that cannot be scored by here: titles by id."""
    return _contents()["protocols"]


def protocol_id(standard: str) -> str:
    """Name and version of a protocol of published numbers, by its name.

    Raises:
        KeyError: the table names a protocol that nothing says anything of.
    """
    if standard in STANDARDS:
        return STANDARDS[standard].id
    if f"{standard}@1" not in protocols():
        raise KeyError(
            f"{FILE.name} has numbers by {standard}, which is neither a standard nor one of its protocols"
        )
    return f"{standard}@1"


def protocol_title(id: str) -> str:
    """What a protocol of published numbers is, in words."""
    name = id.partition("@")[0]
    return STANDARDS[name].title if name in STANDARDS else protocols()[id]


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
                Number(benchmark, table["standard"], method, metric, float(scaled), f"{scaled}", *where)
            )
    return found


def _doubt(table: dict[str, Any], method: str, column: str) -> str:
    here = (table["source"], table["table"], column)
    said = [d for d in _contents()["doubts"] if (d["source"], d["table"], d["column"]) == here]
    return "; ".join(d["why"] for d in said if d["method"] in (method, "*"))


def published(benchmark: str, standard: str = "") -> list[dict[str, Any]]:
    """The rows of a benchmark, a method each, as a report has them; of one standard, or of all.

    Each has ``method``, ``standard``, ``protocol`` (its id), ``scores`` and ``printed`` by metric, ``source`` (title),
    ``url``, ``table``, ``read``, ``note`` and ``doubts`` by metric.
    """
    rows: dict[tuple[str, ...], dict[str, Any]] = {}
    for n in numbers():
        if n.benchmark != benchmark or standard not in ("", n.standard):
            continue
        source = sources()[n.source]
        row = rows.setdefault(
            (n.method, n.standard, n.source, n.table),
            {
                "method": n.method,
                "standard": n.standard,
                "protocol": n.protocol,
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
