# SPDX-License-Identifier: BSD-2-Clause
"""What must be true after a kill campaign. Each check gives lines that say what is wrong."""
import json
import pathlib

import pool
import specs

PYTHON, LIBRARY = "python", "library"
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
        self.folder = pathlib.Path(folder)
        for path in sorted(self.folder.glob("journal.*")):
            if path.name.startswith("journal.python"):
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
            else:
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


def check_task(client, task_id, history, task):
    kind, base = history.tasks[task_id]

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


def check_history(one_pool, folder, broker_crashed=True):
    """Lines about all that is wrong; empty: every promise was kept."""
    history = History(folder)
    history.starts_known = history.starts()
    problems = list(history.bad)
    with one_pool.client() as client:
        tasks = pool.get_tasks(client, history.tasks)
        for task_id in history.tasks:
            if task_id not in tasks:
                problems.append(f"task {task_id}: no answer about it")
                continue
            problem = check_task(client, task_id, history, tasks[task_id])
            if problem:
                problems.append(problem)
    problems.extend(check_starts(history, {i: t for i, t in tasks.items() if t["state"] < 13}))
    if not broker_crashed: # a crash may lose the record of a dispatch that had begun
        problems.extend(check_causes(history, tasks))
    overlap = pathlib.Path(folder) / "key.overlap"
    if overlap.exists():
        problems.append(f"two tasks of a concurrency key at once: {overlap.read_text().split()}")
    return history, tasks, problems
