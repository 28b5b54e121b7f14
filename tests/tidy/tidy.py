#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Checks the house rules that a compiler does not: layers, lengths, banned calls.

Each finding is one line `path:line: rule: text`; the exit code is 1 if there is any. There is no
list of exemptions, on purpose. Rules are small functions in RULES; selftest.py proves that each of
them notices what it is for.
"""
import argparse
import ast
import os
import re
import subprocess
import sys

FILE_LINES_MAX = 700
FUNCTION_LINES_MAX = 70
COLUMNS_MAX = 100

# What may be included from where: each folder sees itself and these. A folder takes the rule of its
# longest listed prefix; folders which are not listed (tests, bench) may include anything.
LAYERS = {
    "common/base": [],
    "common/sys": ["common/base"],
    "common/net": ["common/base", "common/sys"],
    "proto": ["common/base"],
    "server/core": ["common/base", "proto"],
    "server/store": ["common/base", "common/sys", "proto", "server/core"],
    "server": ["common", "proto", "server"],
    "worker/core": ["common/base", "proto"],
    "worker/exec": ["common/base", "common/sys", "worker/sdk", "proto"],
    "worker/sdk": ["proto", "common/base"],
    "worker": ["common", "proto", "worker"],
    "client": ["common/base", "common/sys", "proto"],
    "cli": ["common/base", "common/sys", "proto", "client", "server/core", "server/store"],
}

# Folders without input and output, clocks, randomness and threads.
PURE = ["common/base", "proto", "server/core", "worker/core"]

# <signal.h> only for the numbers and <xxhash.h> only for arithmetic: calls are seen by nm.
PURE_SYSTEM_HEADERS = {
    "assert.h", "ctype.h", "errno.h", "float.h", "inttypes.h", "limits.h", "math.h",
    "msgpack.h", "signal.h", "stdarg.h", "stdatomic.h", "stdbool.h", "stddef.h", "stdint.h",
    "stdio.h", "stdlib.h", "string.h", "strings.h", "xxhash.h",
}

# Headers of libraries and their only homes (a file or a folder).
LIBRARY_HOMES = [
    (re.compile(r"^msgpack(\.h|/)"), ["proto/wire.c"]),
    (re.compile(r"^(event2/|event\.h|evhttp|evutil)"), ["common/net"]),
    (re.compile(r"^sqlite3"), ["server/store"]),
    (re.compile(r"^confuse\.h"), ["common/sys"]),
]

BANNED_CALLS = {
    "sprintf": "use snprintf", "vsprintf": "use vsnprintf", "strcpy": "use hp_strlcpy",
    "strncpy": "use hp_strlcpy", "strcat": "use hp_buf", "strncat": "use hp_buf",
    "gets": "use fgets", "atoi": "use hp_parse_u64", "atol": "use hp_parse_u64",
    "atoll": "use hp_parse_u64", "atof": "use a parser that can fail", "rand": "use hp_rand",
    "srand": "use hp_rand", "random": "use hp_rand", "drand48": "use hp_rand",
    "strtok": "split by hand", "alloca": "use hp_alloc", "tmpnam": "use mkstemp",
    "mktemp": "use mkstemp",
}

CLOCK_CALLS = ["time", "gettimeofday", "clock_gettime", "clock", "ftime", "timespec_get"]

SLEEP_CALLS = ["sleep", "usleep", "nanosleep", "clock_nanosleep"]

PURE_SYMBOLS_BANNED = re.compile("^(" + "|".join(r"""
time clock clock_\w+ gettimeofday localtime\w* timer_\w+ sleep usleep nanosleep
random rand srand\w* getrandom getentropy arc4random\w*
read readv pread\w* write writev pwrite\w* send sendmsg sendto recv recvmsg recvfrom
open open64 openat\w* __open\w* close socket connect accept\w* bind listen
poll ppoll __poll_chk __read_chk __recv_chk select epoll_\w+
fork vfork exec\w+ posix_spawn\w* kill signal sigaction getenv secure_getenv getpid syscall mmap\w*
printf fprintf vprintf vfprintf __printf_chk __fprintf_chk __vfprintf_chk puts putchar fputs fputc
putc fopen\w* fclose fread fwrite fflush fgets perror stdout stderr stdin
event_\w+ evbuffer_\w+ bufferevent_\w+ evutil_\w+ sqlite3_\w+ pthread_\w+ thrd_\w+ mtx_\w+
""".split()) + ")$")

# Written by proto/gen.py and committed; a golden test compares it, so its form is not ours.
GENERATED = {"python/hostpool/_messages.py"}

SOURCE_SUFFIXES = (".c", ".h")
SKIPPED_FOLDERS = re.compile(r"^(\..*|build.*|__pycache__|node_modules)$")


class Source:
    """A file: raw lines and, for C, the text with comments, strings and directives blanked."""

    def __init__(self, root, path):
        self.path = path
        with open(os.path.join(root, path), encoding="utf-8", errors="replace") as file:
            self.text = file.read()
        self.lines = self.text.split("\n")
        if self.lines and self.lines[-1] == "":
            self.lines.pop()
        self.is_c = path.endswith(SOURCE_SUFFIXES)
        self.is_python = path.endswith(".py")
        self.no_comments = blank_comments(self.text) if self.is_c else self.text
        self.code = blank_strings(self.no_comments) if self.is_c else self.text

    def in_folder(self, folder):
        return self.path == folder or self.path.startswith(folder + "/")


def blank(match):
    return re.sub(r"[^\n]", " ", match.group(0))


TOKEN = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)


def blank_comments(text):
    return TOKEN.sub(lambda m: blank(m) if m.group(0).startswith("/") else m.group(0), text)


def blank_strings(text):
    return TOKEN.sub(lambda m: m.group(0) if m.group(0).startswith("/") else blank(m), text)


def blank_directives(code):
    """Blanks preprocessor lines with their continuations."""
    result = []
    is_inside = False
    for line in code.split("\n"):
        is_directive = is_inside or line.lstrip().startswith("#")
        result.append("" if is_directive else line)
        is_inside = is_directive and line.endswith("\\")
    return "\n".join(result)


def line_of(text, offset):
    return text.count("\n", 0, offset) + 1


def c_functions(source):
    """Yields (name, first line, last line) of function bodies, braces included."""
    code = blank_directives(source.code)
    depth = 0
    head_start = 0
    body_line = 0
    name = None
    for match in re.finditer(r"[{};]", code):
        char = match.group(0)
        if char == "{":
            if depth == 0:
                head = code[head_start:match.start()].strip()
                if re.fullmatch(r"extern", head):
                    head_start = match.end()
                    continue  # extern "C" { is no block of its own
                found = re.search(r"(\w+)\s*\(", head)
                is_function = head.endswith(")") or re.search(r"\)\s*\w*$", head)
                name = found.group(1) if found and is_function and "=" not in head else None
                body_line = line_of(code, match.start())
            depth += 1
        elif char == "}":
            depth = max(depth - 1, 0)
            if depth == 0:
                head_start = match.end()
                if name is not None:
                    yield name, body_line, line_of(code, match.start())
                    name = None
        elif depth == 0:
            head_start = match.end()


def includes(source):
    for number, line in enumerate(source.no_comments.split("\n"), 1):
        match = re.match(r'\s*#\s*include\s*(["<])([^">]+)[">]', line)
        if match:
            yield number, match.group(1) == '"', match.group(2)


def layer_of(path):
    folders = [f for f in LAYERS if path.startswith(f + "/")]
    return max(folders, key=len) if folders else None


def rule_layer(source):
    layer = layer_of(source.path)
    if not source.is_c or layer is None:
        return
    allowed = LAYERS[layer] + [layer]
    for number, is_local, header in includes(source):
        if not is_local:
            continue
        if "/" not in header or header.startswith("."):
            yield number, f'"{header}" is not written from the root'
            continue
        home = layer_of(header) or header.rsplit("/", 1)[0]
        if not any(home == a or home.startswith(a + "/") for a in allowed):
            yield number, f"{layer} must not see {header}"


def rule_library(source):
    if not source.is_c:
        return
    for number, _, header in includes(source):
        for pattern, homes in LIBRARY_HOMES:
            is_home = (source.path.startswith(("tests/", "bench/"))
                       or any(map(source.in_folder, homes)))
            if pattern.match(header) and not is_home:
                yield number, f"<{header}> belongs to {', '.join(homes)} alone"


def rule_pure_header(source):
    if not source.is_c or not any(source.in_folder(f) for f in PURE):
        return
    for number, is_local, header in includes(source):
        if not is_local and header not in PURE_SYSTEM_HEADERS:
            yield number, f"pure code must not include <{header}>"


def calls(source, names):
    """Yields (line, name) of calls and uses of the names as functions, not of members."""
    pattern = re.compile(r"(?<![\w.>])(" + "|".join(names) + r")\s*\(")
    for match in pattern.finditer(source.code):
        yield line_of(source.code, match.start()), match.group(1)


def rule_banned_call(source):
    if not source.is_c:
        return
    for number, name in calls(source, BANNED_CALLS):
        yield number, f"{name} is banned: {BANNED_CALLS[name]}"


def rule_goto(source):
    if source.is_c:
        for match in re.finditer(r"\bgoto\b", source.code):
            yield line_of(source.code, match.start()), "there is no goto: use HP_CLEANUP"


def rule_clock(source):
    is_exempt = source.in_folder("common/sys") or source.path.startswith(("tests/", "bench/"))
    if source.is_c and not is_exempt and not source.in_folder("worker/sdk"):
        for number, name in calls(source, CLOCK_CALLS):
            yield number, f"{name} outside common/sys: use hp_clock_x"


def rule_sleep(source):
    if not source.path.startswith("tests/") or source.path.startswith("tests/tidy/"):
        return
    if source.is_c:
        for number, name in calls(source, SLEEP_CALLS):
            yield number, f"no {name} in tests: wait for a condition"
    elif source.is_python:
        for node in ast.walk(ast.parse(source.text)):
            name = getattr(node.func, "attr", getattr(node.func, "id", "")) \
                if isinstance(node, ast.Call) else ""
            if name == "sleep":
                yield node.lineno, "no sleep in tests: wait for a condition"


def rule_file_length(source):
    if len(source.lines) > FILE_LINES_MAX:
        yield len(source.lines), f"{len(source.lines)} lines, at most {FILE_LINES_MAX}"


def rule_function_length(source):
    functions = []
    if source.is_c:
        functions = list(c_functions(source))
    elif source.is_python:
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
        functions = [(n.name, n.lineno, n.end_lineno) for n in ast.walk(ast.parse(source.text))
                     if isinstance(n, kinds)]
    for name, first, last in functions:
        if last - first + 1 > FUNCTION_LINES_MAX:
            yield first, f"{name} has {last - first + 1} lines, at most {FUNCTION_LINES_MAX}"


def rule_columns(source):
    for number, line in enumerate(source.lines, 1):
        if len(line) > COLUMNS_MAX:
            yield number, f"{len(line)} columns, at most {COLUMNS_MAX}"


def rule_spdx(source):
    wanted = "SPDX-License-Identifier: BSD-2-Clause"
    first = source.lines[0] if source.lines else ""
    if source.is_c and first != f"/* {wanted} */":
        yield 1, "the first line of a C file is the SPDX line"
    elif not source.is_c and not any(wanted in line for line in source.lines[:2]):
        yield 1, "no SPDX line at the start"


def rule_space(source):
    for number, line in enumerate(source.lines, 1):
        if line != line.rstrip() or ("\t" in line and not source.path.endswith("akefile")):
            yield number, "blank at the end of the line, or a tab"
    if source.text and not source.text.endswith("\n"):
        yield len(source.lines), "no newline at the end of the file"


RULES = {
    "layer": rule_layer,
    "library": rule_library,
    "pure-header": rule_pure_header,
    "banned-call": rule_banned_call,
    "goto": rule_goto,
    "clock": rule_clock,
    "sleep": rule_sleep,
    "file-length": rule_file_length,
    "function-length": rule_function_length,
    "columns": rule_columns,
    "spdx": rule_spdx,
    "space": rule_space,
}


def find_files(root):
    for folder, folders, files in os.walk(root):
        if "build.ninja" in files:
            folders[:] = []  # a build folder, whatever its name
            continue
        folders[:] = sorted(f for f in folders if not SKIPPED_FOLDERS.match(f))
        for name in sorted(files):
            path = os.path.relpath(os.path.join(folder, name), root)
            if "/testdata/" in f"/{path}" or "/golden/" in f"/{path}":
                continue  # inputs and outputs of tests, bad ones among them
            if path in GENERATED:
                continue
            if name.endswith((".c", ".h", ".py", ".sh")) or name == "meson.build":
                yield path


def check_registered(root, paths):
    """Every C test file must be named in a meson.build of the tests."""
    builds = ""
    for path in paths:
        if path.startswith("tests/") and path.endswith("meson.build"):
            with open(os.path.join(root, path), encoding="utf-8") as file:
                builds += file.read()
    for path in paths:
        match = re.match(r"tests/\w+/test_(\w+)\.c$", path)
        if match and not re.search(rf"\b(test_)?{match.group(1)}\b", builds):
            yield path, 1, "registered", "this test is in no meson.build"


def check_corpus(root):
    """Kept inputs have names that say what they are; a fuzzer that is given the folder fills it."""
    corpus = os.path.join(root, "tests/fuzz/corpus")
    for folder, _, names in os.walk(corpus):
        for name in sorted(names):
            if re.fullmatch(r"([a-z]+-)?[0-9a-f]{40}", name):
                path = os.path.relpath(os.path.join(folder, name), root)
                yield path, 1, "corpus", "an input that a fuzzer made: name it, or remove it"


def check_sources(root):
    paths = list(find_files(root))
    for path in paths:
        source = Source(root, path)
        for rule, function in RULES.items():
            for number, text in function(source):
                yield path, number, rule, text
    yield from check_registered(root, paths)
    yield from check_corpus(root)


def undefined_symbols(library):
    output = subprocess.run(["nm", "--undefined-only", "--format=posix", library], check=True,
                            capture_output=True, text=True).stdout
    member = os.path.basename(library)
    for line in output.splitlines():
        if line.endswith(":"):
            member = line.rstrip(":")
        elif line.split()[1:2] == ["U"]:
            yield member, line.split()[0].split("@")[0]


def check_libraries(libraries):
    for library in libraries:
        for member, symbol in undefined_symbols(library):
            if PURE_SYMBOLS_BANNED.match(symbol):
                yield member, 0, "pure-symbol", f"pure code must not call {symbol}"


def pure_libraries(build):
    for folder in PURE:
        path = os.path.join(build, folder)
        if os.path.isdir(path):
            yield from (os.path.join(path, f) for f in sorted(os.listdir(path)) if f.endswith(".a"))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", required=True, help="source folder")
    parser.add_argument("--build", help="build folder: check its pure libraries with nm")
    arguments = parser.parse_args()
    findings = list(check_sources(arguments.root))
    if arguments.build:
        libraries = list(pure_libraries(arguments.build))
        if not libraries:
            sys.exit("tidy: no pure library in the build folder: build first")
        findings += check_libraries(libraries)
    for path, number, rule, text in findings:
        print(f"{path}:{number}: {rule}: {text}")
    print(f"tidy: {len(findings)} findings")
    sys.exit(1 if findings else 0)


if __name__ == "__main__":
    main()
