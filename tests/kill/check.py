# SPDX-License-Identifier: BSD-2-Clause
"""What must be true after a kill campaign. Each check gives lines that say what is wrong.

 1. An id is given out once; the same number of a session has the same ids for ever.
 2. Every acknowledged task is known, in a final state, and its answer is the right one for what was
    submitted; it failed only if its kind may fail, for the reasons and as often as that kind may.
 3. What a client was told of an end is what the broker says later: state, attempt and answer.
 4. An attempt starts once; none starts that the broker does not know; a task that is done was
    started in the attempt that did it. At-most-once: one start at most, over any faults.
 5. Without a crash of the broker each start but the first has a recorded cause.
 6. A task whose cancel was answered with "cancelled" or "cancelling" is cancelled, for ever, and
    nothing is cancelled that nobody asked for.
 7. A task that is not durable is done right, or unknown if a broker has ended since; never wrong.
 8. Two tasks of a concurrency key never run at once.
 9. After an orderly stop: no lease and no unfinished task in the database, blob files are those
    that it refers to, the workers' spools are empty, no process is left, all rows are undamaged.
"""
import json
import pathlib
import sqlite3
import time

import pool
import specs

PYTHON, LIBRARY = "python", "library"
CANCEL_QUEUED, CANCEL_RUNNING, CANCEL_TOO_LATE, CANCEL_UNKNOWN = 0, 1, 2, 3
SPOOL_EMPTY_BYTES = 8 # its head
UPLOAD_S = 3600
BLOCK = 2048
EMPTY_TABLES = ("lease", "segment", "side", "expiry") # of the database, when all has ended
FNV_START, FNV_PRIME, MASK = 0xCBF29CE484222325, 0x100000001B3, 2**64 - 1


def fnv1a(data):
    """As in load.c: of the first bytes and the size, for the whole is compared elsewhere."""
    value = FNV_START ^ len(data)
    for byte in data[:64]:
        value = (value ^ byte) * FNV_PRIME & MASK
    return value


class History:
    """What the clients were told: tasks {id: (kind, base)}, ends {id: (state, attempt, fnv)}."""

    def __init__(self, folder):
        self.tasks, self.ends, self.bad = {}, {}, []
        self.calls = 0 # of pools, answered
        self.asked, self.cancels = set(), {} # ids in a cancel; {id: outcome} of those answered
        self.folder = pathlib.Path(folder)
        for path in sorted(self.folder.glob("journal.*")):
            if path.name == "journal.calls":
                self.read_calls(path)
            elif path.name.startswith("journal.python"):
                self.read_python(path)
            else:
                self.read_library(path)

    def add_group(self, path, first, count, kind, base):
        for i in range(count):
            if first + i in self.tasks:
                self.bad.append(f"{path.name}: the id {first + i} was given out twice")
            self.tasks[first + i] = (kind, base + i)

    def add_end(self, path, task_id, state, attempt, fnv):
        known = self.ends.get(task_id)
        if state == specs.UNKNOWN and self.tasks.get(task_id, ("",))[0] == "volatile":
            return # a broker has ended since: what was told before stays true
        if known and (known[:2] != (state, attempt) or fnv and known[2] and fnv != known[2]):
            self.bad.append(f"{path.name}: task {task_id} ended {known} and "
                            f"{(state, attempt, fnv)}")
        self.ends[task_id] = (state, attempt, fnv or (known[2] if known else None))

    def read_python(self, path):
        submits = {}
        for line in path.read_text().splitlines():
            entry = json.loads(line)
            if "n" in entry:
                submits[entry["n"]] = entry
            elif "a" in entry:
                spec = submits[entry["a"]]
                self.add_group(path, entry["first"], entry["count"], spec["kind"], spec["base"])
            elif "e" in entry:
                self.add_end(path, *entry["e"], None)
            elif "v" in entry:
                first, count, base = entry["v"]
                self.add_group(path, first, count, "volatile", base)
            elif "x" in entry:
                self.asked.update(entry["x"])
            elif "c" in entry:
                self.cancels.update(map(tuple, entry["c"]))
            else:
                self.bad.append(f"{path.name}: {entry['bad']}")

    def read_calls(self, path):
        for entry in map(json.loads, path.read_text().splitlines()):
            self.calls += entry.get("calls", 0)
            if "bad" in entry:
                self.bad.append(f"{path.name}: {entry['bad']}")

    def read_library(self, path):
        for line in path.read_text().splitlines():
            words = line.split()
            if words[0] == "A":
                self.add_group(path, int(words[1]), int(words[2]), words[3], int(words[4]))
            elif words[0] == "E":
                task_id, state, _, attempt, fnv = map(int, words[1:])
                self.add_end(path, task_id, state, attempt, fnv)
            else:
                self.bad.append(f"{path.name}: {line}")

    def starts(self):
        """{task: [attempt, ...]} of commands."""
        found, path = {}, self.folder / "starts"
        for line in path.read_text().splitlines() if path.exists() else ():
            task_id, attempt, _ = map(int, line.split())
            found.setdefault(task_id, []).append(attempt)
        return found


def check_cancel(task_id, history, task):
    is_cancelled = task["state"] == specs.CANCELLED
    if is_cancelled and task_id not in history.asked:
        return "it is cancelled, and nobody asked for that"
    outcome = history.cancels.get(task_id)
    if outcome in (CANCEL_QUEUED, CANCEL_RUNNING) and not is_cancelled:
        return f"its cancel was answered with {outcome}, and it ended as {task['state']}"
    if outcome == CANCEL_TOO_LATE and is_cancelled or outcome == CANCEL_UNKNOWN:
        return f"its cancel was answered with {outcome}, and it ended as {task['state']}"
    return None


def check_task(client, task_id, history, task, broker_ended=True):
    kind, base = history.tasks[task_id]
    if kind == "volatile" and task["state"] == specs.UNKNOWN:
        return None if broker_ended else f"{kind} task {task_id} is lost, and the broker ran on"
    problem = check_cancel(task_id, history, task)
    if problem:
        return f"{kind} task {task_id}: {problem}"

    def answer(one):
        read = pool.output_of if kind in specs.COMMANDS else pool.result_of
        return read(client, one)

    problem = specs.wrong(kind, base, task, answer)
    if problem:
        return f"{kind} task {task_id}: {problem}"
    told = history.ends.get(task_id)
    if told and told[:2] != (task["state"], task.get("attempt", 0)):
        return f"{kind} task {task_id}: a client was told {told}, now it is {task}"
    end = task.get("end", {})
    inline = end.get("result") or end.get("out") or b""
    if told and told[2] and told[2] != fnv1a(inline):
        return f"{kind} task {task_id}: a client was told another answer"
    return None


def check_starts(history, tasks):
    for task_id, attempts in history.starts().items():
        if task_id not in tasks:
            continue # an unacknowledged submit: it may have run
        kind = history.tasks[task_id][0]
        last = tasks[task_id].get("attempt", 0)
        if len(attempts) != len(set(attempts)):
            yield f"{kind} task {task_id}: an attempt started twice: {attempts}"
        if max(attempts) > last:
            yield f"{kind} task {task_id}: attempts {attempts} started, the broker knows {last}"
        if kind == "once" and len(attempts) > 1:
            yield f"at-most-once task {task_id} was started {len(attempts)} times"
        if kind == "exit3" and len(set(attempts)) > last:
            yield f"{kind} task {task_id}: {attempts}"
    for task_id, task in tasks.items():
        if history.tasks[task_id][0] in specs.COMMANDS and task["state"] == pool.DONE and \
                task.get("attempt") not in history.starts_known.get(task_id, ()):
            yield f"task {task_id}: done in attempt {task.get('attempt')}, which never started"


def check_causes(history, tasks):
    """Without a crash of the broker each start but the first has a cause that was recorded."""
    for task_id, attempts in history.starts_known.items():
        task = tasks.get(task_id)
        if task is None:
            continue
        causes = task.get("failures", 0) + task.get("losses", 0)
        if len(attempts) > 1 + causes:
            yield f"task {task_id}: {len(attempts)} starts for {causes} recorded causes: {task}"


def check_history(one_pool, folder, broker_crashed=True, broker_ended=True):
    """The history, {task: digest of all that the broker says of it}, and lines about all that is
    wrong; none: every promise was kept. broker_ended: it was stopped or killed at least once;
    broker_crashed: killed."""
    history = History(folder)
    history.starts_known = history.starts()
    problems = list(history.bad)
    digests, tasks = {}, {} # tasks: those that were started, in short
    ids = list(history.tasks)
    with one_pool.client() as client:
        for at in range(0, len(ids), BLOCK): # of a million, not all are to be held at once
            block = pool.get_tasks(client, ids[at:at + BLOCK])
            for task_id in ids[at:at + BLOCK]:
                if task_id not in block:
                    problems.append(f"task {task_id}: no answer about it")
                    continue
                task = block[task_id]
                problem = check_task(client, task_id, history, task, broker_ended)
                if problem:
                    problems.append(problem)
                digests[task_id] = hash(repr(task))
                if history.tasks[task_id][0] in specs.COMMANDS and task["state"] < 13:
                    tasks[task_id] = {name: task.get(name, 0) for name in
                                      ("state", "attempt", "failures", "losses")}
    problems.extend(check_starts(history, tasks))
    if not broker_crashed: # a crash may lose the record of a dispatch that had begun
        problems.extend(check_causes(history, tasks))
    overlap = pathlib.Path(folder) / "key.overlap"
    if overlap.exists():
        problems.append(f"two tasks of a concurrency key at once: {overlap.read_text().split()}")
    return history, digests, problems


def count(database, table):
    return database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]


def check_stopped(data_dir, state_dirs):
    """Lines about what a broker and workers that stopped in order have left (rule 9)."""
    data_dir = pathlib.Path(data_dir)
    if (data_dir / "hostpool.db-wal").exists() or (data_dir / "hostpool.running").exists():
        yield "the broker stopped in order, and its log or its mark is there"
    database = sqlite3.connect(f"file:{data_dir}/hostpool.db?mode=ro&immutable=1", uri=True)
    for table in EMPTY_TABLES:
        rows = count(database, table)
        if rows:
            yield f"{rows} rows are left in the table {table}"
    known = {row[0] for row in database.execute("SELECT blob FROM blob")}
    database.close()
    names = {f"{blob:016x}" for blob in known}
    found = {path.name: path for path in (data_dir / "blobs").glob("*/*")}
    yield from (f"the blob {name} has no file" for name in sorted(names - set(found)))
    for name in sorted(set(found) - names):
        # An upload whose submit, or result, never came; it may still, for an hour.
        age_s = time.time() - found[name].stat().st_mtime
        if found[name].suffix or age_s > UPLOAD_S:
            yield f"the file {name} is no blob of the database"
    for folder in map(pathlib.Path, state_dirs):
        for path in sorted(folder.glob("*spool*")):
            records = path.stat().st_size if path.is_file() else 0
            if records > SPOOL_EMPTY_BYTES:
                yield f"{path} has {records} bytes: results that were not told"
