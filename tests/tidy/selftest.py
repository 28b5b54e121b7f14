#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Must-fail cases for tidy.py: each rule is shown a breach and has to name the right line.

A check that never fires looks the same as a clean tree, so this is what makes tidy worth trusting.
"""
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

import proofs
import tidy

SPDX = "/* SPDX-License-Identifier: BSD-2-Clause */\n"


def check(path, text, others=()):
    """The findings [(line, rule)] about one file in an otherwise clean tree."""
    with tempfile.TemporaryDirectory() as root:
        for name, content in [(path, text), *others]:
            full = os.path.join(root, name)
            os.makedirs(os.path.dirname(full), exist_ok=True)
            with open(full, "w", encoding="utf-8") as file:
                file.write(content)
        return [(number, rule) for found, number, rule, _ in tidy.check_sources(root)
                if found == path]


class Clean(unittest.TestCase):
    def test_good_file(self):
        text = SPDX + ('#include "common/base/buf.h"\n'
                       '#include <stdio.h>\n'
                       '/* goto sprintf( strcpy( #include "server/core/core.h" */\n'
                       'static const char *text = "sprintf(time(goto";\n'
                       'struct x {\n    int time;\n};\n'
                       'static int f(struct x *x)\n{\n'
                       '    return x->time(1) + snprintf(0, 0, text);\n}\n')
        self.assertEqual(check("server/core/a.c", text), [])

    def test_tests_may_see_all(self):
        text = SPDX + '#include "server/core/core.h"\n#include <msgpack.h>\n'
        self.assertEqual(check("tests/lib/a.c", text), [])


class Layers(unittest.TestCase):
    def expect(self, path, include, rules):
        findings = check(path, SPDX + f"#include {include}\n")
        found = [rule for number, rule in findings if number == 2]
        self.assertEqual(sorted(found), sorted(rules), f"{path} {include}")

    def test_layers(self):
        self.expect("common/base/a.c", '"common/sys/log.h"', ["layer"])
        self.expect("common/base/a.c", '"proto/rpc.h"', ["layer"])
        self.expect("common/sys/a.c", '"common/net/loop.h"', ["layer"])
        self.expect("common/net/a.c", '"server/core/core.h"', ["layer"])
        self.expect("proto/a.c", '"common/sys/clock.h"', ["layer"])
        self.expect("server/core/a.c", '"common/sys/clock.h"', ["layer"])
        self.expect("server/core/a.c", '"server/store/store.h"', ["layer"])
        self.expect("server/core/a.c", '"server/turn.h"', ["layer"])
        self.expect("server/store/a.c", '"server/turn.h"', ["layer"])
        self.expect("server/main.c", '"worker/core/agent.h"', ["layer"])
        self.expect("worker/core/a.h", '"worker/exec/spawn.h"', ["layer"])
        self.expect("client/a.c", '"server/core/core.h"', ["layer"])
        self.expect("client/a.c", '"common/net/loop.h"', ["layer"])
        self.expect("cli/a.c", '"worker/core/agent.h"', ["layer"])
        self.expect("server/core/a.c", '"core.h"', ["layer"])
        self.expect("server/core/a.c", '"../core/core.h"', ["layer"])
        self.expect("server/main.c", '"server/store/store.h"', [])
        self.expect("server/core/a.c", '"proto/rpc.h"', [])

    def test_libraries(self):
        self.expect("proto/codec.c", "<msgpack.h>", ["library"])
        self.expect("proto/codec.c", "<msgpack/pack.h>", ["library", "pure-header"])
        self.expect("proto/wire.c", "<msgpack.h>", [])
        self.expect("server/main.c", "<event2/event.h>", ["library"])
        self.expect("common/net/a.c", "<event2/event.h>", [])
        self.expect("server/core/a.c", "<sqlite3.h>", ["library", "pure-header"])
        self.expect("server/main.c", "<sqlite3.h>", ["library"])
        self.expect("server/store/a.c", "<sqlite3.h>", [])
        self.expect("bench/programs/a.c", "<sqlite3.h>", [])

    def test_pure_headers(self):
        for header in ["unistd.h", "time.h", "pthread.h", "sys/socket.h", "threads.h", "fcntl.h"]:
            self.expect("common/base/a.c", f"<{header}>", ["pure-header"])
            self.expect("worker/core/a.c", f"<{header}>", ["pure-header"])
            self.expect("worker/exec/a.c", f"<{header}>", [])


class Calls(unittest.TestCase):
    def expect(self, path, line, rules):
        text = SPDX + f"static void f(void)\n{{\n    {line}\n}}\n"
        self.assertEqual(check(path, text), [(4, rule) for rule in rules], line)

    def test_banned(self):
        for name in tidy.BANNED_CALLS:
            self.expect("server/a.c", f"x = {name}(y);", ["banned-call"])
        self.expect("server/a.c", "x = sprintf (y);", ["banned-call"])
        self.expect("server/a.c", "x = hp_rand(y) + snprintf(y) + a->rand(1) + a.rand(1);", [])

    def test_goto(self):
        self.expect("server/a.c", "goto out;", ["goto"])

    def test_clock(self):
        self.expect("server/core/a.c", "x = time(NULL);", ["clock"])
        self.expect("cli/a.c", "clock_gettime(0, &x);", ["clock"])
        self.expect("common/sys/a.c", "clock_gettime(0, &x);", [])

    def test_sleep(self):
        for name in tidy.SLEEP_CALLS:
            self.expect("tests/lib/a.c", f"{name}(1);", ["sleep"])
        python = "# SPDX-License-Identifier: BSD-2-Clause\nimport time\n\ntime.sleep(1)\n"
        self.assertEqual(check("tests/integration/a.py", python), [(4, "sleep")])
        self.assertEqual(check("bench/a.py", python), [])


class Lengths(unittest.TestCase):
    def body(self, count):
        return "static void f(void)\n{\n" + "    x++;\n" * (count - 2) + "}\n"

    def test_c_function(self):
        self.assertEqual(check("cli/a.c", SPDX + self.body(70)), [])
        self.assertEqual(check("cli/a.c", SPDX + self.body(71)), [(3, "function-length")])
        later = SPDX + "int y[] = {\n    1,\n};\n\n" + self.body(80) + "\n" + self.body(20)
        self.assertEqual(check("cli/a.c", later), [(7, "function-length")])
        one_line = SPDX + self.body(90).replace(")\n{", ") {")
        self.assertEqual(check("cli/a.c", one_line), [(2, "function-length")])
        header = SPDX + 'extern "C" {\n' + self.body(71) + "}\n"
        self.assertEqual(check("cli/a.h", header), [(4, "function-length")])
        table = SPDX + "static const int t[] = {\n" + "    f(1),\n" * 90 + "};\n"
        self.assertEqual(check("cli/a.c", table), [])

    def test_python_function(self):
        python = "# SPDX-License-Identifier: BSD-2-Clause\ndef f():\n" + "    pass\n" * 70
        self.assertEqual(check("bench/a.py", python), [(2, "function-length")])

    def test_file(self):
        self.assertEqual(check("cli/a.c", SPDX + "int x;\n" * 699), [])
        self.assertEqual(check("cli/a.c", SPDX + "int x;\n" * 700), [(701, "file-length")])

    def test_columns(self):
        self.assertEqual(check("cli/a.c", SPDX + "/*" + "x" * 97 + "*/\n"), [(2, "columns")])


class Form(unittest.TestCase):
    def test_spdx(self):
        self.assertEqual(check("cli/a.c", "int x;\n"), [(1, "spdx")])
        self.assertEqual(check("cli/a.c", "\n" + SPDX), [(1, "spdx")])
        self.assertEqual(check("cli/a.py", "x = 1\n"), [(1, "spdx")])
        self.assertEqual(check("cli/meson.build", "x = 1\n"), [(1, "spdx")])

    def test_space(self):
        self.assertEqual(check("cli/a.c", SPDX + "int x; \n"), [(2, "space")])
        self.assertEqual(check("cli/a.c", SPDX + "\tint x;\n"), [(2, "space")])
        self.assertEqual(check("cli/a.c", SPDX + "int x;"), [(2, "space")])

    def test_registered(self):
        build = "# SPDX-License-Identifier: BSD-2-Clause\ntests = [['base_buf', []]]\n"
        others = [("tests/meson.build", build)]
        self.assertEqual(check("tests/unit/test_lost.c", SPDX, others), [(1, "registered")])
        self.assertEqual(check("tests/unit/test_base_buf.c", SPDX, others), [])

    def test_corpus(self):
        found = "tests/fuzz/corpus/text/" + "0123456789" * 4
        self.assertEqual(check(found, "x"), [(1, "corpus")])
        self.assertEqual(check(found.replace("text/", "text/crash-"), "x"), [(1, "corpus")])
        self.assertEqual(check("tests/fuzz/corpus/text/maps-as-keys", "x"), [])


class Symbols(unittest.TestCase):
    def symbols(self, body):
        compiler = os.environ.get("CC", "cc").split()
        with tempfile.TemporaryDirectory() as folder:
            source, object_, library = (os.path.join(folder, f) for f in ("a.c", "a.o", "a.a"))
            with open(source, "w", encoding="utf-8") as file:
                file.write("#include <stdio.h>\n#include <time.h>\n#include <unistd.h>\n"
                           "int sqlite3_step(void *);\nint event_add(void);\n"
                           f"long f(char *x, long n);\nlong f(char *x, long n) {{ {body} }}\n")
            subprocess.run([*compiler, "-c", "-O1", source, "-o", object_], check=True)
            subprocess.run(["ar", "rc", library, object_], check=True)
            return [text.split()[-1] for *_, text in tidy.check_libraries([library])]

    @unittest.skipUnless(shutil.which("nm"), "no nm")
    def test_symbols(self):
        self.assertEqual(self.symbols('return snprintf(x, (size_t)n, "%s", x + 1);'), [])
        for name, body in [("time", "return time(0);"),
                           ("write", "return write(1, x, 1);"),
                           ("read", "return read(1, x, 1);"),
                           ("printf", 'return printf("%ld", n);'),
                           ("sqlite3_step", "return sqlite3_step(x);"),
                           ("event_add", "return event_add();"),
                           ("getpid", "return getpid();")]:
            self.assertEqual(self.symbols(body), [name])



class Proofs(unittest.TestCase):
    def check(self, row):
        with tempfile.TemporaryDirectory() as root:
            for name, content in (("docs/failure-modes.md", row + "\n"),
                                  ("tests/unit/test_a.c", "static void it_works(void **state)\n")):
                full = pathlib.Path(root) / name
                full.parent.mkdir(parents=True, exist_ok=True)
                full.write_text(content)
            return proofs.check(pathlib.Path(root))

    def test_rows(self):
        self.assertEqual(self.check("| 1 | a | b | c | `test_a: it_works`; `tests/unit` |"), [])
        for bad in ("| 1 | a | b | c | `test_a: it_workz` |",
                    "| 1 | a | b | c | `test_b: it_works` |",
                    "| 1 | a | b | c | `tests/none` |", "| 1 | a | b | c | by hand |",
                    "| 1 | a | b | `test_a: it_works` |", "no rows"):
            self.assertEqual(len(self.check(bad)), 1, bad)
        twice = "| 2 | a | b | c | `tests/unit` |\n| 2 | a | b | c | `tests/unit` |"
        self.assertEqual(len(self.check(twice)), 1)


if __name__ == "__main__":
    sys.exit(unittest.main())
