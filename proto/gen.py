#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Makes C, Python, documentation and the fuzz dictionary from the definition of the protocol.

Usage (from anywhere):
  gen.py --c DIR       write hp_msg.h, hp_msg.c, hp_states.h, hp_states.c to DIR (for the build)
  gen.py --write       rewrite the committed outputs: python/hostpool/_messages.py,
                       docs/protocol.md, tests/fuzz/hostpool.dict
  gen.py --check       exit 1 if a committed output is not what --write would make
  gen.py --all DIR     write every output to DIR (the golden tests do this)
  --definition FILE, --states FILE   other inputs than proto/hostpool.toml, proto/states.toml

Standard library only. A bad definition ends with status 1 and one line that names item and field.

THE LANGUAGE OF hostpool.toml

[protocol]   name, version (>= 1), text
[[limit]]    name, value, unit, text              C: HP_LIMIT_<NAME>
[[error]]    name (a stable word), text           C: HP_RPC_ERROR_<NAME>
[[enum]]     name, text, values = [{name, value, text}, ...]; an unsigned integer on the wire
             C: enum hp_<enum>, HP_<ENUM>_<VALUE>, hp_<enum>_name(), hp_<enum>_find()
[[struct]]   name, text, field = [...]            C: struct hp_st_<struct>, struct hp_list_<struct>
[[message]]  method ("task.submit"), kind (call, notify), from (client, worker, broker, any: either
             of client and worker), before_hello (false), since (1), text, field = [...] (params),
             reply = [...] (result; only of a call)
             C: struct hp_msg_<method>, hp_msg_<method>_reply, HP_METHOD_<METHOD>; '.' becomes '_'

A field is a table:
  name       key on the wire            type       see below          text       meaning, for people
  required   must be there (false)      default    value if absent: bool, integers, enum, str
  since      protocol version (1)       unit       "ms", "bytes"...   open       enum: others pass
  min, max   of integers                max_len    bytes of str, bin (and of each one in a list);
                                                   it must be given
  max_items  of a list; must be given   c_name     name in C where `name` is a reserved word there
Types: bool u32 u64 i64 str bin enum:NAME struct:NAME, and list:T of u64 i64 str bin struct:NAME.
Fields are append-only: their order is the order on the wire and the numbering of the has bits
(HP_HAS_<METHOD>_<FIELD>, HP_HAS_<METHOD>_REPLY_<FIELD>, HP_HAS_ST_<STRUCT>_<FIELD>). Names are
lower case with '_' between words. text is required everywhere. A struct can not contain itself.

THE LANGUAGE OF states.toml

[[machine]]  name, text, state = [{name, text, terminal (false)}, ...], the first is initial,
             move = [{from, to = [...], on}, ...]; all states must be reachable, terminal ones have
             no moves, all others have
             C: enum hp_sm_<machine>, HP_SM_<MACHINE>_<STATE>, hp_sm_<machine>_name(),
             hp_sm_<machine>_is_terminal(), hp_<machine>_may_move()
"""

import argparse
import difflib
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.dont_write_bytecode = True

from genlib import emit_c, emit_docs, emit_python, schema  # noqa: E402


def source_name(path):
    """How the outputs name an input: never by a path of this machine."""
    return f"proto/{pathlib.Path(path).name}"


def make_c(protocol, machines, args):
    definition, states = source_name(args.definition), source_name(args.states)
    return {
        "hp_msg.h": emit_c.message_header(protocol, definition),
        "hp_msg.c": emit_c.message_source(protocol, definition),
        "hp_states.h": emit_c.states_header(machines, states),
        "hp_states.c": emit_c.states_source(machines, states),
    }


def make_committed(protocol, machines, args):
    definition = source_name(args.definition)
    both = f"{definition} and {source_name(args.states)}"
    return {
        "python/hostpool/_messages.py": emit_python.messages(protocol, machines, both),
        "docs/protocol.md": emit_docs.page(protocol, machines, both),
        "tests/fuzz/hostpool.dict": emit_docs.fuzz_dictionary(protocol, definition),
    }


def write_file(path, text):
    """Write, unless the file has that text already."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def check(files):
    """Compare committed files with what would be made; print what differs."""
    drift = False
    for name, text in files.items():
        path = HERE.parent / name
        old = path.read_text(encoding="utf-8") if path.exists() else ""
        if old != text:
            drift = True
            lines = difflib.unified_diff(
                old.splitlines(), text.splitlines(), name, f"{name} (made now)", lineterm="", n=1
            )
            print("\n".join(list(lines)[:40]))
    if drift:
        print("drift: run proto/gen.py --write and commit the result", file=sys.stderr)
    return 1 if drift else 0


def main():
    parser = argparse.ArgumentParser(description="Makes code and pages from the definition.")
    parser.add_argument("--definition", default=HERE / "hostpool.toml")
    parser.add_argument("--states", default=HERE / "states.toml")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--c", metavar="DIR", type=pathlib.Path)
    what.add_argument("--all", metavar="DIR", type=pathlib.Path)
    what.add_argument("--write", action="store_true")
    what.add_argument("--check", action="store_true")
    args = parser.parse_args()
    try:
        protocol = schema.read_protocol(args.definition)
        machines = schema.read_machines(args.states)
    except (schema.SchemaError, OSError) as error:
        print(f"gen.py: {error}", file=sys.stderr)
        return 1
    if args.c is not None:
        for name, text in make_c(protocol, machines, args).items():
            # Always, even if equal: ninja compares the times of outputs and inputs.
            (args.c / name).write_text(text, encoding="utf-8")
        return 0
    committed = make_committed(protocol, machines, args)
    if args.check:
        return check(committed)
    if args.write:
        for name, text in committed.items():
            write_file(HERE.parent / name, text)
        return 0
    for name, text in (make_c(protocol, machines, args) | committed).items():
        write_file(args.all / pathlib.Path(name).name, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
