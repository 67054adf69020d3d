"""Types for the columns of JSON rows, so that every part of a screened data set has the same ones and no value changes.

A column's *kind* is merged over all rows: null, bool, int (exact as a float too), long, float, string, list, struct.
Integers and floats meet as float where that is exact. What has no common type (text beside numbers, objects whose keys
differ, half of a surrogate pair) is kept as JSON text, and its Arrow field says so in its metadata. A key that a row
does not have is null, as columns cannot tell the two apart.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import pyarrow as pa

Kind: TypeAlias = Any  # "null", "bool", "int", "long", "float", "string", "json", ("list", Kind), ("struct", ((key, Kind), ...))
AS_JSON = {b"demeanor": b"json"}
_EXACT = 1 << 53  # integers up to here are floats without loss
_DEEPEST = 16
_UNHELD = (ValueError, OverflowError, TypeError, NotImplementedError)  # Arrow's own errors are among these


@dataclass(frozen=True)
class Unheld:
    """A value of a column that Python cannot hold, in words. It is no text, so that nobody takes it for a reply."""

    words: str

    def __str__(self) -> str:
        return self.words


def kind_of(value: Any, depth: int = 0) -> Kind:
    """The kind of one JSON value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int" if abs(value) <= _EXACT else "long" if -(1 << 63) <= value < 1 << 63 else "json"
    if isinstance(value, float):
        return "float"
    if isinstance(value, str):
        return "string" if encodes(value) else "json"
    if depth > _DEEPEST:
        return "json"
    if isinstance(value, list):
        inner: Kind = "null"
        for item in value:
            inner = merge(inner, kind_of(item, depth + 1))
        return "json" if inner == "json" else ("list", inner)
    if not value or not all(encodes(key) for key in value):
        return "json"  # Parquet has no struct without fields
    fields = tuple((key, kind_of(item, depth + 1)) for key, item in value.items())
    return "json" if any(kind == "json" for _, kind in fields) else ("struct", fields)


def merge(a: Kind, b: Kind) -> Kind:
    """The kind that holds values of both, or "json" where none does."""
    if a == b or b == "null":
        return a
    if a == "null":
        return b
    if isinstance(a, str) and isinstance(b, str):
        numbers = {a, b}
        return "long" if numbers == {"int", "long"} else "float" if numbers == {"int", "float"} else "json"
    if isinstance(a, str) or isinstance(b, str) or a[0] != b[0]:
        return "json"
    if a[0] == "list":
        inner = merge(a[1], b[1])
        return "json" if inner == "json" else ("list", inner)
    if [key for key, _ in a[1]] != [key for key, _ in b[1]]:
        return "json"
    fields = tuple((key, merge(x, y)) for (key, x), (_, y) in zip(a[1], b[1], strict=True))
    return "json" if any(kind == "json" for _, kind in fields) else ("struct", fields)


def field_of(name: str, kind: Kind) -> pa.Field:
    """A column of that kind."""
    return pa.field(name, pa.string(), metadata=AS_JSON) if kind == "json" else pa.field(name, _type(kind))


def as_table(records: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows as a table with these columns; each column holds the values as they were, or their JSON text."""
    arrays = []
    for field in schema:
        values = [record.get(field.name) for record in records]
        if is_json(field):
            values = [None if v is None else to_json(v) for v in values]
        arrays.append(pa.array(values, type=field.type))
    return pa.table(arrays, schema=schema)


def from_table(table: pa.Table) -> list[dict[str, Any]]:
    """A table's rows as records, columns of JSON text as the values that they stand for."""
    names, columns = table.schema.names, [_values(column) for column in table.columns]
    records: list[dict[str, Any]] = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    for name in [field.name for field in table.schema if is_json(field)]:
        for record in records:
            record[name] = None if record[name] is None else json.loads(record[name])
    return records


def _values(column: pa.ChunkedArray) -> list[Any]:
    """A column's values; one that Python cannot hold (a day beyond its calendar, bytes that are no text) costs the others nothing."""
    try:
        values: list[Any] = column.to_pylist()
    except _UNHELD:
        return [_value(scalar) for scalar in column]
    return values


def _value(scalar: pa.Scalar) -> Any:
    """A value; where Python has none like it, text that is none as its bytes, and all else as something that is no text to be read."""
    for read in (scalar.as_py, lambda: scalar.cast(pa.binary()).as_py(), lambda: Unheld(str(scalar.cast(pa.string()).as_py()))):
        try:
            return read()
        except _UNHELD:
            continue
    return Unheld(f"a value of the type {scalar.type} that cannot be read")


def is_json(field: pa.Field) -> bool:
    """Whether a column holds JSON text in place of values."""
    return bool(field.metadata) and field.metadata.get(b"demeanor") == b"json"


def to_json(value: Any) -> str:
    """JSON text that any file can hold."""
    text = json.dumps(value, ensure_ascii=False)
    return text if encodes(text) else json.dumps(value)


def jsonable(value: Any) -> Any:
    """A value of a table as JSON can hold it: what has no place in it is text, and a NaN is null."""
    if isinstance(value, dict):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, list):
        return [jsonable(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def _type(kind: Kind) -> pa.DataType:
    if isinstance(kind, str):
        return {
            "null": pa.null(), "bool": pa.bool_(), "int": pa.int64(), "long": pa.int64(), "float": pa.float64(), "string": pa.string()
        }[kind]  # fmt: skip
    return pa.list_(_type(kind[1])) if kind[0] == "list" else pa.struct([pa.field(key, _type(inner)) for key, inner in kind[1]])


def without_views(schema: pa.Schema) -> pa.Schema:
    """The same columns with views of text and bytes, which few functions of Arrow take yet, as text and bytes."""
    return pa.schema([field.with_type(_plain(field.type)) for field in schema], schema.metadata)


def _plain(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_string_view(kind):
        return pa.large_string()
    if pa.types.is_binary_view(kind):
        return pa.large_binary()
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_plain(field.type)) for field in kind])
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        field = kind.value_field.with_type(_plain(kind.value_type))
        return pa.large_list(field) if pa.types.is_large_list(kind) else pa.list_(field)
    return kind


def encodes(text: str) -> bool:
    """Whether a file can hold it: not where it has half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
