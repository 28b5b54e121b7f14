#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Makes docs/config.md from the option tables of the two daemons (their --help).

config_page.py HOSTPOOLD WORKER PAGE [--write]     without --write: exit 1 if PAGE differs
"""
import re
import subprocess
import sys

HEAD = """# Configuration

Made by `docs/config_page.py` from the programs' own tables; do not edit. Flags go before the
file, the file goes before the default. In a file the names have underscores (`--data-dir` is
`data_dir`); an unknown name, a value out of range or a wrong unit is an error with file and line.
`--check-config` checks and ends. Durations: `250ms 90s 15m 2h 1d`. Sizes: `512 64K 512M 4G`.
"""


def run(program, flag):
    return subprocess.run([program, flag], check=True, capture_output=True, text=True).stdout


def options(text):
    rows, row = [], None
    for line in text.split("\n"):
        flag = re.match(r"  (--[a-z-]+)(.*)$", line)
        if flag:
            row = [flag.group(1), flag.group(2).strip(), ""]
            rows.append(row)
        elif line.startswith("        ") and row:
            row[2] = (row[2] + " " + line.strip()).strip()
        elif not line.startswith(" "):
            row = None
    return rows


def table(rows):
    out = ["| flag | value | what |", "|---|---|---|"]
    for flag, value, what in rows:
        cells = (flag, value.replace("|", "\\|"), what.replace("|", "\\|"))
        out.append("| `%s` | %s | %s |" % cells)
    return "\n".join(out) + "\n"


def page(broker, worker):
    parts = [HEAD]
    for name, program in (("hostpoold", broker), ("hostpool-worker", worker)):
        parts.append("\n## %s\n\n%s" % (name, table(options(run(program, "--help")))))
    return "".join(parts)


def main():
    broker, worker, path = sys.argv[1:4]
    text = page(broker, worker)
    if "--write" in sys.argv:
        open(path, "w", encoding="utf-8").write(text)
    elif open(path, encoding="utf-8").read() != text:
        command = "docs/config_page.py %s %s %s --write" % (broker, worker, path)
        sys.exit("%s is out of date: %s" % (path, command))


main()
