# SPDX-License-Identifier: BSD-2-Clause
"""A slice of the kill campaign; tests/kill/run --cycles 200 is the whole."""
import os
import pathlib
import subprocess

RUN = pathlib.Path(__file__).resolve().parents[1] / "kill" / "run"


def test_kill_slice(tmp_path):
    cycles = os.environ.get("HP_KILL_CYCLES", "20")
    seed = os.environ.get("HP_KILL_SEED", "1")
    done = subprocess.run(
        [RUN, "--cycles", cycles, "--seed", seed, "--folder", tmp_path / "pool"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=280)
    print(done.stdout[-8000:])
    assert done.returncode == 0, "the campaign found problems, see its output"
