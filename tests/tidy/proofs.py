#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Checks that docs/failure-modes.md names only tests that exist.

In the last column of each table a proof is `file: name, name`, where the file is one under tests/
(its ending may be left out) and each name a function in it, or the path of a program or folder
under tests/. The numbers of rows must rise. Exit status 1 and one line for each finding.
"""
import pathlib
import re
import sys

PAGE = "docs/failure-modes.md"
ROW = re.compile(r"^\| (\d+) \|(.*)\|$")
QUOTED = re.compile(r"`([^`]+)`")


def index_of(root):
    """Test files by name, with and without the ending."""
    files = {}
    for path in sorted((root / "tests").rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            for key in {path.name, path.stem}:
                files.setdefault(key, []).append(path)
    return files


def check_proof(root, files, proof):
    """None, or what is wrong with it."""
    name, _, functions = proof.partition(": ")
    if not functions:
        return None if (root / name.split()[0]).exists() else f"no such file: {name}"
    if name not in files:
        return f"no test file {name}"
    text = "\n".join(path.read_text(errors="replace") for path in files[name])
    for function in functions.split(", "):
        if not re.search(rf"\b{re.escape(function)}\b", text):
            return f"{name} has no {function}"
    return None


def check(root):
    findings = []
    files = index_of(root)
    last = 0
    for number, line in enumerate((root / PAGE).read_text().splitlines(), 1):
        row = ROW.match(line)
        if not row:
            continue
        if int(row[1]) <= last:
            findings.append(f"{PAGE}:{number}: row {row[1]} comes after row {last}")
        last = int(row[1])
        cells = row[2].split(" | ")
        proofs = QUOTED.findall(cells[-1])
        if len(cells) != 4 or not proofs:
            findings.append(f"{PAGE}:{number}: needs fault, defence, what you see, and a proof")
        for proof in proofs:
            wrong = check_proof(root, files, proof)
            if wrong:
                findings.append(f"{PAGE}:{number}: {wrong}")
    if last == 0:
        findings.append(f"{PAGE}: has no rows")
    return findings


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
    findings = check(root)
    print("\n".join(findings) if findings else "ok")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
