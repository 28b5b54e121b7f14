#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Counts the results of one test run for tests/run and prints what failed.

count.py meson RESULTS.json LABEL TALLY    or    count.py pytest RESULTS.xml LABEL TALLY

Appends "passed failed" to TALLY. A skipped test counts as failed, unless tests/skips lists it with
a reason; then it is printed and counts as neither. Exit code 1: the results can not be read or hold
no test at all, which is a failure the caller counts.
"""
import json
import os
import sys
import xml.etree.ElementTree

TAIL_LINES = 40
SKIPS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "skips")


def allowed_skips():
    """{test name: reason} of tests/skips: `name: reason` lines, # comments."""
    skips = {}
    if os.path.exists(SKIPS):
        with open(SKIPS, encoding="utf-8") as file:
            for line in file:
                name, colon, reason = line.partition(": ")
                if colon and reason.strip() and not line.startswith("#"):
                    skips[name.strip()] = reason.strip()
    return skips


def meson_results(path):
    """Yields (name, "passed" / "failed" / "skipped", output)."""
    with open(path, encoding="utf-8") as file:
        for line in file:
            test = json.loads(line)
            result = {"OK": "passed", "EXPECTEDFAIL": "passed", "SKIP": "skipped"}
            output = (test.get("stdout") or "") + (test.get("stderr") or "")
            if test["result"] not in result:
                output += f"\nresult: {test['result']}, exit code {test.get('returncode')}"
            name = test["name"].split(" / ")[-1]
            yield name, result.get(test["result"], "failed"), output


def pytest_results(path):
    for case in xml.etree.ElementTree.parse(path).getroot().iter("testcase"):
        name = f"{case.get('classname', '')}::{case.get('name')}".lstrip(":")
        result, output = "passed", ""
        for child in case:
            if child.tag in ("failure", "error"):
                result = "failed"
            elif child.tag == "skipped" and child.get("type") == "pytest.skip":
                result = "skipped"
            output += (child.get("message") or "") + "\n" + (child.text or "") + "\n"
        yield name, result, output


def tail(text):
    lines = [line for line in text.rstrip().split("\n") if line.strip()]
    return "\n".join("    " + line for line in lines[-TAIL_LINES:])


def main():
    kind, path, label, tally = sys.argv[1:]
    skips = allowed_skips()
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    try:
        reader = meson_results if kind == "meson" else pytest_results
        results = list(reader(path))
    except (OSError, ValueError, KeyError, xml.etree.ElementTree.ParseError) as error:
        print(f"{label}: no results: {error}")
        return 1
    for name, result, output in results:
        if result == "skipped" and name in skips:
            print(f"skipped {label}: {name}: {skips[name]}")
        elif result != "passed":
            why = " (skipped, and not in tests/skips)" if result == "skipped" else ""
            result = "failed"
            print(f"FAILED {label}: {name}{why}\n{tail(output)}")
        counts[result] += 1
    print(f"   {label}: {counts['passed']} passed, {counts['failed']} failed,"
          f" {counts['skipped']} skipped")
    with open(tally, "a", encoding="utf-8") as file:
        file.write(f"{counts['passed']} {counts['failed']}\n")
    return 0 if results else 1


if __name__ == "__main__":
    sys.exit(main())
