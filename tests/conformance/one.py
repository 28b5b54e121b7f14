#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Runs one test of CPython in a process of its own, or lists those that touch Pool.

  one.py --list              names, one a line
  one.py NAME REPORT.json    writes {"result": passed|failed|skipped, "text": ...}
"""
import faulthandler
import inspect
import json
import os
import pathlib
import re
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import substitute  # noqa: E402

# The start method matters to what else the tests use (Process, Manager), not to our pools. Of the
# programs with functions in __main__ one kind keeps the rules of spawn, one those of fork.
MODULES = ("test.test_multiprocessing_fork", "test.test_multiprocessing_main_handling")
LEFT_OUT = (
    "WithThreadsTest",    # multiprocessing.dummy stays the standard library's
    "ForkServerCmdLineTest",  # the same as SpawnCmdLineTest
)
POOL = re.compile(r"\bPool\b|\.pool\.|\bpool_in_process\b")


def source(thing):
    try:
        return inspect.getsource(thing)
    except (OSError, TypeError):
        return ""


def touches_pool(case, method):
    """Whether a test, or what its class sets up for each test, mentions Pool."""
    for base in case.__mro__:
        if base.__module__.startswith("test.") and not base.__name__.endswith("Mixin"):
            for name in ("setUp", "setUpClass", "manager_class"):
                if name in vars(base) and POOL.search(source(getattr(base, name))):
                    return True
    return bool(POOL.search(source(getattr(case, method))))


def names():
    for module_name in MODULES:
        module = __import__(module_name, fromlist=["x"])
        all_of = module_name.endswith("main_handling")  # their programs are strings
        for name, case in sorted(vars(module).items()):
            if not (isinstance(case, type) and issubclass(case, unittest.TestCase)) or \
                    name.startswith(LEFT_OUT):
                continue
            for method in unittest.TestLoader().getTestCaseNames(case):
                if all_of or touches_pool(case, method):
                    yield f"{module_name}.{name}.{method}"


class Result(unittest.TestResult):
    def outcome(self):
        broken = [text for _, text in self.errors + self.failures]
        if broken:
            return "failed", "\n".join(broken)
        if self.skipped:
            return "skipped", self.skipped[0][1]
        if self.testsRun != 1:
            return "failed", f"{self.testsRun} tests ran"
        return "passed", ""


def main():
    if sys.argv[1] == "--list":
        print("\n".join(names()))
        return
    name, report = sys.argv[1:]
    faulthandler.enable()
    faulthandler.dump_traceback_later(float(os.environ.get("HP_CONFORMANCE_DUMP_S", "50")))
    if "CmdLineTest" in name or "atexit_handler" in name:
        sys.executable = str(pathlib.Path(__file__).resolve().parent / "site" / "python")
    substitute.install(pool_class="TestPoolNotLeakOnFailure" in name)
    if os.environ.get("HP_CONFORMANCE_MODULE") == "1":
        substitute.install_module()
    result = Result()
    unittest.TestLoader().loadTestsFromName(name).run(result)
    kind, text = result.outcome()
    pathlib.Path(report).write_text(json.dumps({"result": kind, "text": text}))
    faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    main()
