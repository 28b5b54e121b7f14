# SPDX-License-Identifier: BSD-2-Clause
"""The Python of README.md and docs/, as a reader would run it."""
import pathlib
import re
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from farm_fixtures import *  # noqa: E402,F401,F403
from farm_fixtures import STANDARD  # noqa: E402
import procs  # noqa: E402

PAGES = {"README.md": "17984 primes\n",
         "docs/multiprocessing.md": "[0, 1, 4, 9, 16, 25, 36, 49, 64, 81]\n"}


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("where", ["the farm", "a private broker"])
def test_first_program_of(page, where, program, shared_farm):
    text = re.search(r"```python\n(.*?)```", (procs.ROOT / page).read_text(), re.S).group(1)
    if STANDARD:
        text = text.replace("from hostpool.", "from ")
    farm = shared_farm if where == "the farm" else None
    code, out, err = program(text, farm=farm).finish()
    assert (code, out, err) == (0, PAGES[page], "")
