# SPDX-License-Identifier: BSD-2-Clause
"""Mechanical bugs, drawn at random: an unbiased sample beside those that were thought of."""
import os
import random
import re

UNITS_OF_CORE = ["core_submit", "core_dispatch", "core_task", "core_worker", "core_turns",
                 "core_hello", "core_follow", "core_limits", "core_forget", "core_pool",
                 "core_pool_end", "core_pool_lost", "core_rebalance", "core_volatile"]
UNITS_OF_AGENT = ["agent_sched", "agent_done", "agent_keep", "agent_order", "agent_link",
                  "agent_near", "agent_pool", "agent_pool_calls"]

# Folder or file: the tests that are to notice, cheapest first. The longest listed prefix counts.
AREAS = {
    "server/core": UNITS_OF_CORE + ["core", "pools", "sim 1..200", "sim 1000001..1000150"],
    "worker/core": UNITS_OF_AGENT + ["agent", "agent_pools", "sim 1..200", "sim 1000001..1000150"],
    "server/store": ["store_contract", "store_keep", "store_forget", "store_sqlite",
                     "store_sync", "store_blob",
                     "store_near", "store_thread", "store", "core_submit", "sim 1..100"],
    "worker/spool.c": ["spool", "spool_sync"],
    "worker/exec": ["exec_command", "exec_kill", "exec_state", "exec_escape", "exec_function",
                    "exec_pool", "exec_pool_faults", "exec_language"],
    "server": ["server_turn", "server_config", "server_datadir",
               "pytest tests/integration/test_broker_start.py"],
    "common/net": ["net_conn", "net_loop", "pytest tests/integration/test_hostile.py"],
    "common/sys": ["sys_basics", "sys_sync", "server_datadir",
                   "pytest tests/integration/test_broker_start.py"],
    "cli": ["pytest tests/integration/test_cli_run.py",
            "pytest tests/integration/test_cli_tasks.py"],
    "proto/tokenizer.c": ["tokenizer", "rpc", "wire", "msg", "fuzz_tokenizer", "proto"],
    "proto/rpc.c": ["rpc", "tokenizer", "wire", "msg", "proto", "core_limits"],
    "proto/codec.c": ["msg", "rpc", "wire", "proto", "core_submit"],
    "client": ["client_engine", "client_sinks", "client_faults", "client_track", "client_pool",
               "client_hub", "client_near", "client_host", "sim 1..100"],
}

# What is only said, never acted on, or only looks; a change there is no bug.
QUIET = re.compile(r"HP_ASSERT|hp_trace|hp_log|static_assert|#|snprintf|fprintf|HP_TRACE|\"")
PURE_LOOK = ("check.c", "dump.c", "words.c", "why.c")

SWAPS = [(" < ", " <= "), (" <= ", " < "), (" > ", " >= "), (" >= ", " > "), (" == ", " != "),
         (" != ", " == "), (" && ", " || "), (" || ", " && "), (" + 1", ""), (" - 1", ""),
         (" + ", " - "), (" - ", " + "), ("true;", "false;"), ("false;", "true;"), ("++", "--"),
         ("--", "++"), (" += ", " = "), (" -= ", " += "), ("(!", "("), (" & ", " | ")]
STATEMENT = re.compile(r"^\s+(?!return|break|continue|goto|case|else|const|struct|uint|int|size_t|"
                       r"bool|enum|char|static|HP_LIST|for|while|if|do|switch)"
                       r"[A-Za-z_(][^={]*(\(.*\)|(?<![=!<>])[-+|&]?=(?!=).*|\+\+|--);\s*$")


def area_of(name):
    known = [prefix for prefix in AREAS if name == prefix or name.startswith(prefix + "/")]
    return max(known, key=len) if known else None


def candidates(name, text):
    """All single changes of a file: line number (from 0), the line as it becomes, what it is."""
    found = []
    inside = False
    comment = False
    for number, line in enumerate(text.split("\n")):
        if line == "{":
            inside = True
        elif line == "}":
            inside = False
        code = line.split("/*")[0]
        if comment or not inside or QUIET.search(line):
            comment = ("/*" in line or comment) and "*/" not in line
            continue
        comment = "/*" in line and "*/" not in line
        for old, new in SWAPS:
            at = code.find(old)
            while at >= 0:
                found.append((number, line[:at] + new + line[at + len(old):],
                              f"'{old.strip()}' becomes '{new.strip()}'"))
                at = code.find(old, at + 1)
        if STATEMENT.match(line):
            indent = line[:len(line) - len(line.lstrip())]
            found.append((number, indent + ";", "the statement is dropped"))
        guard = re.match(r"^(\s+(?:\} else )?if \()(.*)(\) \{)$", line)
        if guard:
            never = f"{guard[1]}0 && ({guard[2]}){guard[3]}"
            found.append((number, never, "the branch is never taken"))
    return found


def sample(tree, count, seed, only):
    """`count` bugs; the areas take turns, within an area each place is as likely as the others."""
    pools = {}
    for folder, _, names in os.walk(tree.source):
        for short in sorted(names):
            name = os.path.relpath(os.path.join(folder, short), tree.source)
            area = area_of(name)
            if not short.endswith(".c") or area is None or short in PURE_LOOK:
                continue
            is_slow = any(catcher.startswith("pytest") for catcher in AREAS[area])
            if not name.startswith(only) or (is_slow and not only):
                continue
            text = tree.path(name).read_text(encoding="utf-8")
            pools.setdefault(area, []).extend(
                (name, *change) for change in candidates(name, text))
    rand = random.Random(seed)
    areas = sorted(pools)
    for area in areas:
        pools[area].sort()
        rand.shuffle(pools[area])
    bugs = []
    while len(bugs) < count and any(pools.values()):
        for area in areas:
            if pools[area] and len(bugs) < count:
                name, number, line, what = pools[area].pop()
                text = tree.path(name).read_text(encoding="utf-8").split("\n")
                bugs.append({"name": f"{name}:{number + 1}: {what}", "row": area, "file": name,
                             "was": text[number], "text": "\n".join(
                                 text[:number] + [line] + text[number + 1:]),
                             "catch": AREAS[area]})
    return bugs
