# SPDX-License-Identifier: BSD-2-Clause
"""What docs/multiprocessing.md promises beyond the standard library's Pool."""
import concurrent.futures
import functools
import os
import pathlib
import subprocess
import sys
import threading

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import fault_jobs as jobs  # noqa: E402
from farm_fixtures import *  # noqa: E402,F401,F403
from farm_fixtures import LIMIT_S, STANDARD  # noqa: E402
import procs  # noqa: E402

pytestmark = pytest.mark.skipif(STANDARD, reason="is about hostpool's own")


def test_constants_are_loaded_once_in_each_child(pools):
    import hostpool
    table = hostpool.constant(list(range(100_000)))
    pool = pools(2)
    job = functools.partial(jobs.sums, table)
    got = pool.map_async(job, range(100), 1).get(LIMIT_S)
    assert [value for _, value in got] == [sum(range(100_000)) + x for x in range(100)]
    assert len({identity for identity, _ in got}) <= 2
    assert pool.apply_async(jobs.sums, (table, 5)).get(LIMIT_S)[1] == sum(range(100_000)) + 5


def test_errors_of_a_map(pools):
    pool = pools(2)
    result = pool.map_async(jobs.fail_if, range(40), 4)
    result.wait(LIMIT_S)
    errors = result.errors()
    assert [index for index, *_ in errors] == [7, 17, 27, 37]
    assert [str(error) for _, error, *_ in errors] == [f"bad {x}" for x in (7, 17, 27, 37)]
    assert all(host == "worker-1" and attempts == 1 for _, _, host, attempts in errors)


def test_id_host_attempts(pools, tmp_path):
    pool = pools(1)
    result = pool.apply_async(jobs.announce_and_wait, (str(tmp_path), "runs", 3))
    assert result.wait_accepted(LIMIT_S) and result.id > pool.id
    procs.wait_until((tmp_path / "runs").exists, "it runs")
    procs.wait_until(lambda: result.host == "worker-1", "the broker has heard")
    assert result.attempts == 1 and not result.ready()
    (tmp_path / "go").touch()
    assert result.get(LIMIT_S) == 3 and (result.host, result.attempts) == ("worker-1", 1)


def test_child_losses_runs_it_again(pools, tmp_path):
    pool = pools(1, child_losses=2)
    result = pool.apply_async(jobs.kill_self_once, (str(tmp_path), 9))
    assert result.get(LIMIT_S) == 81 and result.attempts == 2


def test_cancel(pools, tmp_path):
    import hostpool
    pool = pools(1)
    runs = pool.apply_async(jobs.announce_and_wait, (str(tmp_path), "runs"))
    waits = pool.apply_async(jobs.square, (2,))
    procs.wait_until((tmp_path / "runs").exists, "it runs")
    assert not runs.cancel_queued()
    assert waits.cancel()
    assert runs.cancel(grace=0.1)
    for result in (runs, waits):
        with pytest.raises(hostpool.TaskCancelled):
            result.get(LIMIT_S)
    assert not runs.cancel()
    assert pool.apply_async(jobs.square, (3,)).get(LIMIT_S) == 9


def test_timeout_of_calls(pools, tmp_path):
    import hostpool
    pool = pools(1, timeout=0.3)
    with pytest.raises(hostpool.TaskTimeout):
        pool.apply_async(jobs.wait_for, (str(tmp_path / "never"),)).get(LIMIT_S)
    assert pool.apply_async(jobs.square, (3,)).get(LIMIT_S) == 9


@pytest.mark.parametrize("buffersize", [1, 3, 50])
def test_buffersize(pools, buffersize):
    pool = pools(2)
    taken = []

    def numbers():
        for x in range(200):
            taken.append(x)
            yield x
    iterator = pool.imap(jobs.square, numbers(), buffersize=buffersize)
    for x in range(200):
        assert next(iterator) == x * x
        assert len(taken) <= x + 1 + buffersize + 1
    pool.close()


def test_close_lifts_the_bound_of_imap(pools):
    pool = pools(2)
    iterator = pool.imap(jobs.square, iter(range(500)), buffersize=2)
    pool.close()
    pool.join()
    assert list(iterator) == [x * x for x in range(500)]


def test_pool_in_memory(pools):
    pool = pools(2, durable=False)
    assert pool.map(jobs.square, range(1000), 1) == [x * x for x in range(1000)]
    data = os.urandom(20 << 20)
    assert pool.apply_async(jobs.echo, (data,)).get(LIMIT_S) == data
    assert pool.apply_async(jobs.fork_child, (3,)).get(LIMIT_S) == (9, 0)


def test_results_that_are_kept_can_be_had_again(pools, farm):
    import hostpool
    kept = pools(1, keep_results=True)
    result = kept.apply_async(jobs.square, (7,))
    assert result.get(LIMIT_S) == 49
    assert hostpool.attach(result.id).get(LIMIT_S) == 49
    with pytest.raises(hostpool.TaskGone):
        hostpool.attach(2**60).get(LIMIT_S)


def test_output_of_children_is_in_the_log_of_the_task(pools, farm):
    pool = pools(1, keep_results=True)
    result = pool.apply_async(jobs.print_both, ("a line of a task",))
    assert result.get(LIMIT_S) == 16
    end = farm.call("task.get", ids=[result.id], end=True)["tasks"][0]["end"]
    assert end["out"] == b"a line of a task\n" == end["err"]


def test_list_close_and_terminate_from_outside(pools, farm):
    import hostpool
    pool = pools(1, name="the pool of a test")
    entry = {p["pool"]: p for p in farm.call("pool.list")["pools"]}[pool.id]
    assert entry["name"] == "the pool of a test" and entry["state"] == 1
    farm.call("pool.end", pool=pool.id, how=1)
    procs.wait_until(lambda: farm.call("pool.info", pool=pool.id)["state"] == 4, "it has ended")
    with pytest.raises((hostpool.HostpoolError, ValueError)):
        pool.apply_async(jobs.square, (2,)).get(LIMIT_S)


def test_a_map_of_many_items_from_several_threads(pools):
    pool = pools(2)
    wrong = []

    def use(base):
        values = pool.map(jobs.square, range(base, base + 50_000), 1)
        if values != [x * x for x in range(base, base + 50_000)]:
            wrong.append(base)
    threads = [threading.Thread(target=use, args=(i * 50_000,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S * 3)
    assert not wrong and not any(thread.is_alive() for thread in threads)


def test_imap_unordered_gives_what_is_ready(pools, tmp_path):
    pool = pools(2)
    iterator = pool.imap_unordered(functools.partial(jobs.wait_in_order, str(tmp_path)), [0, 1])
    for x in (1, 0):
        (tmp_path / f"go{x}").touch()
        assert iterator.next(LIMIT_S) == x


def test_logs_of_a_call(pools, farm):
    """What it printed, not the bytes of what it returned."""
    pool = pools(1)
    result = pool.apply_async(jobs.print_both, ("a line of a task",))
    assert result.get(LIMIT_S) == 16
    silent = pool.apply_async(jobs.square, (3,))
    assert silent.get(LIMIT_S) == 9
    for number, text in ((result.id, b"a line of a task\n"), (silent.id, b"")):
        done = subprocess.run([procs.program("hostpool"), "-H", farm.host, "logs", str(number)],
                              capture_output=True)
        assert (done.returncode, done.stdout, done.stderr) == (0, text, text)


def test_cancelled_futures_of_an_executor(farm, tmp_path):
    """Those that do not run yet are cancelled, whoever is told first."""
    import hostpool
    with hostpool.Executor(1) as executor:
        first = executor.submit(jobs.announce_and_wait, str(tmp_path), "first", 7)
        procs.wait_until((tmp_path / "first").exists, "it runs")
        futures = [executor.submit(jobs.square, x) for x in range(50)]
        assert all(future.id for future in futures)
        assert not first.cancel()
        assert all([future.cancel() for future in futures])
        assert all(future.cancelled() and future.cancel() for future in futures)
        (tmp_path / "go").touch()
        assert first.result(LIMIT_S) == 7
        with pytest.raises(concurrent.futures.CancelledError):
            futures[0].result(LIMIT_S)
        assert executor.submit(jobs.square, 3).result(LIMIT_S) == 9
