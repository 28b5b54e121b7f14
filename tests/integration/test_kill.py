# SPDX-License-Identifier: BSD-2-Clause
"""Slices of the kill campaigns; tests/kill/run --cycles 200 and tests/kill/points are the whole."""
import json
import os
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("HP_BUILD", ROOT / "build"))
RUN = pathlib.Path(__file__).resolve().parents[1] / "kill" / "run"


def test_kill_slice(tmp_path):
    cycles = os.environ.get("HP_KILL_CYCLES", "20")
    seed = os.environ.get("HP_KILL_SEED", "1")
    done = subprocess.run(
        [RUN, "--cycles", cycles, "--seed", seed, "--folder", tmp_path / "pool"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=280)
    print(done.stdout[-8000:])
    assert done.returncode == 0, "the campaign found problems, see its output"


def test_crash_points(tmp_path):
    """In a build with the option each of them kills once, in any other there are none."""
    options = json.loads((BUILD / "meson-info" / "intro-buildoptions.json").read_text())
    wanted = next(one["value"] for one in options if one["name"] == "crash_points")
    for program in ("server/hostpoold", "worker/hostpool-worker"):
        assert (b"HP_CRASH" in (BUILD / program).read_bytes()) == wanted, program
    if not wanted:
        return
    done = subprocess.run(
        [RUN.parent / "points", "--passes", "1", "--folder", tmp_path / "pool"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=280)
    print(done.stdout[-8000:])
    assert done.returncode == 0, "the campaign found problems, see its output"


def test_fast_kills_of_the_broker(tmp_path):
    done = subprocess.run(
        [RUN, "--only", "broker", "--cycles", "15", "--seed", "1", "--folder", tmp_path / "pool"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=280)
    print(done.stdout[-8000:])
    assert done.returncode == 0, "the campaign found problems, see its output"
