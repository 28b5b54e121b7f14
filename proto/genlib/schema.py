# SPDX-License-Identifier: BSD-2-Clause
"""Reads hostpool.toml and states.toml and refuses what is not right, naming the item.

Everything the emitters need is worked out here, so that they only print. Standard library only.
"""

import dataclasses
import re
import tomllib

U32_MAX = 2**32 - 1
U64_MAX = 2**64 - 1
I64_MIN, I64_MAX = -(2**63), 2**63 - 1

INT_RANGES = {"u32": (0, U32_MAX), "u64": (0, U64_MAX), "i64": (I64_MIN, I64_MAX)}
SCALARS = ("bool", "u32", "u64", "i64", "str", "bin")
LIST_ITEMS = ("u64", "i64", "str", "bin")
FIELDS_MAX = 64  # one has bit each
SENDERS = ("client", "worker", "broker", "any")

# What may not be the name of a C field: keywords of C and macros of the standard headers.
RESERVED = set(
    """auto break case char const continue default do double else enum extern float for goto if
    inline int long register restrict return short signed sizeof static struct switch typedef
    typeof union unsigned void volatile while alignas alignof asm bool true false nullptr
    constexpr thread_local errno assert stdin stdout stderr linux unix major minor
    offsetof""".split()
)

# C tags and prefixes that hand-written code has already.
TAKEN_ENUMS = set("err method rpc_type rpc_error_code wire_type tok_status codec_type".split())


class SchemaError(Exception):
    """A bad definition; the text names the item and the field."""


@dataclasses.dataclass
class Limit:
    name: str
    value: int
    unit: str
    text: str


@dataclasses.dataclass
class Error:
    name: str
    text: str


@dataclasses.dataclass
class EnumValue:
    name: str
    value: int
    text: str


@dataclasses.dataclass
class Enum:
    name: str
    text: str
    values: list


@dataclasses.dataclass
class Field:
    name: str
    c_name: str
    type: str  # bool u32 u64 i64 str bin enum struct list
    item: str  # of a list: u64 i64 str bin struct
    ref: str  # name of the enum or struct
    text: str
    since: int
    required: bool
    unit: str
    min: int
    max: int
    max_len: int
    max_items: int
    default: object  # None: none
    open: bool
    has_min: bool
    has_max: bool

    def type_text(self):
        inner = f"{self.item}:{self.ref}" if self.item == "struct" else self.item
        if self.type == "list":
            return f"list:{inner}"
        return f"{self.type}:{self.ref}" if self.ref else self.type


@dataclasses.dataclass
class Struct:
    name: str
    text: str
    fields: list


@dataclasses.dataclass
class Message:
    method: str
    kind: str
    sender: str
    before_hello: bool
    since: int
    text: str
    fields: list
    reply: list

    def c_name(self):
        return self.method.replace(".", "_")


@dataclasses.dataclass
class Protocol:
    name: str
    version: int
    text: str
    limits: list
    errors: list
    enums: list
    structs: list  # a struct comes after those it contains
    messages: list

    def enum(self, name):
        return next(e for e in self.enums if e.name == name)

    def limit(self, name):
        return next((x.value for x in self.limits if x.name == name), None)


@dataclasses.dataclass
class Move:
    source: str
    to: list
    on: str


@dataclasses.dataclass
class State:
    name: str
    text: str
    terminal: bool


@dataclasses.dataclass
class Machine:
    name: str
    text: str
    states: list
    moves: list


def fail(where, why):
    raise SchemaError(f"{where}: {why}")


def load(path):
    """The tables of a TOML file."""
    with open(path, "rb") as file:
        try:
            return tomllib.load(file)
        except tomllib.TOMLDecodeError as error:
            raise SchemaError(f"{path}: {error}") from error


def check_keys(where, table, known):
    if not isinstance(table, dict):
        fail(where, "must be a table")
    for key in table:
        if key not in known:
            fail(where, f"unknown key '{key}'")


def take(where, table, key, kind, default=None):
    """table[key], which must be of the Python type `kind`; default None: it must be there."""
    if key not in table:
        if default is None:
            fail(where, f"'{key}' is missing")
        return default
    value = table[key]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        names = {str: "a string", int: "an integer", bool: "true or false", list: "a list"}
        fail(where, f"'{key}' must be {names[kind]}")
    return value


def take_text(where, table):
    text = take(where, table, "text", str)
    if not text.strip():
        fail(where, "'text' is empty")
    return text


def take_name(where, table, key="name"):
    name = take(where, table, key, str)
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        fail(where, f"'{name}' is not a name: lower-case letters, digits, '_'")
    if "__" in name or name.endswith("_"):
        fail(where, f"'{name}' is not a name: '_' only between words")
    return name


def unique(where, seen, name):
    if name in seen:
        fail(where, f"'{name}' is defined twice")
    seen.add(name)


def named(kind, table, index):
    name = table.get("name", table.get("method")) if isinstance(table, dict) else None
    return f"{kind} {name}" if isinstance(name, str) else f"{kind} number {index + 1}"


class Reader:
    """Turns the tables of a definition into a Protocol."""

    def __init__(self, tables):
        self.tables = tables
        self.limits = []
        self.enums = {}
        self.structs = {}
        self.struct_names = set()
        self.version = 1

    def read(self):
        known = ("protocol", "limit", "enum", "error", "struct", "message")
        check_keys("definition", self.tables, known)
        head = self.tables.get("protocol")
        if head is None:
            fail("protocol", "is missing")
        check_keys("protocol", head, ("name", "version", "text"))
        self.version = take("protocol", head, "version", int)
        if self.version < 1:
            fail("protocol", "'version' must be at least 1")
        self.limits = self.each("limit", self.read_limit)
        errors = self.each("error", self.read_error)
        for enum in self.each("enum", self.read_enum):
            self.enums[enum.name] = enum
        self.struct_names = {
            s["name"] for s in self.tables.get("struct", []) if isinstance(s.get("name"), str)
        }
        for struct in self.each("struct", self.read_struct):
            self.structs[struct.name] = struct
        messages = self.each("message", self.read_message)
        self.check_c_names(messages)
        return Protocol(
            name=take_name("protocol", head),
            version=self.version,
            text=take_text("protocol", head),
            limits=self.limits,
            errors=errors,
            enums=list(self.enums.values()),
            structs=self.in_order(),
            messages=messages,
        )

    def each(self, kind, read):
        items = self.tables.get(kind, [])
        if not isinstance(items, list):
            fail(kind, f"must be written as [[{kind}]]")
        seen = set()
        result = []
        for index, table in enumerate(items):
            where = named(kind, table, index)
            item = read(where, table)
            unique(where, seen, getattr(item, "name", None) or item.method)
            result.append(item)
        return result

    def read_limit(self, where, table):
        check_keys(where, table, ("name", "value", "unit", "text"))
        value = take(where, table, "value", int)
        if not 0 <= value <= U64_MAX:
            fail(where, "'value' must be 0..2^64-1")
        unit = take(where, table, "unit", str)
        return Limit(take_name(where, table), value, unit, take_text(where, table))

    def read_error(self, where, table):
        check_keys(where, table, ("name", "text"))
        name = take_name(where, table)
        if name == "none":
            fail(where, "'none' is reserved for 'no error'")
        return Error(name, take_text(where, table))

    def read_enum(self, where, table):
        check_keys(where, table, ("name", "text", "values"))
        name = take_name(where, table)
        if name in TAKEN_ENUMS:
            fail(where, f"'{name}' is taken: the C code has an enum hp_{name}")
        items = take(where, table, "values", list)
        if not items:
            fail(where, "has no values")
        names, numbers, values = set(), set(), []
        for index, item in enumerate(items):
            at = f"{where}: {named('value', item, index)}"
            check_keys(at, item, ("name", "value", "text"))
            number = take(at, item, "value", int)
            if not 0 <= number <= U32_MAX:
                fail(at, "'value' must be 0..2^32-1")
            unique(at, names, take_name(at, item))
            unique(at, numbers, number)
            values.append(EnumValue(item["name"], number, take_text(at, item)))
        return Enum(name, take_text(where, table), values)

    def read_struct(self, where, table):
        check_keys(where, table, ("name", "text", "field"))
        name = take_name(where, table)
        text = take_text(where, table)
        fields = self.read_fields(where, table, "field", ("has", "raw"))
        if not fields:
            fail(where, "has no fields")
        return Struct(name, text, fields)

    def read_message(self, where, table):
        known = ("method", "kind", "from", "before_hello", "since", "text", "field", "reply")
        check_keys(where, table, known)
        method = take(where, table, "method", str)
        if not re.fullmatch(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)?", method):
            fail(where, f"'{method}' is not a method: a name, or two with a '.' between")
        kind = take(where, table, "kind", str)
        if kind not in ("call", "notify"):
            fail(where, f"'kind' must be call or notify, not '{kind}'")
        sender = take(where, table, "from", str)
        if sender not in SENDERS:
            fail(where, f"'from' must be one of {', '.join(SENDERS)}, not '{sender}'")
        if kind == "notify" and "reply" in table:
            fail(where, "a notify has no reply")
        return Message(
            method=method,
            kind=kind,
            sender=sender,
            before_hello=take(where, table, "before_hello", bool, False),
            since=self.take_since(where, table),
            text=take_text(where, table),
            fields=self.read_fields(where, table, "field", ("has",)),
            reply=self.read_fields(where, table, "reply", ("has",)),
        )

    def take_since(self, where, table):
        since = take(where, table, "since", int, 1)
        if not 1 <= since <= self.version:
            fail(where, f"'since' must be 1..{self.version}, the protocol's version")
        return since

    def read_fields(self, where, table, key, taken):
        items = take(where, table, key, list, [])
        part = "reply field" if key == "reply" else "field"
        names, c_names, fields = set(), set(taken), []
        for index, item in enumerate(items):
            at = f"{where}: {named(part, item, index)}"
            field = self.read_field(at, item)
            unique(at, names, field.name)
            if field.c_name in c_names:
                fail(at, f"the C struct has a member '{field.c_name}' already: give it a c_name")
            c_names.add(field.c_name)
            fields.append(field)
        keys_max = min(FIELDS_MAX, self.limit("map_keys") or FIELDS_MAX)
        if len(fields) > keys_max:
            fail(where, f"has {len(fields)} {part}s, at most {keys_max} fit")
        return fields

    def limit(self, name):
        return next((x.value for x in self.limits if x.name == name), None)

    def read_field(self, where, table):
        known = ("name", "c_name", "type", "text", "since", "required", "unit", "min", "max")
        known += ("max_len", "max_items", "default", "open")
        check_keys(where, table, known)
        name = take_name(where, table)
        c_name = take_name(where, table, "c_name") if "c_name" in table else name
        if c_name in RESERVED:
            fail(where, f"'{c_name}' is a reserved word of C: give it a c_name")
        kind, item, ref = self.read_type(where, take(where, table, "type", str))
        field = Field(
            name=name,
            c_name=c_name,
            type=kind,
            item=item,
            ref=ref,
            text=take_text(where, table),
            since=self.take_since(where, table),
            required=take(where, table, "required", bool, False),
            unit=take(where, table, "unit", str, ""),
            min=0,
            max=0,
            max_len=0,
            max_items=0,
            default=None,
            open=take(where, table, "open", bool, False),
            has_min="min" in table,
            has_max="max" in table,
        )
        self.read_range(where, table, field)
        self.read_sizes(where, table, field)
        self.read_default(where, table, field)
        if field.open and kind != "enum":
            fail(where, "'open' is only for an enum")
        return field

    def read_type(self, where, text):
        """(type, item, ref) of a type as written."""
        kind, _, rest = text.partition(":")
        if text in SCALARS:
            return text, "", ""
        if kind == "enum":
            if rest not in self.enums:
                fail(where, f"unknown enum '{rest}'")
            return "enum", "", rest
        if kind == "struct":
            self.check_struct(where, rest)
            return "struct", "", rest
        if kind == "list":
            if rest in LIST_ITEMS:
                return "list", rest, ""
            inner, _, ref = rest.partition(":")
            if inner == "struct":
                self.check_struct(where, ref)
                return "list", "struct", ref
            fail(where, f"a list of '{rest}' is not possible")
        fail(where, f"unknown type '{text}'")

    def check_struct(self, where, name):
        if name not in self.struct_names:
            fail(where, f"unknown struct '{name}'")

    def read_range(self, where, table, field):
        kind = field.item if field.type == "list" else field.type
        low, high = INT_RANGES.get(kind, (0, U32_MAX))
        if kind not in INT_RANGES:
            for key in ("min", "max"):
                if key in table:
                    fail(where, f"'{key}' is only for integers")
        field.min = take(where, table, "min", int, low) if "min" in table else low
        field.max = take(where, table, "max", int, high) if "max" in table else high
        for key, value in (("min", field.min), ("max", field.max)):
            if not low <= value <= high:
                fail(where, f"'{key}' does not fit in {kind}")
        if field.min > field.max:
            fail(where, "'min' is greater than 'max'")

    def read_sizes(self, where, table, field):
        kind = field.item if field.type == "list" else field.type
        if kind in ("str", "bin"):
            field.max_len = self.take_size(where, table, "max_len", "frame_bytes")
        elif "max_len" in table:
            fail(where, "'max_len' is only for str and bin")
        if field.type == "list":
            field.max_items = self.take_size(where, table, "max_items", "elements")
        elif "max_items" in table:
            fail(where, "'max_items' is only for lists")

    def take_size(self, where, table, key, limit_name):
        if key not in table:
            fail(where, f"'{key}' is missing: every length has a limit")
        value = take(where, table, key, int)
        most = self.limit(limit_name)
        most = U32_MAX if most is None else most
        if not 1 <= value <= most:
            fail(where, f"'{key}' must be 1..{most}")
        return value

    def read_default(self, where, table, field):
        if "default" not in table:
            return
        if field.required:
            fail(where, "a required field has no default")
        value = table["default"]
        if field.type == "bool":
            good = isinstance(value, bool)
        elif field.type in INT_RANGES:
            good = isinstance(value, int) and not isinstance(value, bool)
            if good and not field.min <= value <= field.max:
                fail(where, f"'default' must be {field.min}..{field.max}")
        elif field.type == "enum":
            value, good = self.enum_default(where, field, value)
        elif field.type == "str":
            good = isinstance(value, str) and "\0" not in value
            if good and len(value.encode()) > field.max_len:
                fail(where, "'default' is longer than max_len")
        else:
            fail(where, f"a {field.type} can not have a default")
        if not good:
            fail(where, f"'default' is no {field.type}")
        field.default = value

    def enum_default(self, where, field, value):
        """The number of a default given as number or name."""
        for entry in self.enums[field.ref].values:
            if value in (entry.value, entry.name) and not isinstance(value, bool):
                return entry.value, True
        fail(where, f"'default' is no value of {field.ref}")

    def in_order(self):
        """Structs, each after those it contains; a struct that contains itself is refused."""
        done, order = set(), []

        def visit(struct, trail):
            if struct.name in trail:
                loop = " -> ".join(trail[trail.index(struct.name) :] + [struct.name])
                fail(f"struct {struct.name}", f"contains itself: {loop}")
            if struct.name in done:
                return
            for field in struct.fields:
                if field.ref in self.structs and "struct" in (field.type, field.item):
                    visit(self.structs[field.ref], trail + [struct.name])
            done.add(struct.name)
            order.append(struct)

        for struct in self.structs.values():
            visit(struct, [])
        return order

    def check_c_names(self, messages):
        """Two items whose C names would be the same: 'a.b' and 'a_b', a method 'x_reply'."""
        seen = set()
        for message in messages:
            where = f"message {message.method}"
            names = [message.c_name()]
            if message.kind == "call":
                names.append(message.c_name() + "_reply")
            for name in names:
                if name in seen:
                    fail(where, f"its C name '{name}' is taken by another message")
                seen.add(name)
            if message.c_name().startswith("st_"):
                fail(where, "a method may not begin with 'st': HP_HAS_ST_ belongs to structs")
        constants = set()
        for enum in self.enums.values():
            for value in enum.values:
                name = f"{enum.name}_{value.name}"
                if name in constants:
                    fail(f"enum {enum.name}", f"its C constant HP_{name.upper()} is taken")
                constants.add(name)


def read_protocol(path):
    return Reader(load(path)).read()


def read_state(where, table):
    check_keys(where, table, ("name", "text", "terminal"))
    terminal = take(where, table, "terminal", bool, False)
    return State(take_name(where, table), take_text(where, table), terminal)


def read_moves(where, table, states):
    by_name = {s.name: s for s in states}
    pairs, moves = set(), []
    for index, item in enumerate(take(where, table, "move", list)):
        at = f"{where}: move number {index + 1}"
        check_keys(at, item, ("from", "to", "on"))
        source = take(at, item, "from", str)
        at = f"{where}: move from {source}"
        targets = take(at, item, "to", list)
        if not targets:
            fail(at, "'to' is empty")
        for name in [source] + targets:
            if name not in by_name:
                fail(at, f"unknown state '{name}'")
        if by_name[source].terminal:
            fail(at, "a terminal state has no moves")
        for target in targets:
            unique(at, pairs, f"{source} -> {target}")
        on = take(at, item, "on", str)
        if not on.strip():
            fail(at, "'on' is empty")
        moves.append(Move(source, targets, on))
    return moves


def check_reach(where, machine):
    """Every state can be reached from the first, and every one that is not terminal can be left."""
    reached, todo = set(), [machine.states[0].name]
    while todo:
        name = todo.pop()
        if name not in reached:
            reached.add(name)
            todo += [t for m in machine.moves if m.source == name for t in m.to]
    for state in machine.states:
        if state.name not in reached:
            fail(where, f"state '{state.name}' can not be reached from '{machine.states[0].name}'")
        if not state.terminal and not any(m.source == state.name for m in machine.moves):
            fail(where, f"state '{state.name}' is not terminal and has no moves")


def read_machines(path):
    tables = load(path)
    check_keys("states", tables, ("machine",))
    seen, machines = set(), []
    for index, table in enumerate(tables.get("machine", [])):
        where = named("machine", table, index)
        check_keys(where, table, ("name", "text", "state", "move"))
        name = take_name(where, table)
        unique(where, seen, name)
        names, states = set(), []
        for number, item in enumerate(take(where, table, "state", list)):
            at = f"{where}: {named('state', item, number)}"
            state = read_state(at, item)
            unique(at, names, state.name)
            states.append(state)
        if not 1 <= len(states) <= 32:
            fail(where, "must have 1..32 states")
        machine = Machine(
            name, take_text(where, table), states, read_moves(where, table, states)
        )
        check_reach(where, machine)
        machines.append(machine)
    return machines
