# SPDX-License-Identifier: BSD-2-Clause
"""Sides that are no queue at all: what disk, SQLite and fork take by themselves."""
from harness import programs
from harness.model import LIMIT, Show, Side


def sqlite(context):
    """The best of some sizes of commit. Few tasks would flatter it: the log is not copied then."""
    count = min(context.count(2_000_000, 20_000), 400_000)
    found = programs.load("limit_sqlite", context.folder, count)
    rates = {name: one["rate"] for name, one in found.items()}
    return {"rate": max(rate for name, rate in rates.items() if name.startswith("sqlite_tasks")),
            "rows": max(rate for name, rate in rates.items() if name.startswith("sqlite_rows")),
            **rates}


def disk_writes(context):
    found = programs.load("limit_disk", context.folder, 0, context.count(1024, 64))
    return {"rate": found["write_16m_mb"]["rate"]}


def spawn(how, count):
    def run(context):
        found = programs.load("limit_spawn", how, context.count(count, 20), 2, "/bin/true")
        return {"rate": found[f"spawn_{how}"]["rate"]}
    return run


SQLITE = Side("SQLite alone, 2 rows a task", "one fsync for each commit of up to 5,000 tasks",
              sqlite, (Show("rate", "tasks/s"),), kind=LIMIT)
DISK = Side("files of 16 MiB, written and synced", "fdatasync of each file", disk_writes,
            (Show("rate", "MB/s"),), kind=LIMIT)
FORK = Side("bare fork+exec loop", "nothing", spawn("fork", 5000), (Show("rate", "commands/s"),),
            kind=LIMIT)
