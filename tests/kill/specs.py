# SPDX-License-Identifier: BSD-2-Clause
"""The kinds of tasks of the kill campaign: how each is submitted, and what its right answers are.

tests/field/load.c submits the same kinds.
"""
import re
import sys

sys.path.insert(0, sys.path[0] + "/../lib")

import pool  # noqa: E402
import wire_ref  # noqa: E402

COMMANDS = {"cmd", "once", "key", "exit3"}
FUNCTIONS = {"bare": "square", "big": "echo", "huge": "echo", "array": "noop", "delayed": "square",
             "cancel": "square", "volatile": "square"}
INLINE_BYTES = 65536 # larger payloads are written as blobs first
# Commands write "task attempt epoch" to $STARTS when they start; `key` ones hold a lock meanwhile
# (flock says 1 if it is held; another status means that flock itself was killed).
SCRIPT = """
printf '%s %s %s\\n' "$HOSTPOOL_TASK_ID" "$HOSTPOOL_ATTEMPT" "$HOSTPOOL_EPOCH" >>"$STARTS"
if [ "$0" = key ]; then exec 9>>"$LOCKS.lock"
flock -n 9
[ $? = 1 ] && printf '%s %s\\n' "$HOSTPOOL_TASK_ID" "$HOSTPOOL_ATTEMPT" >>"$LOCKS.overlap"
fi
read -r line
sleep 0.0$(($HOSTPOOL_TASK_ID % 4))
[ "$0" = exit3 ] && exit 3
printf 'out %s %s' "$HOSTPOOL_TASK_ID" "$line"
"""
CANCELLED, UNKNOWN = 11, 14
ERROR, EXIT, SIGNAL, CHILD_SIGNAL, CHILD_EXIT = 1, 2, 3, 4, 5
NODE_LOST, NODE_RESTART, LOST = 8, 9, 10
# How an attempt that was killed may end, where the task asked for no rerun.
KILLED_FUNCTION = {CHILD_SIGNAL, CHILD_EXIT}
KILLED_ONCE = {SIGNAL, NODE_LOST, NODE_RESTART, LOST}


def options(kind, pool_id, folder):
    """task_options of a kind."""
    common = {"name": kind, "max_losses": 1000, "retry_base_ms": 30, "retry_cap_ms": 300}
    if kind in COMMANDS:
        common.update(
            kind=pool.COMMAND, argv=["/bin/sh", "-c", SCRIPT, kind],
            env=[f"HP_TEST_POOL={pool_id}", f"STARTS={folder}/starts", f"LOCKS={folder}/key"],
            max_retries={"once": 0, "exit3": 1}.get(kind, 1000))
        if kind == "once":
            common["at_most_once"] = True
        if kind == "key":
            common["ckey"] = "one-at-a-time"
    else:
        common.update(
            kind=pool.FUNCTION, fn=FUNCTIONS.get(kind, kind),
            child_losses=0 if kind == "bare" else 1000, max_retries=5 if kind == "flaky" else 0)
    if kind in ("delayed", "cancel"):
        common["delay_ms"] = 200
    if kind == "array":
        common["array_base"], common["array_step"] = 5, 3
    if kind == "volatile":
        common["durable"] = False
    return common


def bytes_of(base, size):
    return bytes((base + i) % 251 for i in range(size))


def payload(kind, base):
    if FUNCTIONS.get(kind, kind) == "square":
        return wire_ref.pack([base])
    if kind == "huge": # more than a chunk of blob.put
        return bytes_of(base, 270000 + base % 3 * 130000)
    if kind == "flaky":
        return wire_ref.pack([2])
    if kind == "echo":
        return bytes_of(base, base % 2000)
    if kind == "big":
        return bytes_of(base, 70000 + base % 5 * 20000)
    if kind in ("fail", "array"):
        return b""
    return b"in-%d\n" % base


def wrong(kind, base, task, answer):
    """What is wrong with a task that has ended, or None. answer(task): the bytes it gave."""
    state, reason, end = task["state"], task.get("reason", 0), task.get("end", {})
    if state == pool.FAILED:
        return wrong_failure(kind, task, reason, end)
    if kind == "cancel" and state == CANCELLED or kind == "volatile" and state == UNKNOWN:
        return None # check.py looks at what the client asked for, and whether a broker has ended
    if state != pool.DONE:
        return f"state {state}"
    data = answer(task)
    if FUNCTIONS.get(kind, kind) == "square":
        right = wire_ref.unpack(data) == base * base
    elif kind == "flaky":
        value = wire_ref.unpack(data)
        right = value >= 3 and value == task["attempt"]
    elif kind in ("echo", "big", "huge", "array"):
        right = data == payload(kind, base)
    elif kind in ("cmd", "once", "key"):
        right = data == b"out %d in-%d" % (task["id"], base) and end.get("exit_code") == 0
    else:
        return "it succeeded"
    return None if right else f"the answer {data[:60]!r}"


def wrong_failure(kind, task, reason, end):
    if kind == "fail" and reason == ERROR and end.get("error") == "fail was called":
        return None
    if kind == "exit3" and (reason, end.get("exit_code")) == (EXIT, 3) or \
            kind == "exit3" and reason == SIGNAL:
        return None if task["attempt"] >= 2 and task.get("failures") == 2 else "not tried twice"
    if kind == "bare" and reason in KILLED_FUNCTION or kind == "once" and reason in KILLED_ONCE:
        return None
    return f"failed for reason {reason}: {re.sub(r'[^ -~]', '?', str(end))[:200]}"
