# SPDX-License-Identifier: BSD-2-Clause
"""docs/protocol.md, the reference page of the protocol, and the dictionary for the fuzzers."""

from . import schema

INTRO = """\
# The protocol of {name}, version {version}

<!-- Made by proto/gen.py from {source}. Do not edit. -->

{text}

Any client of [MessagePack-RPC](https://github.com/msgpack-rpc/msgpack-rpc/blob/master/spec.md)
can speak to the broker.

## Frames

A frame is one MessagePack value; frames follow each other without anything in between.

| frame | form |
|---|---|
| request | `[0, id, method, [params]]` |
| response | `[1, id, error, result]` |
| notification | `[2, method, [params]]` |

- `id` is an unsigned integer of at most 32 bits, chosen by the sender of the request. Responses
  come in any order.
- `params` and `result` are one map each. `params` travels in an array of exactly one element; where
  a client can not send an empty map, `[]`, `[nil]` and `[[]]` stand for `[{{}}]`.
- Keys are strings. Unknown keys are skipped. A key that is given twice is an error. A value of nil
  counts as an absent key.
- A str is accepted where bin is meant, not the other way round. Text (str) is UTF-8 without NUL
  bytes.
- Integers may have any MessagePack encoding that holds the value. Floats are not integers.
- Extension types, NaN and the byte `0xc1` are refused wherever they stand.
- `error` is nil, or the string `"code: text"`: a stable word from the table of errors, a colon, a
  sentence for people, and sometimes ` (retry after N ms)`. A peer whose hello had `error_maps`
  gets the map `{{code, text, retry_after_ms}}` instead.
- A frame that breaks a limit below closes the connection. A request that is well formed but not
  allowed is answered with an error, and the connection stays.

## Handshake

`hello` is the first message of a connection; anything else before it is answered with `hello_first`
and the connection is closed. Its reply gives the version in use: the lower one of both sides.

```
peer                                             broker
  [0, 1, "hello", [{{client, version, ...}}]]  -->
                                            <--  [1, 1, nil, {{server, version, epoch, ...}}]
  [0, 2, "task.submit", [{{options, ...}}]]    -->
                                            <--  [1, 2, nil, {{first, count}}]
```
"""

TYPES = """\
## Types

| type | on the wire |
|---|---|
| bool | true or false |
| u32, u64 | integer >= 0 of 32 or 64 bits |
| i64 | integer of 64 bits |
| str | text |
| bin | bytes |
| enum:X | integer, one of the values of enum X |
| struct:X | map with the fields of struct X |
| list:T | array of T |

In the tables below, `!` after the type marks a field that must be there.
"""


def cell(text):
    return text.replace("|", "\\|").replace("\n", " ")


def number(value):
    names = {
        schema.U32_MAX: "2^32-1",
        schema.U64_MAX: "2^64-1",
        schema.I64_MAX: "2^63-1",
        schema.I64_MIN: "-2^63",
    }
    return names.get(value, str(value))


def limits_text(field):
    parts = []
    if field.has_min or field.has_max:
        parts.append(f"{number(field.min)}..{number(field.max)}")
    if field.max_items:
        parts.append(f"<= {field.max_items} items")
    if field.max_len:
        parts.append(f"<= {field.max_len} bytes" + (" each" if field.max_items else ""))
    return ", ".join(parts)


def default_text(protocol, field):
    if field.default is None:
        return ""
    if isinstance(field.default, bool):
        return str(field.default).lower()
    if field.type == "enum":
        names = {v.value: v.name for v in protocol.enum(field.ref).values}
        return f"{field.default} ({names[field.default]})"
    return f'"{field.default}"' if isinstance(field.default, str) else str(field.default)


def anchor(field):
    """The type, with a link to the enum or struct."""
    text = field.type_text() + ("!" if field.required else "")
    if not field.ref:
        return text
    kind = "enum" if field.type == "enum" else "struct"
    return f"[{text}](#{kind}-{field.ref})"


def field_rows(protocol, fields):
    if not fields:
        return "No fields.\n"
    since = any(f.since != 1 for f in fields)
    out = ["| field | type | unit | limits | default | meaning |" + (" since |" if since else "")]
    out.append("|---|---|---|---|---|---|" + ("---|" if since else ""))
    for f in fields:
        default = default_text(protocol, f)
        row = [f"`{f.name}`", anchor(f), f.unit, limits_text(f), default, cell(f.text)]
        if since:
            row.append(str(f.since))
        out.append("| " + " | ".join(row) + " |")
    return "\n".join(out) + "\n"


def message_section(protocol, message):
    who = {"any": "client or worker"}.get(message.sender, message.sender)
    facts = f"{message.kind}, sent by the {who}"
    if message.before_hello:
        facts += ", allowed before hello"
    if message.since != 1:
        facts += f", since version {message.since}"
    out = [f"### {message.method}\n\n*{facts}*\n\n{message.text}\n\n"]
    out.append("params:\n\n" + field_rows(protocol, message.fields))
    if message.kind == "call":
        out.append("\nresult:\n\n" + field_rows(protocol, message.reply))
    return "".join(out) + "\n"


def machine_section(machine):
    out = [f"### machine {machine.name}\n\n{machine.text}\n\n```\n"]
    for state in machine.states:
        out.append(f"{state.name}{'  (end)' if state.terminal else ''}\n")
        for move in machine.moves:
            if move.source == state.name:
                out.append(f"   --> {', '.join(move.to)}    [{move.on}]\n")
    out.append("```\n\n| state | meaning |\n|---|---|\n")
    out += [f"| {state.name} | {cell(state.text)} |\n" for state in machine.states]
    return "".join(out) + "\n"


def page(protocol, machines, source):
    intro = INTRO.format(
        name=protocol.name, version=protocol.version, source=source, text=protocol.text
    )
    out = [intro, "\n## Limits\n\n| limit | value | unit | meaning |\n|---|---|---|---|\n"]
    out += [f"| {x.name} | {x.value} | {x.unit} | {cell(x.text)} |\n" for x in protocol.limits]
    out.append("\n## Errors\n\n| code | meaning |\n|---|---|\n")
    out += [f"| `{e.name}` | {cell(e.text)} |\n" for e in protocol.errors]
    out.append("\n" + TYPES + "\n## Messages\n\n")
    out.append("| method | kind | from | what for |\n|---|---|---|---|\n")
    for m in protocol.messages:
        link = "#" + m.method.replace(".", "")
        out.append(f"| [{m.method}]({link}) | {m.kind} | {m.sender} | {cell(m.text)} |\n")
    out.append("\n")
    out += [message_section(protocol, m) for m in protocol.messages]
    out.append("## Structs\n\n")
    for struct in sorted(protocol.structs, key=lambda s: s.name):
        out.append(f"### struct {struct.name}\n\n{struct.text}\n\n")
        out.append(field_rows(protocol, struct.fields) + "\n")
    out.append("## Enums\n\n")
    for enum in protocol.enums:
        out.append(f"### enum {enum.name}\n\n{enum.text}\n\n")
        out.append("| value | name | meaning |\n|---|---|---|\n")
        out += [f"| {v.value} | {v.name} | {cell(v.text)} |\n" for v in enum.values]
        out.append("\n")
    if machines:
        out.append("## State machines\n\n")
        out += [machine_section(m) for m in machines]
    return "".join(out).rstrip("\n") + "\n"


def fuzz_word(data):
    return '"' + "".join(f"\\x{b:02x}" for b in data) + '"'


def fuzz_dictionary(protocol, source):
    """Keys and methods as MessagePack strings, and the headers, for libFuzzer's -dict."""
    words = {m.method for m in protocol.messages}
    for fields in [s.fields for s in protocol.structs] + [
        part for m in protocol.messages for part in (m.fields, m.reply)
    ]:
        words |= {f.name for f in fields}
    out = [f"# Made by proto/gen.py from {source}. Do not edit.\n"]
    for word in sorted(words):
        data = word.encode()
        head = bytes([0xA0 | len(data)]) if len(data) < 32 else bytes([0xD9, len(data)])
        out.append(fuzz_word(head + data) + "\n")
    for head in range(0xC0, 0xE0):
        out.append(fuzz_word(bytes([head])) + "\n")
    for head in ("94000000", "9402", "93020000", "dd20000000", "df7fffffff", "c6ffffffff"):
        out.append(fuzz_word(bytes.fromhex(head)) + "\n")
    return "".join(out)
