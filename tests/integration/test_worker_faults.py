# SPDX-License-Identifier: BSD-2-Clause
"""Tasks that harm: they crash, hang, flood, kill their worker, leave processes. What it costs is
bounded, the next task runs, and the submitter can read what happened."""
import os
import pathlib
import signal
import sys

import msgpack
import pytest

import procs
import rpc

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))

import pool  # noqa: E402

DONE, FAILED, CANCELLED = (rpc.STATE[name] for name in ("done", "failed", "cancelled"))
CHILD_SIGNAL, TIMEOUT, NODE_LOST, NODE_RESTART, NOT_STARTED, TOO_BIG = 4, 7, 8, 9, 11, 12
# The worker is the parent of the helper that started the command.
KILL_WORKER = "kill -9 $(cut -d' ' -f4 /proc/$PPID/stat); sleep 1000"


@pytest.fixture
def broker(broker_factory):
    return broker_factory("--lease", "1500ms", "--heartbeat", "300ms")


@pytest.fixture
def mark(tmp_path):
    """An environment setting of this test alone, to find its processes by."""
    return f"HP_TEST_MARK={tmp_path.name}.{os.getpid()}"


def marked(mark):
    return pool.processes_with(mark)


def named(word):
    """Processes with a word on their command line."""
    return [entry for entry in os.listdir("/proc") if entry.isdigit() and
            word.encode() in pool.read_proc(entry, "cmdline")]


def goes_on(client):
    """A command and a function run as if nothing had happened."""
    ids = [client.run_command("true"), *client.submit([b"\x91\x07"], kind=2, fn="square")]
    assert [task["state"] for task in client.wait(ids)] == [DONE, DONE]


# ---------------------------------------------------------------- tasks that kill


@pytest.mark.parametrize("losses", [0, 2, 5])
def test_crashing_function_starts_just_so_often(worker_factory, client, losses):
    worker_factory(module=True)
    poison = client.submit([b""], kind=2, fn="crash", child_losses=losses, retry_base_ms=1)
    ended = client.wait(poison)[0]
    assert (ended["state"], ended["reason"]) == (FAILED, CHILD_SIGNAL)
    assert (ended["attempt"], ended["losses"]) == (losses + 1, losses + 1)
    assert ended["end"]["signal"] == signal.SIGSEGV
    assert "about to touch" in ended["end"]["error"]
    goes_on(client)


def test_crashes_are_counted_over_restarts_of_the_broker(broker, worker_factory, client_factory,
                                                         tmp_path):
    """The attempt is on the disk before it starts: a broker killed in between forgets none."""
    worker_factory(module=True)
    client = client_factory()
    starts = tmp_path / "starts"
    task = client.run_command("sh", "-c", f"echo x >>{starts}; kill -SEGV $$", max_retries=3,
                              retry_base_ms=300, retry_cap_ms=300)
    for count in (1, 2, 3):
        procs.wait_until(lambda: starts.exists() and len(starts.read_text()) >= 2 * count,
                         "a start")
        broker.kill()
        broker.start()
    ended = client_factory().wait([task])[0]
    assert (ended["state"], ended["end"]["signal"]) == (FAILED, signal.SIGSEGV)
    # One that ran while the broker was killed may be lost with it and start again, as a loss.
    assert 4 <= len(starts.read_text()) // 2 <= 4 + ended["losses"]
    assert ended["attempt"] == len(starts.read_text()) // 2


@pytest.mark.parametrize("max_losses, killed", [(0, 1), (1, 2)])
def test_task_that_kills_its_worker_is_stopped(broker, worker_factory, client, max_losses, killed):
    """So many hosts may it cost, and not one more."""
    workers = [worker_factory(name=f"w{i}", slots=1, module=True) for i in range(3)]
    procs.wait_workers(client, 3)
    poison = client.run_command("sh", "-c", KILL_WORKER, max_losses=max_losses, retry_base_ms=1)
    ended = client.wait([poison])[0]
    assert (ended["state"], ended["reason"]) == (FAILED, NODE_LOST)
    assert (ended["attempt"], ended["losses"]) == (killed, max_losses)
    assert len([one for one in workers if not one.is_alive()]) == killed
    assert len(broker.events("attempt_lost")) == killed
    goes_on(client)


def test_task_that_kills_restarted_workers_is_stopped(worker_factory, client, tmp_path):
    """The same where a service manager starts them again at once: the budget counts that, too."""
    worker = worker_factory(slots=1, module=True)
    starts = tmp_path / "starts"
    poison = client.run_command("sh", "-c", f"echo x >>{starts}; {KILL_WORKER}", max_losses=3,
                                retry_base_ms=1)
    deaths = 0

    def ended():
        nonlocal deaths
        if not worker.is_alive():
            deaths += 1
            worker.start()
        return client.get(poison)["state"] == FAILED
    procs.wait_until(ended, "the task is given up")
    assert deaths == 4 and starts.read_text() == 4 * "x\n"
    assert client.get(poison)["reason"] in (NODE_LOST, NODE_RESTART)
    procs.wait_workers(client, 1)
    goes_on(client)


# ---------------------------------------------------------------- the daemon's death


def test_killed_worker_leaves_no_child(worker_factory, client):
    """Fifty commands, some of them with processes that left their group and hide."""
    worker = worker_factory(slots=50, module=True)
    nap = f"sleep 1000.{os.getpid()}"
    scripts = [f"exec {nap}", f"{nap} & wait", f"setsid {nap} & wait", f"trap '' TERM HUP; {nap}",
               f"env -i setsid -f {nap}; {nap}"]
    ids = [client.run_command("sh", "-c", scripts[i % 5], max_losses=0) for i in range(50)]
    procs.wait_until(lambda: len(named(nap[6:])) == 100, "they run", process=worker)
    worker.kill()
    procs.wait_until(lambda: not named(nap[6:]), "all of them are gone")
    assert {(task["state"], task["reason"]) for task in client.wait(ids)} == {(FAILED, NODE_LOST)}


def test_another_boot_ends_what_the_last_one_ran(broker_factory, worker_factory, client_factory,
                                                 tmp_path):
    """A host that was reset: with a lease of an hour its tasks run again as soon as it is back."""
    broker = broker_factory("--lease", "1h", name="patient")
    worker = worker_factory(broker, slots=3)
    client = client_factory(broker)
    starts = tmp_path / "starts"
    ids = [client.run_command("sh", "-c", f"echo $HOSTPOOL_ATTEMPT >>{starts};"
                              " test $HOSTPOOL_ATTEMPT = 2 || sleep 1000") for _ in range(3)]
    procs.wait_until(lambda: starts.exists() and starts.read_text() == "1\n" * 3, "they run")
    worker.kill()
    worker.start()
    ended = client.wait(ids)
    assert {(task["state"], task["attempt"], task["losses"]) for task in ended} == {(DONE, 2, 1)}
    assert len([line for line in broker.events("attempt_lost") if "node_restart" in line]) == 3


# ---------------------------------------------------------------- tasks that do not end


@pytest.mark.parametrize("kind", ["command", "deaf", "function"])
def test_hung_task_gives_its_slot_back(worker_factory, client, kind):
    """The worker's heartbeats go on all the while; the limit of the task is what ends it."""
    worker_factory(slots=1, module=True)
    limit = {"hard_timeout_ms": 300, "kill_grace_ms": 100}
    if kind == "function":
        hung = client.submit([msgpack.packb([1000000])], kind=2, fn="sleep_ms", **limit)[0]
    else:
        script = {"command": "sleep 1000", "deaf": "trap '' TERM; sleep 1000 & kill -STOP $$; wait"}
        hung = client.run_command("sh", "-c", script[kind], **limit)
    behind = client.run_command("true")
    tasks = client.wait([hung, behind])
    assert [(task["state"], task.get("reason", 0)) for task in tasks] == \
        [(FAILED, TIMEOUT), (DONE, 0)]
    goes_on(client)


@pytest.mark.parametrize("script", ["trap '' TERM; while :; do sleep 1; done", "kill -STOP $$",
                                    "setsid sh -c 'trap \"\" TERM; sleep 1000' & wait"])
def test_cancel_ends_what_does_not_listen(worker_factory, client, mark, script):
    worker_factory(slots=1, module=True)
    task = client.run_command("sh", "-c", script, env=[mark])
    procs.wait_until(lambda: marked(mark), "it runs")
    client.call("task.cancel", ids=[task], grace_ms=100)
    assert client.wait([task])[0]["state"] == CANCELLED
    procs.wait_until(lambda: not marked(mark), "nothing of it is left")
    goes_on(client)


# ---------------------------------------------------------------- tasks that take all they can


FORK_BOMB = """
import os, sys, time
for left in range(int(sys.argv[1])):  # doubled each time, and a third of them in new sessions
    if os.fork() == 0 and left % 3 == 0:
        os.setsid()
time.sleep(1000)
"""


def test_fork_bomb_ends_with_its_task(worker_factory, client, mark):
    """Hundreds of processes in as many sessions: the timeout reaches them all."""
    worker = worker_factory(slots=2, module=True)
    bomb = client.run_command("/usr/bin/python3", "-c", FORK_BOMB, "9", env=[mark],
                              hard_timeout_ms=1500, kill_grace_ms=0)
    procs.wait_until(lambda: len(marked(mark)) > 200, "it multiplies", process=worker)
    assert client.wait([bomb])[0]["reason"] == TIMEOUT
    procs.wait_until(lambda: not marked(mark), "all of them are gone")
    goes_on(client)


def test_flood_of_output(broker, worker_factory, client):
    """A quarter of a GiB through worker and broker: nobody's memory grows, the tail is kept."""
    worker = worker_factory(slots=2, module=True)
    goes_on(client)
    before = [broker.rss_kb(), worker.rss_kb()]
    flood = client.run_command("sh", "-c", "yes | head -c 268435456; echo the end",
                               output_cap_bytes=100000)
    binary = client.run_command("sh", "-c", "head -c 50000 /dev/zero; printf '\\377\\000\\200'")
    tasks = client.wait([flood, binary])
    assert [task["state"] for task in tasks] == [DONE, DONE]
    end = tasks[0]["end"]
    assert end["out_truncated"] and end["out_size"] == 268435456 + 8
    kept = pool.output_of(client, tasks[0])
    assert len(kept) == 100000 and kept.endswith(b"y\ny\nthe end\n")
    assert pool.output_of(client, tasks[1]) == bytes(50000) + b"\xff\x00\x80"
    assert not tasks[1]["end"].get("out_truncated")
    growth = [broker.rss_kb() - before[0], worker.rss_kb() - before[1]]
    assert max(growth) < 16 << 10, growth


def test_results_at_the_limit(worker_factory, client):
    """Inline, in a blob, at the cap, above it: whole, or named as too big."""
    cap = 300000
    worker_factory(slots=2, module=True, flags=["--result-max", str(cap)])
    sizes = [0, 1, 65535, 65536, 65537, 262143, 262144, 262145, cap - 1, cap, cap + 1, 10 * cap,
             10_000_000_000]
    ids = client.submit([msgpack.packb([size]) for size in sizes], kind=2, fn="big")
    for size, task in zip(sizes, client.wait(ids)):
        if size > cap:
            assert (task["state"], task["reason"]) == (FAILED, TOO_BIG), size
            assert task["end"]["error"] == f"the result is larger than {cap} bytes"
        else:
            right = (bytes(range(251)) * (size // 251 + 1))[:size]
            assert task["state"] == DONE and pool.result_of(client, task) == right, size
    goes_on(client)


def test_what_can_not_be_started_says_why(worker_factory, client, tmp_path):
    """A state of its own: it does not count as a start that ended."""
    worker_factory(module=True)
    plain, script = tmp_path / "plain", tmp_path / "script"
    plain.write_text("no program\n")
    script.write_text("no magic\n")
    script.chmod(0o755)
    cases = [(["/no/such"], 2, "No such file"), ([str(plain)], 13, "Permission denied"),
             ([str(script)], 8, "Exec format error"), ([str(tmp_path)], 13, "Permission denied"),
             (["/bin/true", "x" * 131072], 7, "Argument list too long")]
    for argv, number, text in cases:
        task = client.wait([client.run_command(*argv)])[0]
        assert (task["state"], task["reason"]) == (FAILED, NOT_STARTED), argv[0]
        assert task["end"]["errno"] == number and text in task["end"]["error"]
        assert "exit_code" not in task["end"] or task["end"]["exit_code"] == 0
    task = client.wait([client.run_command("true", cwd="/no/such")])[0]
    assert task["reason"] == NOT_STARTED and "chdir /no/such" in task["end"]["error"]
    goes_on(client)


# ---------------------------------------------------------------- nobody waits any more


def test_submitter_is_gone(broker, worker_factory, client_factory):
    """Its results are there for whoever has the ids, also after the broker was killed."""
    worker_factory(slots=2, module=True)
    procs.wait_workers(client_factory(), 1)
    submitter = client_factory()
    ids = submitter.submit([msgpack.packb([n]) for n in range(20)], kind=2, fn="square")
    slow = submitter.run_command("sh", "-c", "sleep 0.3; echo done")
    submitter.close()
    assert client_factory().wait([slow])[0]["end"]["out"] == b"done\n"
    broker.kill()
    broker.start()
    tasks = client_factory().wait([*ids, slow])
    assert [msgpack.unpackb(task["end"]["result"]) for task in tasks[:-1]] == \
        [n * n for n in range(20)]
    assert tasks[-1]["end"]["out"] == b"done\n"
