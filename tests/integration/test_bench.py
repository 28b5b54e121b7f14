# SPDX-License-Identifier: BSD-2-Clause
"""bench/run with a handful of tasks: it ends well and has its rows. No time is asserted."""
import json
import os
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))

import pool  # noqa: E402

RUN = pool.ROOT / "bench/run"
ROWS = {
    "W1": {"hostpool, strict", "hostpool", "hostpool, durable=false", "hostpool, strict, for 60 s",
           "SQLite alone, 2 rows a task"},
    "W2": {"hostpool", "hostpool, durable=false", "hostpool, one CPU"},
}


def bench(*arguments):
    return subprocess.run([RUN, *map(str, arguments)], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=280, check=False,
                          env={**os.environ, "HP_BUILD": str(pool.BUILD)})


def test_rows(tmp_path):
    """Two workloads without peers: every result was checked, and each row was measured."""
    done = bench("W1", "W2", "--quick", "--scale", "0.001", "--folder", tmp_path, "--json",
                 tmp_path / "out.json")
    print(done.stdout)
    assert done.returncode == 0, done.stdout
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["machine"]["cpus"] > 0 and set(found["workloads"]) == set(ROWS)
    for name, sides in ROWS.items():
        rows = found["workloads"][name]["rows"]
        assert sides <= {row["side"] for row in rows}
        assert all(row["median"] is not None and row["durable"] for row in rows), rows
    assert not any(row["kind"] == "peer" for one in found["workloads"].values()
                   for row in one["rows"])
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"], "it left something behind"


def test_unknown_workload(tmp_path):
    done = bench("W11", "--folder", tmp_path)
    assert done.returncode == 2 and "no workload W11" in done.stdout
