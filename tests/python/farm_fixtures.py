# SPDX-License-Identifier: BSD-2-Clause
"""Fixtures of the tests of faults: a farm for many tests, a farm of one test, pools, programs.

HP_FAULTS_STANDARD=1 uses the standard library's Pool instead of ours, to try the tests themselves;
those that need a farm skip then.
"""
import contextlib
import os
import pathlib
import signal
import sys
import threading

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))

import pyfarm  # noqa: E402

STANDARD = os.environ.get("HP_FAULTS_STANDARD") == "1"
LIMIT_S = 60  # of one wait
if not STANDARD:
    pyfarm.use_package()


def multiprocessing_module():
    if STANDARD:
        import multiprocessing
        return multiprocessing
    import hostpool.multiprocessing
    return hostpool.multiprocessing


@pytest.fixture(scope="session")
def shared_farm(tmp_path_factory):
    """A farm of one worker with 2 slots, for tests that leave it as it is."""
    if STANDARD:
        yield None
        return
    farm = pyfarm.Farm(tmp_path_factory.mktemp("farm"))
    try:
        farm.add_worker()
        yield farm
    finally:
        farm.end()


@pytest.fixture
def own_farm(tmp_path):
    """A farm of this test, without workers yet."""
    if STANDARD:
        pytest.skip("needs a farm")
    farm = pyfarm.Farm(tmp_path / "farm")
    try:
        yield farm
    finally:
        for process in farm.processes:
            print(f"---- log of {process.name}\n{process.log()[-3000:]}")
        farm.end()


@contextlib.contextmanager
def connected(farm):
    """This process uses the farm."""
    if farm is None:
        yield
        return
    import hostpool
    hostpool.connect(farm.host)
    try:
        yield
    finally:
        hostpool.disconnect()


@pytest.fixture
def farm(shared_farm):
    with connected(shared_farm):
        yield shared_farm


@pytest.fixture
def pools(farm):
    """pools(2, ...) makes a Pool; terminated and joined at the end, within a time."""
    made = []

    def make(*args, **more):
        made.append(multiprocessing_module().Pool(*args, **more))
        return made[-1]
    yield make
    for pool in made:
        pool.terminate()
        assert in_time(pool.join), "join hangs"


def in_time(work, limit_s=LIMIT_S):
    """Calls something on a thread of its own; whether it came back in time."""
    raised = []

    def run():
        try:
            work()
        except BaseException as error:  # handed over
            raised.append(error)
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(limit_s)
    if raised:
        raise raised[0]
    return not thread.is_alive()


@pytest.fixture
def program(request, tmp_path):
    """program(text, *args, farm=...) starts a Python program that uses the farm."""
    started = []

    def start(text, *args, farm=None, **more):
        host = farm.host if farm else None
        one = pyfarm.Program(text, tmp_path, host, *args, name=f"program{len(started)}.py", **more)
        started.append(one)
        return one
    yield start
    for one in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(one.pid, signal.SIGKILL)
        one.end()
