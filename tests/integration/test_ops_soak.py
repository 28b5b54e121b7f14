# SPDX-License-Identifier: BSD-2-Clause
"""A slice of tests/soak/run: some seconds, in which the books must be right at each look."""
import os
import pathlib
import re
import subprocess

RUN = pathlib.Path(__file__).resolve().parents[1] / "soak" / "run"


def test_soak_slice(tmp_path):
    minutes = os.environ.get("HP_SOAK_MINUTES", "0.08")
    done = subprocess.run([RUN, "--minutes", minutes, "--every", "0.5", "--books-only", "--folder",
                           tmp_path / "soak"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stdout[-6000:]
    tasks, samples, audits = re.search(r"(\d+) tasks, (\d+) samples, (\d+) times",
                                       done.stdout).groups()
    assert int(tasks) > 0 and int(samples) > 0 and int(audits) > 1
