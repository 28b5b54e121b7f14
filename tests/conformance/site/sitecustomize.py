# SPDX-License-Identifier: BSD-2-Clause
"""Loaded by Python programs which a test of CPython starts: they, too, get hostpool's Pool."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import substitute  # noqa: E402

del sys.path[0]
substitute.install()
