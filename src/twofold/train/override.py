"""Changes to a nested record: nested mappings, and the ``a.b=value`` settings of a command line."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel

from ..suggest import nearest


def read_value(text: str) -> Any:
    """The value of ``KEY=VALUE``: JSON, a list where it is JSON values between commas, or plain text."""
    for candidate in (text, f"[{text}]") if "," in text else (text,):
        try:
            return json.loads(candidate)
        except (ValueError, RecursionError):
            continue
    return text


def merge(part: BaseModel, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of ``part`` with ``changes``; a mapping for a nested record changes some of its fields.

    A mapping with another ``kind`` replaces the nested record as a whole.
    """
    fields = {name: getattr(part, name) for name in type(part).model_fields}
    for name, value in changes.items():
        current = fields.get(name)
        if isinstance(current, BaseModel) and isinstance(value, Mapping):
            kind = getattr(current, "kind", None)
            fields[name] = merge(current, value) if value.get("kind", kind) == kind else value
        else:
            fields[name] = value
    return fields


def put_value(place: Any, keys: Sequence[str], value: Any) -> None:
    """Set the value at the path ``keys`` through mappings and lists; missing mappings are created.

    Raises:
        ValueError: the path leads through something else, or a list has no such index.
    """
    name, *rest = keys
    key: Any = name
    if isinstance(place, list | tuple) and name.isdigit() and int(name) < len(place):
        key = int(name)
    elif not isinstance(place, dict):
        raise ValueError(f"there is no {name!r} inside {place!r}")
    if not rest:
        place[key] = value
        return
    if isinstance(place, dict) and place.get(key) is None:
        place[key] = {}
    put_value(place[key], rest, value)


def check_keys(part: Any, keys: Sequence[str], path: str = "") -> None:
    """Check that each key of a path is a field, as far as the path leads through records.

    Raises:
        ValueError: a key is not a field; the message has the nearest known key.
    """
    name, *rest = keys
    if name not in _fields(type(part)):
        raise ValueError(unknown_key(f"{path}{name}", type(part)))
    inner: Any = getattr(part, name)
    if isinstance(inner, list | tuple) and len(rest) > 1 and rest[0].isdigit() and int(rest[0]) < len(inner):
        name, inner, rest = f"{name}.{rest[0]}", inner[int(rest[0])], rest[1:]
    if rest and _fields(type(inner)):
        check_keys(inner, rest, f"{path}{name}.")


def by_name(paths: Iterable[str]) -> dict[str, str]:
    """By last part, the shortest of the paths that end in it."""
    return {path.rpartition(".")[2]: path for path in sorted(paths, key=lambda p: -p.count("."))}


def unknown_key(path: str, part: type, paths: Iterable[str] = ()) -> str:
    """``optimizer has no 'rate' (did you mean 'lr'?); it has name, lr, ...``.

    Args:
        path: of the unknown key.
        part: the record that lacks it.
        paths: of fields elsewhere, whose last parts are known names as well.
    """
    parent, _, name = path.rpartition(".")
    fields = _fields(part)
    known = by_name(paths) | {field: field for field in fields}
    near = nearest(name, known)
    hint = f" (did you mean {known[near]!r}?)" if near else ""
    return f"{parent or 'a recipe'} has no {name!r}{hint}; it has {', '.join(fields)}"


def field_paths(part: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Dotted paths of all fields of a record and of the records in it, of every kind."""
    for name, field in part.model_fields.items():
        path = f"{prefix}.{name}" if prefix else name
        yield path
        for nested in _records(field.annotation):
            yield from field_paths(nested, path)


def _fields(record: type) -> list[str]:
    """Names of the fields of a pydantic model or dataclass; none of anything else."""
    if issubclass(record, BaseModel):
        return list(record.model_fields)
    return [field.name for field in dataclasses.fields(record)] if dataclasses.is_dataclass(record) else []


def _records(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, UnionType):
        return [r for argument in get_args(annotation) for r in _records(argument)]
    return []
