# SPDX-License-Identifier: BSD-2-Clause
"""The tour of README.md, line by line as a newcomer would type it."""
import os
import re
import subprocess

import msgpack
import pytest

import procs


def block(title, start):
    """The lines of the indented block of a chapter of README.md that begins with `start`."""
    text = (procs.ROOT / "README.md").read_text()
    chapter = re.search(rf"^## {title}\n(.*?)^## ", text, re.M | re.S).group(1)
    lines = chapter.splitlines()
    begin = next(i for i, line in enumerate(lines) if line.startswith("    " + start))
    taken = []
    for line in lines[begin:]:
        if not line.startswith("    "):
            break
        taken.append(line.strip())
    return taken


TOUR = block("A tour", "export HOSTPOOL_HOST=")


@pytest.fixture
def shell(broker, worker_factory, client, tmp_path):
    """shell(line): what a line does in a shell at the root of the tree, with the built programs."""
    for i in (1, 2):
        worker_factory(name=f"worker-{i}", slots=2, module=True)
    procs.wait_workers(client, 2)
    env = {k: v for k, v in os.environ.items() if not k.startswith("HOSTPOOL_")}
    env.update(HOSTPOOL_HOST=broker.address, HOME=str(tmp_path),
               PATH=f"{procs.BUILD}/cli:{env['PATH']}")

    def run(line):
        return subprocess.run(["bash", "-c", line], cwd=procs.ROOT, env=env, text=True,
                              stdin=subprocess.DEVNULL, capture_output=True,
                              timeout=procs.LIMIT_S)
    return run


def test_every_line_of_the_tour(shell):
    assert len(TOUR) > 15 and TOUR[0] == \
        "export HOSTPOOL_HOST=127.0.0.1:7741 PATH=$PWD/build/cli:$PATH"
    outputs = {}
    for line in TOUR[1:]:
        done = shell(line)
        assert done.returncode == 0, (line, done.stdout, done.stderr)
        outputs[line.split("#")[0].strip()] = done.stdout
    assert outputs["hostpool logs last"] == "hello\n"
    assert outputs["hostpool run -- uname -sr"] == \
        subprocess.run(["uname", "-sr"], capture_output=True, text=True, check=True).stdout
    assert "delayed" in outputs["hostpool why last"]
    assert "worker-2" in outputs["hostpool worker ls"]


def test_private_broker_of_the_tour(shell):
    line = block("A tour", "hostpool dev")[0]
    done = shell(line)
    assert (done.returncode, done.stdout.strip()) == (0, os.uname().nodename), done


def test_a_function_by_the_guide_alone(tmp_path, broker, worker_factory, client):
    """worker/sdk/README.md: its module, built by its command line."""
    guide = (procs.ROOT / "worker/sdk/README.md").read_text()
    (tmp_path / "mine.c").write_text(re.search(r"```c\n(.*?)```", guide, re.S).group(1))
    command = re.search(r"^    (cc .*)$", guide, re.M).group(1)
    subprocess.run(["sh", "-c", f"{command} -I{procs.ROOT}/worker/sdk"], cwd=tmp_path, check=True,
                   timeout=procs.LIMIT_S)
    worker_factory(module=tmp_path / "mine.so")
    task = client.submit([b"\x0c"], kind=2, fn="square")[0]
    assert msgpack.unpackb(client.wait([task])[0]["end"]["result"]) == 144
