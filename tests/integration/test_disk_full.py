# SPDX-License-Identifier: BSD-2-Clause
"""A full disk: submits are refused in clear words, results still land, and it heals by itself."""
import pathlib
import signal
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))

import cli as lib  # noqa: E402
import pool  # noqa: E402
import wire_ref  # noqa: E402

DISK_BYTES = 24 << 20
# Runs until the file "go" is there.
SCRIPT = 'while [ ! -e "$GO" ]; do sleep 0.05; done; echo "done $HOSTPOOL_TASK_ID"'


@pytest.fixture
def small_disk(tmp_path):
    """The broker's data folder as a disk of its own (needs root)."""
    folder = tmp_path / "broker"
    folder.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=0700", "tmpfs", folder],
                   check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def fill(path):
    """Takes all space that is left."""
    with open(path, "ab", buffering=0) as filler:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    filler.write(bytes(size))
            except OSError:
                continue


def submit(client, argv, **more):
    options = {"kind": pool.COMMAND, "argv": argv, **more}
    return client.call("task.submit", options=options)["first"]


def refusal(client):
    """The refusal of a submit, or None if it was taken."""
    try:
        submit(client, ["true"], name="x" * 200)
    except wire_ref.RpcError as error:
        return error
    return None


def test_full_disk(small_disk, tmp_path):
    with pool.Pool(tmp_path, ["--wal-size", "1M", "--ballast", "4M"]) as one:
        one.start()
        one.add_worker("w1", slots=4)
        one.wait_workers()
        go = tmp_path / "go"
        with one.client() as client:
            waiting = [submit(client, ["/bin/sh", "-c", SCRIPT], env=[f"GO={go}"])
                       for _ in range(12)]
            pool.until(lambda: one.nodes()["w1"]["used"] == 4, "four of them run")

            fill(small_disk / "filler")
            error = pool.until(lambda: refusal(client), "submits are refused")
            assert error.code == "busy" and "disk" in error.text, error
            warnings = client.call("broker.status").get("warnings", [])
            assert any("disk" in text for text in warnings), warnings
            assert error.retry_after_ms or "retry after" in error.text, error
            assert client.call("broker.ping")["now_ms"] > 0

            go.touch()
            for task_id, task in pool.wait_tasks(client, waiting).items():
                assert task["state"] == pool.DONE, task
                assert pool.output_of(client, task) == b"done %d\n" % task_id
            assert refusal(client).code == "busy", "it is still full"

            (small_disk / "filler").unlink()
            pool.until(lambda: refusal(client) is None, "submits are taken again")
            assert not any("disk" in text
                           for text in client.call("broker.status").get("warnings", []))
            again = [submit(client, ["echo", "again"]) for _ in range(20)]
            ended = pool.wait_tasks(client, [*again, *waiting])
            assert all(task["state"] == pool.DONE for task in ended.values())
            assert client.call("broker.status")["epoch"] == 1, "it was not restarted"
            assert client.call("broker.check")["ok"]
        assert one.stop_workers() == [] and one.broker.stop() == 0


def test_commands_say_what_they_wait_for_and_can_be_stopped(small_disk, tmp_path):
    with pool.Pool(tmp_path, ["--wal-size", "1M", "--ballast", "4M"]) as one:
        one.start()
        with one.client() as client:
            fill(small_disk / "filler")
            pool.until(lambda: refusal(client), "submits are refused")
        cli = lib.Cli(one.broker.host)
        run = cli.start("run", "--", "true")
        mapped = cli.start("map", "--", "true", ":::", "1")
        for process, number in ((run, signal.SIGTERM), (mapped, signal.SIGTERM)):
            assert "disk is nearly full" in process.stderr.readline().decode()
            process.send_signal(number)
            assert lib.finish(process).code == 128 + number
        run = cli.start("run", "--", "true")
        assert "disk is nearly full" in run.stderr.readline().decode()
        run.send_signal(signal.SIGINT)
        assert lib.finish(run).code == 130
        script = ("import hostpool.pool as pool; pool.OPEN_SECONDS = 0.5\n"
                  "from hostpool.multiprocessing import Pool\nPool(1)")
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=False,
            env={**cli.env, "PYTHONPATH": str(pool.BUILD / "python")}, timeout=60)
        assert done.returncode == 1 and "disk is nearly full" in done.stderr, done
        (small_disk / "filler").unlink()
        assert one.broker.stop() == 0


def test_start_on_a_full_disk(small_disk, tmp_path):
    """A broker that cannot make its database says so and ends; with space it starts."""
    fill(small_disk / "filler")
    with pool.Pool(tmp_path, ["--wal-size", "1M", "--ballast", "4M"]) as one:
        one.broker.start()
        assert one.broker.wait() == 1
        text = one.broker.log_text()
        assert "space" in text or "full" in text, text
        (small_disk / "filler").unlink()
        one.start()
        with one.client() as client:
            assert submit(client, ["true"]) == 1
        assert one.broker.stop() == 0
