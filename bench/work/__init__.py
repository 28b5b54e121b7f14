# SPDX-License-Identifier: BSD-2-Clause
"""The workloads W1 to W10, one module each; find() gives them by name."""
import importlib

NAMES = tuple(f"W{number}" for number in range(1, 11))


def find(name):
    return importlib.import_module(f"work.{name.lower()}").WORKLOAD
