# SPDX-License-Identifier: BSD-2-Clause
"""The client's side of Pool alone, on a hub without a broker (fake_hub.py)."""
import pathlib
import re
import subprocess

import pytest

HERE = pathlib.Path(__file__).resolve().parent
SOURCES = HERE.parents[1] / "python"
NAMES = re.findall(r"^def scenario_(\w+)", (HERE / "pool_scenarios.py").read_text(), re.M)
LIMIT_S = 60


@pytest.mark.parametrize("name", NAMES)
def test_pool(name, tmp_path):
    with open(tmp_path / "output", "w+b") as output:
        (tmp_path / "files").mkdir()
        code = subprocess.run(
            ["/usr/bin/python3", "-B", str(HERE / "pool_scenarios.py"), str(SOURCES), name],
            env={"PATH": "/usr/bin:/bin", "SCENARIO_FOLDER": str(tmp_path / "files")},
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=LIMIT_S).returncode
        output.seek(0)
        text = output.read().decode()
    assert code == 0 and text.endswith("fine\n"), text
