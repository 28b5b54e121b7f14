# SPDX-License-Identifier: BSD-2-Clause
# Made by proto/gen.py from proto/small.toml and proto/small-states.toml. Do not edit.
"""Methods, fields, limits, error codes and states of the protocol, and validate() for messages.

A field is a dict: name, type (bool u32 u64 i64 str bin enum struct list), and where they apply
item, ref, required, min, max, max_len, max_items, default, open, since.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn

PROTOCOL_VERSION = 2

LIMIT_FRAME_BYTES = 4096  # bytes
LIMIT_HUGE = 18446744073709551615  # things

ERRORS: dict[str, Any] = {'bad_request': 'Not understood.', 'busy': 'Later.'}

ENUMS: dict[str, Any] = {'color': {'red': 1, 'blue': 4294967295}}

# machine -> state -> states it may move to
STATES: dict[str, Any] = {'door': {'closed': ['open'], 'open': ['broken', 'closed'], 'broken': []}}

STRUCTS: dict[str, Any] = {'inner': {'fields': [{'name': 'id',
                       'type': 'u64',
                       'required': True,
                       'min': 0,
                       'max': 18446744073709551615},
                      {'name': 'errno', 'type': 'u32', 'min': 0, 'max': 4095, 'default': 7}]},
 'outer': {'fields': [{'name': 'one', 'type': 'struct', 'ref': 'inner', 'required': True},
                      {'name': 'many',
                       'type': 'list',
                       'item': 'struct',
                       'ref': 'inner',
                       'max_items': 3}]}}

MESSAGES: dict[str, Any] = {'ping': {'kind': 'call', 'from': 'any', 'before_hello': True, 'fields': [], 'reply': []},
 'thing.put': {'kind': 'call',
               'from': 'client',
               'before_hello': False,
               'fields': [{'name': 'flag', 'type': 'bool', 'default': True},
                          {'name': 'small', 'type': 'u32', 'min': 1, 'max': 10, 'default': 5},
                          {'name': 'big', 'type': 'u64', 'min': 0, 'max': 18446744073709551615},
                          {'name': 'delta',
                           'type': 'i64',
                           'min': -5,
                           'max': 9223372036854775807,
                           'default': -1},
                          {'name': 'text', 'type': 'str', 'max_len': 8, 'default': 'a"b\\ü'},
                          {'name': 'data', 'type': 'bin', 'required': True, 'max_len': 16},
                          {'name': 'color',
                           'type': 'enum',
                           'ref': 'color',
                           'min': 0,
                           'max': 4294967295,
                           'default': 4294967295},
                          {'name': 'any_color',
                           'type': 'enum',
                           'ref': 'color',
                           'min': 0,
                           'max': 4294967295,
                           'open': True},
                          {'name': 'numbers',
                           'type': 'list',
                           'item': 'u64',
                           'min': 0,
                           'max': 100,
                           'max_items': 4},
                          {'name': 'moves',
                           'type': 'list',
                           'item': 'i64',
                           'min': -2,
                           'max': 2,
                           'max_items': 4},
                          {'name': 'names',
                           'type': 'list',
                           'item': 'str',
                           'max_len': 3,
                           'max_items': 2},
                          {'name': 'parts',
                           'type': 'list',
                           'item': 'bin',
                           'max_len': 4,
                           'max_items': 2},
                          {'name': 'outer', 'type': 'struct', 'ref': 'outer'},
                          {'name': 'late', 'type': 'bool', 'since': 2}],
               'reply': [{'name': 'ok', 'type': 'bool', 'required': True}]},
 'thing.gone': {'kind': 'notify',
                'from': 'broker',
                'before_hello': False,
                'fields': [{'name': 'ids',
                            'type': 'list',
                            'item': 'u64',
                            'required': True,
                            'min': 0,
                            'max': 18446744073709551615,
                            'max_items': 8}],
                'reply': []}}


class InvalidMessage(ValueError):
    """A message which the definition does not allow; the text names message and field."""


def validate(method: str, params: Any, reply: bool = False) -> None:
    """Check the params map (or, with reply=True, the result map) of a method as the C decoder does.

    Raises InvalidMessage. Unknown keys pass; None counts as absent; str passes for bin.
    """
    message = MESSAGES.get(method)
    if message is None:
        raise InvalidMessage(f"{method}: is no method")
    if reply and message["kind"] == "notify":
        raise InvalidMessage(f"{method}: has no reply")
    path = f"{method} reply" if reply else method
    _check_map(path, message["reply" if reply else "fields"], params)


def validate_struct(name: str, value: Any) -> None:
    """The same for one struct."""
    _check_map(name, STRUCTS[name]["fields"], value)


def unknown_keys(method: str, params: Any, reply: bool = False) -> list[str]:
    """Keys (with path) of a valid message that the definition does not have: a sender's mistake."""
    fields = MESSAGES[method]["reply" if reply else "fields"]
    return list(_unknown(method, fields, params))


def _unknown(path: str, fields: Any, value: Any) -> Iterator[str]:
    known = {field["name"]: field for field in fields}
    for key, item in value.items():
        field = known.get(key)
        if field is None:
            yield f"{path}.{key}"
        elif "struct" in (field["type"], field.get("item")) and item is not None:
            for part in item if field["type"] == "list" else [item]:
                yield from _unknown(f"{path}.{key}", STRUCTS[field["ref"]]["fields"], part)


def _fail(path: str, why: str) -> NoReturn:
    raise InvalidMessage(f"{path}: {why}")


def _check_map(path: str, fields: Any, value: Any) -> None:
    if not isinstance(value, dict):
        _fail(path, "must be a map")
    for key in value:
        if not isinstance(key, str):
            _fail(path, "must be a map whose keys are strings")
    for field in fields:
        item = value.get(field["name"])
        here = f"{path}.{field['name']}"
        if item is not None:
            _check_field(here, field, item)
        elif field.get("required"):
            _fail(here, "is missing")


def _check_field(path: str, field: Any, value: Any) -> None:
    if field["type"] != "list":
        _check_value(path, field, field["type"], value)
        return
    if not isinstance(value, (list, tuple)):
        _fail(path, "must be an array")
    if len(value) > field["max_items"]:
        _fail(path, f"is too long, at most {field['max_items']} items")
    for index, item in enumerate(value):
        _check_value(f"{path}[{index}]", field, field["item"], item)


def _check_value(path: str, field: Any, kind: str, value: Any) -> None:
    if kind == "bool":
        if not isinstance(value, bool):
            _fail(path, "must be a bool")
    elif kind in ("u32", "u64", "i64", "enum"):
        _check_int(path, field, kind, value)
    elif kind == "struct":
        _check_map(path, STRUCTS[field["ref"]]["fields"], value)
    else:
        _check_bytes(path, field, kind, value)


def _check_int(path: str, field: Any, kind: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        _fail(path, "must be an integer" if kind == "i64" else "must be an unsigned integer")
    if not field["min"] <= value <= field["max"]:
        _fail(path, f"must be {field['min']}..{field['max']}")
    if kind == "enum" and not field.get("open") and value not in ENUMS[field["ref"]].values():
        _fail(path, f"is no value of {field['ref']}")


def _check_bytes(path: str, field: Any, kind: str, value: Any) -> None:
    if kind == "str":
        if not isinstance(value, str):
            _fail(path, "must be a string")
        if "\0" in value:
            _fail(path, "must be UTF-8 without NUL bytes")
    if isinstance(value, str):
        try:
            value = value.encode()
        except UnicodeEncodeError:
            _fail(path, "must be UTF-8 without NUL bytes")
    if not isinstance(value, (bytes, bytearray, memoryview)):
        _fail(path, "must be binary or a string")
    if len(value) > field["max_len"]:
        _fail(path, f"is too long, at most {field['max_len']} bytes")
