# SPDX-License-Identifier: BSD-2-Clause
"""The package's annotations hold, for it and for programs that use it."""
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]

PROGRAM = """
import hostpool
from hostpool.multiprocessing import Pool, TimeoutError, cpu_count


def square(x: int) -> int:
    return x * x


with Pool(cpu_count(), durable=False) as pool:
    result = pool.map_async(square, range(10))
    try:
        print(sum(result.get(5)), result.id, hostpool.attach(result.id).get())
    except (TimeoutError, hostpool.WorkerLost) as error:
        print(error)
pool.nothing_of_the_kind()
"""


def check(folder, *args):
    env = dict(os.environ, MYPYPATH=str(ROOT / "python"))
    words = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(folder), *args]
    return subprocess.run(words, env=env, stdout=subprocess.PIPE, text=True, check=False)


def test_the_package(tmp_path):
    done = check(tmp_path, str(ROOT / "python" / "hostpool"))
    assert done.returncode == 0, done.stdout


def test_a_program(tmp_path):
    """It finds what is wrong there, and nothing else."""
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    done = check(tmp_path / "cache", str(path))
    lines = [line for line in done.stdout.splitlines() if "error" in line]
    assert "nothing_of_the_kind" in lines[0] and len(lines) == 2, done.stdout
