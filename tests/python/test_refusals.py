# SPDX-License-Identifier: BSD-2-Clause
"""What programs are told when the broker, or a worker, does not do what they ask: at once, by the
right class, and with what to do."""
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from farm_fixtures import *  # noqa: E402,F401,F403
from farm_fixtures import STANDARD, pyfarm  # noqa: E402
import procs  # noqa: E402

pytestmark = pytest.mark.skipif(STANDARD, reason="there is no broker")

HEAD = """
import sys
import hostpool
from hostpool import exceptions
from hostpool.multiprocessing import Pool
"""


# ------------------------------------------------------------------------------ tokens

@pytest.fixture
def guarded_broker(tmp_path):
    """A broker that asks for a token; (address, file of the token)."""
    token = tmp_path / "token"
    token.write_text("a-token-of-this-test-0123456789abcdef\n")
    token.chmod(0o600)
    broker = procs.Broker(tmp_path, "--token-file", token, env=pyfarm.daemon_environment())
    try:
        yield broker.address, token
    finally:
        broker.end()


TOKENS = HEAD + """
host, path = sys.argv[1:]

def refused(work):
    try:
        work()
    except exceptions.BrokerError as error:
        return error.status, "token is missing or wrong" in str(error), "token_file" in str(error)

for connection in (hostpool.connect(host), hostpool.connect(host, token="wrong" * 8)):
    print(refused(lambda: Pool(1, connection=connection)))
    print(refused(hostpool.cpu_count))
    print(refused(hostpool.attach(1).get))
hostpool.connect(host, token_file=path)
print(hostpool.cpu_count())
"""


def test_a_wrong_token_is_told_at_once(program, guarded_broker):
    """The waits have no time, or one of a minute: the program ends because it is told."""
    code, out, err = program(TOKENS, *guarded_broker).finish(45)
    assert (code, out.splitlines(), err) == (0, ["('denied', True, True)"] * 6 + ["1"], "")


INHERITED = HEAD + """
import os
host, path = sys.argv[1:]

def look():
    return [os.environ.get(name) for name in ("HOSTPOOL_TOKEN", "FROM_THE_DAEMON")]

with Pool(1, connection=hostpool.connect(host, token_file=path)) as pool:
    print(pool.apply(look))
"""


def test_a_token_of_the_daemons_environment_stays_there(program, guarded_broker, tmp_path):
    address, token = guarded_broker
    env = pyfarm.daemon_environment(HOSTPOOL_TOKEN="of-somebody-else" * 3, FROM_THE_DAEMON="yes")
    worker = procs.Worker(tmp_path, address, flags=["--token-file", token, "--inherit-env"],
                          env=env)
    try:
        code, out, err = program(INHERITED, address, token).finish(45)
    finally:
        worker.end()
    assert (code, out, err) == (0, "[None, 'yes']\n", "")


# ------------------------------------------------------------------------------ pools

def test_more_processes_than_the_workers_can_have(farm):
    import hostpool
    from hostpool.multiprocessing import Pool
    with pytest.raises(hostpool.QuotaExceeded, match="33, but the workers .* can have 32 in all"):
        Pool(33)


ENDED_ELSEWHERE = HEAD + """
def refused(work):
    try:
        return work()
    except Exception as error:
        return type(error).__name__

for how in ("terminate", "close"):
    pool = Pool(1)
    other = Pool.attach(pool.handle)
    getattr(other, how)()
    other.join()
    print(refused(lambda: pool.apply(abs, (-1,))), refused(lambda: pool.map(abs, [-1])),
          refused(lambda: next(pool.imap(abs, [-1]))))
    pool.terminate()
    pool.join()
"""


def test_calls_of_a_pool_that_another_client_ended(program, shared_farm):
    code, out, err = program(ENDED_ELSEWHERE, farm=shared_farm).finish()
    assert (code, out.splitlines(), err) == (0, [" ".join(["PoolTerminated"] * 3)] * 2, "")


def test_an_interpreter_that_is_not_there(farm, tmp_path):
    import hostpool
    from hostpool.multiprocessing import Pool
    with pytest.raises(ValueError, match="absolute path"):
        Pool(1, interpreter="python3")
    missing = tmp_path / "python"
    with Pool(1, interpreter=str(missing)) as pool:
        with pytest.raises(hostpool.InitializerError, match=f"{missing}.*does not have it"):
            pool.apply(abs, (-1,))


def test_an_interpreter_that_the_worker_does_not_allow(own_farm, tmp_path):
    import hostpool
    from hostpool.multiprocessing import Pool
    own_farm.add_worker(only=("--python", "/usr/bin/python3"))
    mine = tmp_path / "python"
    mine.symlink_to("/usr/bin/python3")
    connection = hostpool.connect(own_farm.host)
    try:
        with Pool(1, interpreter=str(mine), connection=connection) as pool:
            with pytest.raises(hostpool.InitializerError, match=f"{mine}.*--any-interpreter"):
                pool.apply(abs, (-1,))
        with Pool(1, interpreter="/usr/bin/python3", connection=connection) as pool:
            assert pool.apply(abs, (-1,)) == 1
    finally:
        hostpool.disconnect()


def test_an_interpreter_that_is_there(farm, tmp_path):
    from hostpool.multiprocessing import Pool
    mine = tmp_path / "python"
    mine.symlink_to("/usr/bin/python3")
    with Pool(1, interpreter=str(mine)) as pool:
        assert pool.apply(eval, ("__import__('sys').executable",)) == str(mine)


LEAVES = HEAD + """
import os, threading

def slow(x):
    threading.Event().wait()

def waits(pool):
    pool.apply(slow, (1,))

def works(pool):
    while True:
        pool.map(abs, range(100), 1)

def fails(pool):
    raise LookupError("shown")

if __name__ == "__main__":
    pool = Pool(4)  # two of them wait for ever
    for work in (waits, works, works, lambda pool: list(pool.imap(slow, [1]))):
        threading.Thread(target=work, args=(pool,), daemon=True).start()
    pool.apply(abs, (1,))
    thread = threading.Thread(target=fails, args=(pool,), daemon=True)
    thread.start()
    thread.join()
    print("leaves")
"""


@pytest.mark.parametrize("is_private", [False, True])
def test_daemon_threads_that_wait_at_the_end(program, shared_farm, is_private):
    code, out, err = program(LEAVES, farm=None if is_private else shared_farm).finish()
    assert (code, out.split()) == (0, ["leaves"])
    assert err.count("Traceback") == 1 and "LookupError: shown" in err


# ------------------------------------------------------------------------------ what is kept

class Told:
    """Stands for a connection and its hub: what the broker is told to forget."""

    def __init__(self):
        self.hub = self
        self.ids = []

    def forget(self, ranges):
        self.ids += [number for first, count in ranges for number in range(first, first + count)]


def test_the_last_results_stay_until_the_pool_ends():
    from hostpool import pool
    told = Told()
    ledger = pool._Ledger(told, False)
    for number in range(1, 50_001):
        ledger.delivered(number)
        ledger_kept = number - len(told.ids)
        assert ledger_kept >= min(number, pool.FORGET_COUNT)
        assert ledger_kept < 2 * pool.FORGET_COUNT
    ledger.delivered(100_000, 10, pool.LARGE_BYTES + 1)
    assert told.ids[-10:] == list(range(100_000, 100_010))
    assert len(told.ids) - 10 <= 50_000 - pool.FORGET_COUNT
    ledger.delivered(60_000, 4096)
    ledger.tell()
    assert sorted(told.ids) == [*range(1, 50_001), *range(60_000, 64_096),
                                *range(100_000, 100_010)]


KEEPS = HEAD + """
import os
small = large = None
pool = Pool(1)
small = pool.apply_async(bytes, (10,))
small.get()
large = pool.apply_async(bytes, (1 << 20,))
large.get()
again = pool.apply_async(bytes, (20,))
again.get()
pool.detach()
pool.close()
print(small.id, again.id, pool.handle.id)
"""


def test_small_results_that_came_before_a_large_one_are_kept(program, shared_farm, farm):
    import hostpool
    code, out, err = program(KEEPS, farm=shared_farm).finish()
    assert (code, err) == (0, "")
    small, again, pool = map(int, out.split())
    assert hostpool.attach(small).get(60) == bytes(10)
    assert hostpool.attach(again).get(60) == bytes(20)


# ------------------------------------------------------------------------------ losses

LOST = HEAD + """
import os, signal, threading

def dies():
    os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    with Pool(1) as pool:
        told = threading.Event()
        def show(error):
            print(type(error).__name__, error.host)
            told.set()
        pool.apply_async(dies, (), {}, None, show)
        told.wait(60)
"""


def test_callbacks_know_the_host_of_a_loss(program, shared_farm):
    code, out, err = program(LOST, farm=shared_farm).finish()
    assert (code, out.split(), err) == (0, ["WorkerLost", "worker-1"], "")
