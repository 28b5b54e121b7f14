# SPDX-License-Identifier: BSD-2-Clause
"""The Python message module python/hostpool/_messages.py."""

import pprint

HEAD = '''\
# SPDX-License-Identifier: BSD-2-Clause
# Made by proto/gen.py from {source}. Do not edit.
"""Methods, fields, limits, error codes and states of the protocol, and validate() for messages.

A field is a dict: name, type (bool u32 u64 i64 str bin enum struct list), and where they apply
item, ref, required, min, max, max_len, max_items, default, open, since.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn

'''

CODE = '''

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
        if "\\0" in value:
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
'''


def field_table(field):
    table = {"name": field.name, "type": field.type}
    if field.item:
        table["item"] = field.item
    if field.ref:
        table["ref"] = field.ref
    if field.required:
        table["required"] = True
    if field.type in ("u32", "u64", "i64", "enum") or field.item in ("u64", "i64"):
        table["min"], table["max"] = field.min, field.max
    for key in ("max_len", "max_items"):
        if getattr(field, key):
            table[key] = getattr(field, key)
    if field.default is not None:
        table["default"] = field.default
    if field.open:
        table["open"] = True
    if field.since != 1:
        table["since"] = field.since
    return table


def show(name, value):
    text = pprint.pformat(value, width=98, sort_dicts=False, underscore_numbers=False)
    return f"{name}: dict[str, Any] = {text}\n"


def messages(protocol, machines, source):
    enums = {e.name: {v.name: v.value for v in e.values} for e in protocol.enums}
    structs = {s.name: {"fields": [field_table(f) for f in s.fields]} for s in protocol.structs}
    table = {}
    for message in protocol.messages:
        table[message.method] = {
            "kind": message.kind,
            "from": message.sender,
            "before_hello": message.before_hello,
            "fields": [field_table(f) for f in message.fields],
            "reply": [field_table(f) for f in message.reply],
        }
    states = {
        m.name: {
            s.name: sorted({t for move in m.moves if move.source == s.name for t in move.to})
            for s in m.states
        }
        for m in machines
    }
    out = [HEAD.format(source=source)]
    out.append(f"PROTOCOL_VERSION = {protocol.version}\n\n")
    for limit in protocol.limits:
        out.append(f"LIMIT_{limit.name.upper()} = {limit.value}  # {limit.unit}\n")
    out.append("\n" + show("ERRORS", {e.name: e.text for e in protocol.errors}))
    out.append("\n" + show("ENUMS", enums))
    out.append("\n# machine -> state -> states it may move to\n" + show("STATES", states))
    out.append("\n" + show("STRUCTS", structs))
    out.append("\n" + show("MESSAGES", table))
    out.append(CODE)
    return "".join(out)
