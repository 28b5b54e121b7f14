# SPDX-License-Identifier: BSD-2-Clause
"""C out of the definition: hp_msg.h/.c (messages) and hp_states.h/.c (state machines)."""

import textwrap

from . import schema

HEAD = """\
/* SPDX-License-Identifier: BSD-2-Clause */
/* Made by proto/gen.py from {source}. Do not edit. */
"""

C_TYPES = {
    "bool": "bool",
    "u32": "uint32_t",
    "u64": "uint64_t",
    "i64": "int64_t",
    "str": "struct hp_str",
    "bin": "struct hp_bin",
}
SENDER_BITS = {
    "client": "HP_FROM_CLIENT",
    "worker": "HP_FROM_WORKER",
    "broker": "HP_FROM_BROKER",
    "any": "HP_FROM_CLIENT | HP_FROM_WORKER",
}


def comment(text, indent=""):
    """A C comment of full lines."""
    text = text.replace("*/", "* /")
    lines = textwrap.wrap(text, 94 - len(indent))
    if len(lines) == 1:
        return f"{indent}/* {lines[0]} */\n"
    body = "".join(f"{indent} * {line}\n" for line in lines)
    return f"{indent}/*\n{body}{indent} */\n"


def c_string(text):
    out = []
    for byte in text.encode():
        char = chr(byte)
        if char in '"\\':
            out.append("\\" + char)
        elif 32 <= byte < 127:
            out.append(char)
        else:
            out.append(f"\\{byte:03o}")
    return '"' + "".join(out) + '"'


def c_unsigned(value):
    return f"{value}u" if value <= schema.U32_MAX else f"UINT64_C({value})"


def c_bits(field, value):
    """An integer of a field as the uint64_t of struct hp_codec_field."""
    if "i64" in (field.type, field.item):
        value %= 2**64
    return f"UINT64_C({value})"


def c_type(field):
    if field.type == "enum":
        return f"enum hp_{field.ref}"
    if field.type == "struct":
        return f"struct hp_st_{field.ref}"
    if field.type == "list":
        return f"struct hp_list_{field.ref or field.item}"
    return C_TYPES[field.type]


class Group:
    """A C struct to be made: of a struct, of a message's params or of its reply."""

    def __init__(self, c_name, has_name, title, text, fields, is_struct):
        self.c_name = c_name  # hp_st_x, hp_msg_x, hp_msg_x_reply
        self.has_name = has_name
        self.title = title  # for error texts
        self.text = text
        self.fields = fields
        self.is_struct = is_struct

    def desc(self):
        return "hp_desc_" + self.c_name[len("hp_") :]

    def has(self, field):
        return f"HP_HAS_{self.has_name}_{field.name.upper()}"


def struct_group(struct):
    upper = struct.name.upper()
    name = struct.name
    return Group(f"hp_st_{name}", f"ST_{upper}", name, struct.text, struct.fields, True)


def message_groups(message):
    name = message.c_name()
    groups = [
        Group(f"hp_msg_{name}", name.upper(), message.method, message.text, message.fields, False)
    ]
    if message.kind == "call":
        title = f"{message.method} reply"
        text = f"The reply to {message.method}."
        has_name = f"{name.upper()}_REPLY"
        groups.append(Group(f"hp_msg_{name}_reply", has_name, title, text, message.reply, False))
    return groups


def all_groups(protocol):
    groups = [struct_group(s) for s in protocol.structs]
    for message in protocol.messages:
        groups += message_groups(message)
    return groups


# --------------------------------------------------------------------------------------- header


def limits_text(field):
    """What a field may hold, for comments."""
    parts = []
    if field.unit:
        parts.append(field.unit)
    if field.has_min or field.has_max:
        low = field.min if field.has_min or field.min == 0 else "..."
        parts.append(f"{low}..{field.max if field.has_max else 'max'}")
    if field.max_items:
        parts.append(f"<= {field.max_items} items")
    if field.max_len:
        parts.append(f"<= {field.max_len} bytes{' each' if field.max_items else ''}")
    if field.required:
        parts.append("required")
    if field.default is not None:
        default = field.default
        parts.append(f"default {str(default).lower() if isinstance(default, bool) else default}")
    return ", ".join(parts)


def header_enum(enum):
    out = [comment(enum.text), f"enum hp_{enum.name} {{\n"]
    for value in enum.values:
        out.append(comment(value.text, "    "))
        out.append(f"    HP_{enum.name.upper()}_{value.name.upper()} = {value.value},\n")
    out.append("};\n\n")
    out.append(f"extern const struct hp_codec_enum hp_{enum.name}_enum;\n\n")
    out.append(comment(f"Its name in docs/protocol.md ('{enum.values[0].name}'), or 'unknown'."))
    out.append(f"const char *hp_{enum.name}_name(enum hp_{enum.name} value);\n\n")
    out.append("/* The value of that name; false: there is none. */\n")
    out.append(f"bool hp_{enum.name}_find(struct hp_str name, enum hp_{enum.name} *ret);\n\n")
    return "".join(out)


def header_group(group):
    out = [comment(group.text)]
    for index, field in enumerate(group.fields):
        out.append(f"#define {group.has(field)} (UINT64_C(1) << {index})\n")
    out.append(f"struct {group.c_name} {{\n    uint64_t has;\n")
    if group.is_struct:
        out.append("    struct hp_bin raw; /* if its data is set: encoded, see codec.h */\n")
    for field in group.fields:
        limits = limits_text(field)
        out.append(comment(field.text + (f" ({limits})" if limits else ""), "    "))
        out.append(f"    {c_type(field)} {field.c_name};\n")
    out.append("};\n")
    name = group.c_name
    out.append(f"extern const struct hp_codec_desc {group.desc()};\n")
    out.append(f"void {name}_init(struct {name} *ret);\n")
    out.append(
        f"enum hp_err {name}_decode(const struct hp_wire_obj *map, struct hp_arena *arena,\n"
        f"    struct {name} *ret, struct hp_error *reterr) HP_MUST_CHECK;\n"
    )
    out.append(
        f"enum hp_err {name}_encode(struct hp_buf *buf,\n"
        f"    const struct {name} *msg) HP_MUST_CHECK;\n\n"
    )
    if group.is_struct:
        plain = name[len("hp_st_") :]
        out.append(
            f"struct hp_list_{plain} {{\n    struct {name} *items;\n    uint32_t count;\n}};\n\n"
        )
    return "".join(out)


HEADER_INTRO = """\
/*
 * The messages of the protocol as C structs. For each group G (hp_st_<struct>, hp_msg_<method>,
 * hp_msg_<method>_reply):
 *
 *   G_init    zeroes it and fills in the defaults.
 *   G_decode  see hp_codec_decode(): strict; bytes are of the frame, lists of the arena.
 *   G_encode  see hp_codec_encode(): appends the map of the fields whose has bit is set.
 *   hp_desc_  the table behind both, for generic code (hp_codec_encode with an hp_error).
 */
"""


def message_header(protocol, source):
    out = [HEAD.format(source=source), HEADER_INTRO]
    out.append("#ifndef HP_PROTO_HP_MSG_H\n#define HP_PROTO_HP_MSG_H\n\n")
    out.append('#include "common/base/bin.h"\n#include "proto/codec.h"\n\n')
    out.append("#include <stdbool.h>\n#include <stdint.h>\n\n")
    out.append(f"#define HP_PROTOCOL_VERSION {protocol.version}u\n\n")
    for limit in protocol.limits:
        out.append(comment(f"{limit.text} [{limit.unit}]"))
        out.append(f"#define HP_LIMIT_{limit.name.upper()} {c_unsigned(limit.value)}\n")
    out.append("\n/* Errors a reply may carry. */\nenum hp_rpc_error_code {\n")
    out.append("    HP_RPC_ERROR_NONE = 0,\n")
    for error in protocol.errors:
        out.append(comment(error.text, "    "))
        out.append(f"    HP_RPC_ERROR_{error.name.upper()},\n")
    out.append(f"}};\n#define HP_RPC_ERROR_COUNT {len(protocol.errors) + 1}u\n\n")
    out.append("/* The stable word ('not_found'); 'none' for NONE and for what is no code. */\n")
    out.append("const char *hp_rpc_error_name(enum hp_rpc_error_code code);\n\n")
    out.append("/* The code of a word; HP_RPC_ERROR_NONE: not known. */\n")
    out.append("enum hp_rpc_error_code hp_rpc_error_find(struct hp_str name);\n\n")
    out += [header_enum(enum) for enum in protocol.enums]
    out += [header_group(group) for group in all_groups(protocol)]
    out.append("/* The methods. */\nenum hp_method {\n    HP_METHOD_NONE = 0,\n")
    for message in protocol.messages:
        out.append(f"    HP_METHOD_{message.c_name().upper()},\n")
    out.append(f"}};\n#define HP_METHOD_COUNT {len(protocol.messages) + 1}u\n\n")
    out.append(METHOD_HEADER)
    out.append("\n#endif\n")
    return "".join(out)


METHOD_HEADER = """\
/* Who may send a method. */
#define HP_FROM_CLIENT 1u
#define HP_FROM_WORKER 2u
#define HP_FROM_BROKER 4u

struct hp_method_info {
    const char *name;
    bool is_notify;    /* no reply */
    bool before_hello; /* allowed as the first message */
    uint8_t from;      /* HP_FROM_* bits */
    const struct hp_codec_desc *params;
    const struct hp_codec_desc *reply; /* NULL: is_notify */
};

/* Facts of a method; NONE and what is no method give the entry of NONE (name "", from 0). */
const struct hp_method_info *hp_method_info(enum hp_method method);

/* The method of that name, or HP_METHOD_NONE. */
enum hp_method hp_method_find(struct hp_str name);
"""

# --------------------------------------------------------------------------------------- source


def source_names(function, tag, entries, fallback):
    """A function from a value to its name: entries are (constant, name)."""
    out = [f"const char *{function}({tag} value) {{\n    switch (value) {{\n"]
    for constant, name in entries:
        out.append(f"    case {constant}:\n        return {c_string(name)};\n")
    out.append(f"    }}\n    return {c_string(fallback)};\n}}\n\n")
    return "".join(out)


def source_enum(enum):
    upper = f"HP_{enum.name.upper()}"
    entries = [(f"{upper}_{v.name.upper()}", v.name) for v in enum.values]
    numbers = ", ".join(f"{v.value}u" for v in enum.values)
    names = ", ".join(c_string(v.name) for v in enum.values)
    table = f"hp_{enum.name}"
    return (
        f"static const uint32_t {table}_values[] = {{{numbers}}};\n"
        f"static const char *const {table}_names[] = {{{names}}};\n"
        f"const struct hp_codec_enum {table}_enum = {{\n"
        f"    .name = {c_string(enum.name)},\n"
        f"    .values = {table}_values,\n"
        f"    .names = {table}_names,\n"
        f"    .count = {len(enum.values)},\n}};\n\n"
        + source_names(f"hp_{enum.name}_name", f"enum hp_{enum.name}", entries, "unknown")
        + f"bool hp_{enum.name}_find(struct hp_str name, enum hp_{enum.name} *ret) {{\n"
        f"    int index = find_name({table}_names, {len(enum.values)}, name);\n\n"
        f"    if (index < 0) {{\n        return false;\n    }}\n"
        f"    *ret = (enum hp_{enum.name}){table}_values[index];\n    return true;\n}}\n\n"
    )


def source_field(group, field):
    parts = [
        f".name = {c_string(field.name)}",
        f".name_size = {len(field.name)}",
        f".type = HP_CODEC_{field.type.upper()}",
    ]
    if field.item:
        parts.append(f".item_type = HP_CODEC_{field.item.upper()}")
    for flag, on in (
        ("required", field.required),
        ("open", field.open),
        ("has_default", field.default is not None),
    ):
        if on:
            parts.append(f".{flag} = true")
    parts.append(f".offset = offsetof(struct {group.c_name}, {field.c_name})")
    if field.max_len:
        parts.append(f".max_len = {field.max_len}u")
    if field.max_items:
        parts.append(f".max_items = {field.max_items}u")
    if field.type in ("u32", "u64", "i64", "enum") or field.item in ("u64", "i64"):
        parts.append(f".min = {c_bits(field, field.min)}")
        parts.append(f".max = {c_bits(field, field.max)}")
    if isinstance(field.default, str):
        parts.append(f".default_str = {c_string(field.default)}")
    elif field.default is not None:
        parts.append(f".default_ = {c_bits(field, int(field.default))}")
    if field.type == "enum":
        parts.append(f".values = &hp_{field.ref}_enum")
    if "struct" in (field.type, field.item):
        parts.append(f".sub = &hp_desc_st_{field.ref}")
    body = "".join(f"        {part},\n" for part in parts)
    return f"    {{\n{body}    }},\n"


def source_group(group):
    name, table = group.c_name, group.c_name + "_fields"
    out = []
    if group.fields:
        out.append(f"static const struct hp_codec_field {table}[] = {{\n")
        out += [source_field(group, field) for field in group.fields]
        out.append("};\n\n")
    required = sum(1 << i for i, f in enumerate(group.fields) if f.required)
    filled = sum(1 << i for i, f in enumerate(group.fields) if f.type == "struct" or f.default)
    out.append(
        f"const struct hp_codec_desc {group.desc()} = {{\n"
        f"    .name = {c_string(group.title)},\n"
        f"    .fields = {table if group.fields else 'NULL'},\n"
        f"    .count = {len(group.fields)},\n"
        f"    .size = sizeof(struct {name}),\n"
        f"    .required = UINT64_C({required}),\n"
        f"    .filled = UINT64_C({filled}),\n"
        f"    .is_struct = {'true' if group.is_struct else 'false'},\n}};\n"
        f"HP_STATIC_ASSERT(offsetof(struct {name}, has) == 0, \"begins like hp_codec_head\");\n"
    )
    if group.is_struct:
        out.append(
            f"HP_STATIC_ASSERT(offsetof(struct {name}, raw) ==\n"
            f"    offsetof(struct hp_codec_head, raw), \"begins like hp_codec_head\");\n"
        )
    out.append(
        f"\nvoid {name}_init(struct {name} *ret) {{\n"
        f"    hp_codec_defaults(&{group.desc()}, ret);\n}}\n\n"
        f"enum hp_err {name}_decode(const struct hp_wire_obj *map, struct hp_arena *arena,\n"
        f"    struct {name} *ret, struct hp_error *reterr) {{\n"
        f"    return hp_codec_decode(&{group.desc()}, map, arena, ret, reterr);\n}}\n\n"
        f"enum hp_err {name}_encode(struct hp_buf *buf, const struct {name} *msg) {{\n"
        f"    return hp_codec_encode(&{group.desc()}, buf, msg, NULL);\n}}\n\n"
    )
    return "".join(out)


def source_methods(protocol):
    out = ["static const struct hp_method_info methods[] = {\n"]
    out.append('    [HP_METHOD_NONE] = {.name = "", .params = NULL, .reply = NULL},\n')
    for message in protocol.messages:
        groups = message_groups(message)
        reply = f"&{groups[1].desc()}" if message.kind == "call" else "NULL"
        out.append(
            f"    [HP_METHOD_{message.c_name().upper()}] = {{\n"
            f"        .name = {c_string(message.method)},\n"
            f"        .is_notify = {'true' if message.kind == 'notify' else 'false'},\n"
            f"        .before_hello = {'true' if message.before_hello else 'false'},\n"
            f"        .from = {SENDER_BITS[message.sender]},\n"
            f"        .params = &{groups[0].desc()},\n"
            f"        .reply = {reply},\n    }},\n"
        )
    out.append("};\n\n")
    out.append(
        "const struct hp_method_info *hp_method_info(enum hp_method method) {\n"
        "    return &methods[(size_t)method < HP_METHOD_COUNT ? method : HP_METHOD_NONE];\n}\n\n"
    )
    out.append("enum hp_method hp_method_find(struct hp_str name) {\n    switch (name.size) {\n")
    by_size = {}
    for message in protocol.messages:
        by_size.setdefault(len(message.method), []).append(message)
    for size in sorted(by_size):
        out.append(f"    case {size}:\n")
        for message in by_size[size]:
            out.append(
                f"        if (memcmp(name.data, {c_string(message.method)}, {size}) == 0) {{\n"
                f"            return HP_METHOD_{message.c_name().upper()};\n        }}\n"
            )
        out.append("        break;\n")
    out.append("    default:\n        break;\n    }\n    return HP_METHOD_NONE;\n}\n")
    return "".join(out)


FIND_NAME = """\
/* Index of a name in a table, or -1. */
static int find_name(const char *const *names, int count, struct hp_str name) {
    for (int i = 0; i < count; i++) {
        if (hp_str_eq_c(name, names[i])) {
            return i;
        }
    }
    return -1;
}

"""


def message_source(protocol, source):
    out = [HEAD.format(source=source)]
    out.append('#include "proto/hp_msg.h"\n\n#include "common/base/assert.h"\n\n')
    out.append("#include <stddef.h>\n#include <string.h>\n\n")
    out.append(FIND_NAME)
    out += [source_enum(enum) for enum in protocol.enums]
    names = ", ".join(c_string(n) for n in ["none"] + [e.name for e in protocol.errors])
    count = len(protocol.errors) + 1
    out.append(
        f"static const char *const error_names[] = {{{names}}};\n\n"
        "const char *hp_rpc_error_name(enum hp_rpc_error_code code) {\n"
        "    return error_names[(size_t)code < HP_RPC_ERROR_COUNT ? code : HP_RPC_ERROR_NONE];\n"
        "}\n\n"
        "enum hp_rpc_error_code hp_rpc_error_find(struct hp_str name) {\n"
        f"    int index = find_name(error_names, {count}, name);\n\n"
        "    return index < 0 ? HP_RPC_ERROR_NONE : (enum hp_rpc_error_code)index;\n}\n\n"
    )
    out += [source_group(group) for group in all_groups(protocol)]
    out.append(source_methods(protocol))
    return "".join(out)


# --------------------------------------------------------------------------------------- states


def states_header(machines, source):
    out = [HEAD.format(source=source)]
    out.append(
        "/* State machines: for machine M, enum hp_sm_M, its names and the table of its moves. */\n"
        "#ifndef HP_PROTO_HP_STATES_H\n#define HP_PROTO_HP_STATES_H\n\n#include <stdbool.h>\n\n"
    )
    for machine in machines:
        tag, upper = f"enum hp_sm_{machine.name}", f"HP_SM_{machine.name.upper()}"
        out.append(comment(machine.text) + f"{tag} {{\n")
        for number, state in enumerate(machine.states):
            out.append(comment(state.text, "    "))
            out.append(f"    {upper}_{state.name.upper()} = {number},\n")
        out.append(f"}};\n#define {upper}_COUNT {len(machine.states)}u\n\n")
        out.append("/* The state's name, or 'unknown'. */\n")
        out.append(f"const char *hp_sm_{machine.name}_name({tag} state);\n\n")
        out.append("/* True if nothing leaves the state. */\n")
        out.append(f"bool hp_sm_{machine.name}_is_terminal({tag} state);\n\n")
        out.append("/* True if the definition allows this move; false for what is no state. */\n")
        out.append(f"bool hp_{machine.name}_may_move({tag} from, {tag} to);\n\n")
    out.append("#endif\n")
    return "".join(out)


def states_source(machines, source):
    out = [HEAD.format(source=source)]
    out.append('#include "proto/hp_states.h"\n\n#include <stdint.h>\n\n')
    for machine in machines:
        tag, upper = f"enum hp_sm_{machine.name}", f"HP_SM_{machine.name.upper()}"
        names = {s.name: f"{upper}_{s.name.upper()}" for s in machine.states}
        entries = [(names[s.name], s.name) for s in machine.states]
        out.append(source_names(f"hp_sm_{machine.name}_name", tag, entries, "unknown"))
        out.append(f"static const uint32_t {machine.name}_moves[{upper}_COUNT] = {{\n")
        for state in machine.states:
            bits = [names[t] for m in machine.moves if m.source == state.name for t in m.to]
            mask = " |\n        ".join(f"1u << {bit}" for bit in bits) or "0"
            out.append(f"    [{names[state.name]}] =\n        {mask},\n")
        out.append("};\n\n")
        out.append(
            f"bool hp_sm_{machine.name}_is_terminal({tag} state) {{\n"
            f"    return (unsigned)state < {upper}_COUNT && {machine.name}_moves[state] == 0;\n"
            "}\n\n"
            f"bool hp_{machine.name}_may_move({tag} from, {tag} to) {{\n"
            f"    return (unsigned)from < {upper}_COUNT && (unsigned)to < {upper}_COUNT &&\n"
            f"           ({machine.name}_moves[from] >> (unsigned)to & 1u) != 0;\n}}\n\n"
        )
    return "".join(out).rstrip("\n") + "\n"
