# SPDX-License-Identifier: BSD-2-Clause
"""A worker whose helper processes are killed: it starts again by itself, nothing is lost, and a
task that kills the helper does not go round for ever."""
import os
import pathlib
import signal

import pytest

import procs


def helpers(worker):
    """Spawner and zygote, in the order of their start."""
    text = pathlib.Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text()
    return [int(word) for word in text.split()]


@pytest.fixture
def worker(broker_factory, worker_factory, client_factory):
    broker = broker_factory("--lease", "3s", "--heartbeat", "500ms")
    made = worker_factory(broker, slots=2, module=True)
    made.client = client_factory(broker)
    procs.wait_workers(made.client, 1)
    return made


@pytest.mark.parametrize("which", [0, 1])
def test_helper_is_killed(worker, which, tmp_path):
    client = worker.client
    flag = tmp_path / "go"
    running = client.run_command("sh", "-c", f"while ! test -e {flag}; do sleep 0.02; done")
    procs.wait_until(lambda: len(worker.log().splitlines()) and
                     client.get(running)["state"] in (4, 5), "it is given out")
    os.kill(helpers(worker)[which], signal.SIGKILL)
    worker.wait_event("starting_again")
    flag.touch()
    assert client.wait([running])[0]["state"] == 9
    calls = client.submit([b"\x91\x07"] * 20, kind=2, fn="square")
    assert {task["state"] for task in client.wait(calls)} == {9}
    assert worker.is_alive()
    assert pathlib.Path(f"/proc/{worker.pid}/comm").read_text() == "hostpool-worker\n"
    assert worker.stop() == 0


def test_task_that_kills_the_helper_is_counted(worker):
    client = worker.client
    poison = client.run_command("sh", "-c", "kill -9 $PPID; sleep 100", max_losses=1)
    ended = client.wait([poison])[0]
    assert (ended["state"], ended["losses"]) == (10, 1), ended
    after = client.run_command("true")
    assert client.wait([after])[0]["state"] == 9


def test_at_most_once_is_kept(worker, tmp_path):
    client = worker.client
    task = client.run_command("sh", "-c", f"echo x >>{tmp_path}/runs; kill -9 $PPID; sleep 100",
                              at_most_once=True)
    assert client.wait([task])[0]["state"] == 10
    assert (tmp_path / "runs").read_text() == "x\n"


def test_commands_on_the_way_to_a_dead_helper_run_later(worker, tmp_path):
    """The daemon reads of the assignment and of its helper's death in the same moment."""
    client = worker.client
    worker.signal(signal.SIGSTOP)
    task = client.run_command("sh", "-c", f"echo x >>{tmp_path}/runs", at_most_once=True)
    procs.wait_until(lambda: client.get(task)["state"] == 4, "it is leased")
    spawner = helpers(worker)[0]
    os.kill(spawner, signal.SIGKILL)
    procs.wait_until(lambda: pathlib.Path(f"/proc/{spawner}/stat").read_text().rsplit(")", 1)[1]
                     .split()[0] == "Z", "the spawner is dead")
    worker.signal(signal.SIGCONT)
    ended = client.wait([task])[0]
    assert ended["state"] == 9, ended
    assert (tmp_path / "runs").read_text() == "x\n"
    assert len(worker.events("starting_again")) == 1


def test_helpers_are_killed_while_they_start(worker):
    """As soon as one is there: mostly before its modules are loaded."""
    def kill_one():
        for pid in helpers(worker)[-1:]:
            os.kill(pid, signal.SIGKILL)
        return len(worker.events("starting_again")) >= 4
    procs.wait_until(kill_one, "four starts", process=worker)
    after = worker.client.run_command("true")
    assert worker.client.wait([after])[0]["state"] == 9
    assert worker.stop() == 0
