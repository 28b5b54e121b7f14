# SPDX-License-Identifier: BSD-2-Clause
"""Acknowledged means on the disk: strace sees an fdatasync between a submit and its answer."""
import pathlib
import re
import signal
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))

import pool  # noqa: E402

SUBMITS = 20


def trace_submits(one, trace):
    """The lines of strace while clients submit tasks with names task-<n>."""
    strace = subprocess.Popen(
        ["strace", "-f", "-s", "512", "-o", trace, "-p", str(one.broker.pid), "-e",
         "trace=read,recvfrom,recvmsg,readv,write,sendto,sendmsg,writev,fdatasync,fsync,pwrite64"],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        assert "attached" in strace.stderr.readline()
        with one.client() as client:
            for number in range(SUBMITS):
                # The id of the request, 100000 + number, stands in the bytes of request and answer.
                client.msgid = 100000 + number - 1
                client.call("task.submit", options={
                    "kind": pool.COMMAND, "argv": ["true"], "name": f"task-{number}-end"})
    finally:
        strace.send_signal(signal.SIGINT)
        strace.wait(30)
    return trace.read_text().splitlines()


def sync_ends(lines, begin, end):
    """Whether an fdatasync (or fsync) began and ended well between two lines."""
    began = set()
    for line in lines[begin:end]:
        match = re.match(r"(\d+) +(<\.\.\. )?(fdatasync|fsync)\b", line)
        if match and "unfinished" in line:
            began.add(match[1])
        elif match and line.endswith("= 0") and (not match[2] or match[1] in began):
            return True
    return False


def test_fdatasync_between_submit_and_answer(tmp_path):
    with pool.Pool(tmp_path) as one:
        one.start()
        lines = trace_submits(one, tmp_path / "trace")
        writes = []
        for number in range(SUBMITS):
            msgid = (100000 + number).to_bytes(4, "big")
            asked = next(i for i, line in enumerate(lines) if f"task-{number}-end" in line)
            answer = next(i for i, line in enumerate(lines) if i > asked and re.search(
                r"(write|writev|sendto|sendmsg)\(", line) and is_answer(line, msgid))
            between = "\n".join(lines[asked:answer + 1])
            assert sync_ends(lines, asked, answer), between
            writes.append(between.count("pwrite64("))
        # All frames of a small transaction are one write. (A copy of the log may come in between.)
        assert sorted(writes)[SUBMITS // 2] <= 2, writes


def is_answer(line, msgid):
    """Whether a line of strace writes a response with this id."""
    data = b"".join(
        bytes([int(part[1:], 8)]) if re.fullmatch(r"\\[0-7]{1,3}", part)
        else {"\\n": b"\n", "\\t": b"\t", "\\r": b"\r", "\\v": b"\v", "\\f": b"\f", "\\\"": b"\"",
              "\\\\": b"\\"}.get(part, part.encode("latin-1"))
        for text in re.findall(r'"((?:[^"\\]|\\.)*)"', line)
        for part in re.findall(r"\\[0-7]{1,3}|\\.|[^\\]", text))
    return b"\x94\x01\xce" + msgid in data
