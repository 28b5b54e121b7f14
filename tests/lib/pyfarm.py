# SPDX-License-Identifier: BSD-2-Clause
"""Python programs on hostpool in tests: where the package is, and a farm for them."""
import contextlib
import os
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("HP_BUILD") or ROOT / "build").resolve()
PACKAGES = BUILD / "python"


def use_package():
    """Lets this process import hostpool from the build folder."""
    if str(PACKAGES) not in sys.path:
        sys.path.insert(0, str(PACKAGES))


def environment(host=None, **more):
    """The environment of a program that uses hostpool."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("HOSTPOOL_")}
    env["PYTHONPATH"] = str(PACKAGES)
    if host:
        env["HOSTPOOL_HOST"] = host
    env.update(more)
    return env


@contextlib.contextmanager
def local(slots):
    """A private farm; its address."""
    use_package()
    import hostpool
    with hostpool.local(slots) as farm:
        yield farm.host
