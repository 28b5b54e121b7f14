# SPDX-License-Identifier: BSD-2-Clause
"""A slice of the partition campaign; tests/partition/run is the whole."""
import os
import pathlib
import subprocess

RUN = pathlib.Path(__file__).resolve().parents[1] / "partition" / "run"


def test_partition_slice(tmp_path):
    count = os.environ.get("HP_PARTITION_COUNT", "12")
    seed = os.environ.get("HP_PARTITION_SEED", "1")
    done = subprocess.run(
        [RUN, "--count", count, "--seed", seed, "--folder", tmp_path / "pool"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=280)
    print(done.stdout[-8000:])
    assert done.returncode == 0, "the campaign found problems, see its output"
