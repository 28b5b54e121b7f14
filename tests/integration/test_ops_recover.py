# SPDX-License-Identifier: BSD-2-Clause
"""A slice of tests/ops/damage, and what recover and check say in plain cases."""
import os
import pathlib
import shutil
import subprocess

import procs
import rpc

DAMAGE = pathlib.Path(__file__).resolve().parents[1] / "ops" / "damage"
CASES = os.environ.get("HP_OPS_DAMAGES", "8")


def cli(*args):
    return subprocess.run([procs.program("hostpool"), *map(str, args)], capture_output=True,
                          text=True, timeout=procs.LIMIT_S, check=False)


def test_damage_slice(tmp_path):
    done = subprocess.run([DAMAGE, "--count", CASES, "--size", "60", "--folder", tmp_path / "d"],
                          capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"cases {CASES}" in done.stdout


def test_offline_check_and_recover(broker, client, tmp_path):
    client.submit([b"a"] * 3, kind=rpc.FUNCTION, fn="nobody")
    for args in (["check", broker.data_dir], ["recover", broker.data_dir, tmp_path / "new"]):
        done = cli("broker", *args)
        assert done.returncode == 1 and str(broker.pid) in done.stderr, "the broker runs"
    assert not (tmp_path / "new.part").exists()
    broker.kill()
    check = cli("broker", "check", broker.data_dir)
    assert check.returncode == 0 and check.stdout.endswith("ok\n"), check
    done = cli("broker", "recover", broker.data_dir, tmp_path / "new")
    assert done.returncode == 0, done
    assert "3 tasks, 0 ended, 3 held in paused queues, 0 losses" in done.stdout
    again = cli("broker", "recover", broker.data_dir, tmp_path / "new")
    assert again.returncode == 1 and "exists" in again.stderr
    none = cli("broker", "check", tmp_path)
    assert none.returncode == 1 and "no hostpool database" in none.stderr
    broker.start()


def test_truncated_database(broker, client, tmp_path):
    """The broker says which file, what is wrong and what to do; nothing is cleaned away."""
    for _ in range(30):
        client.submit([os.urandom(5000)] * 4, kind=rpc.FUNCTION, fn="nobody")
    broker.stop()
    db = broker.data_dir / "hostpool.db"
    size = db.stat().st_size
    os.truncate(db, size // 2)
    done = subprocess.run([procs.program("hostpoold"), "--data-dir", broker.data_dir, "--listen",
                           "127.0.0.1:0"], capture_output=True, text=True, timeout=procs.LIMIT_S,
                          check=False)
    assert done.returncode == 1
    for word in (str(db), "damaged", "hostpool broker recover", "backup"):
        assert word in done.stderr, done.stderr
    assert db.stat().st_size == size // 2
    check = cli("broker", "check", broker.data_dir)
    assert check.returncode == 5 and "DAMAGED" in check.stdout and "recover" in check.stderr
    done = cli("broker", "recover", broker.data_dir, tmp_path / "new")
    assert done.returncode == 5 and "missing" in done.stdout, done
    assert "losses" in done.stdout


def test_nothing_left_but_the_log(broker, client, tmp_path):
    """A file of a few bytes is no new database: whoever looks at it leaves its log alone."""
    count = sum(len(client.submit([os.urandom(500)], kind=rpc.FUNCTION, fn="nobody"))
                for _ in range(30))
    broker.kill()
    db = broker.data_dir / "hostpool.db"
    wal = broker.data_dir / "hostpool.db-wal"
    log = wal.read_bytes()
    for size in (511, 1, 0):
        os.truncate(db, size)
        check = cli("broker", "check", broker.data_dir)
        assert check.returncode == 5 and "cut off" in check.stdout, check
        code, err = start_and_end(broker.data_dir)
        assert code == 1 and "cut off" in err and "hostpool broker recover" in err, err
        assert db.stat().st_size == size and wal.read_bytes() == log
        new = tmp_path / f"new{size}"
        done = cli("broker", "recover", broker.data_dir, new)
        assert done.returncode == 5 and f" {count} tasks" in done.stdout, done
    wal.unlink()
    done = cli("broker", "recover", broker.data_dir, tmp_path / "nothing")
    assert done.returncode == 5 and "not known how much" in done.stdout, done


def test_recover_keeps_what_waits_in_order(broker_factory, worker_factory, client_factory,
                                           tmp_path):
    """What waited in lanes, had its time to come, or ran: each comes back as it was."""
    broker = broker_factory(name="old")
    client = client_factory(broker)
    worker = worker_factory(broker)
    procs.wait_workers(client, 1)
    out = tmp_path / "order"
    running = client.run_command("/bin/sh", "-c", "sleep 1000", at_most_once=True)
    procs.wait_until(lambda: rpc.STATES[client.get(running)["state"] - 1] == "running", "it runs")
    client.call("worker.drain", node="worker", on=True)
    ids = [client.run_command("/bin/sh", "-c", f"echo $HOSTPOOL_TASK_ID >> {out}", ckey="one",
                              ckey_max=1) for _ in range(8)]
    far = client.run_command("true", delay_ms=10**9)
    keyed = client.run_command("true", ukey="only", delay_ms=10**9)
    broker.kill()
    worker.kill()
    shutil.rmtree(worker.state_dir, ignore_errors=True)
    done = cli("broker", "recover", broker.data_dir, tmp_path / "new.data")
    assert done.returncode == 0, done
    broker = broker_factory("--lease", "1s", "--heartbeat", "200ms", name="new")
    worker = worker_factory(broker, name="fresh")
    with rpc.Client(broker.port) as peer:
        peer.hello()
        procs.wait_workers(peer, 1)
        # It may have run: an attempt that is lost is not made again.
        lost = peer.wait([running])[0]
        assert rpc.STATES[lost["state"] - 1] == "failed", lost
        assert peer.run_command("true", ukey="only", delay_ms=10**9) == keyed
        assert not out.exists()
        peer.call("queue.pause", name="default", paused=False)
        peer.wait(ids)
        assert [int(line) for line in out.read_text().split()] == ids
        assert rpc.STATES[peer.get(far)["state"] - 1] == "delayed"


def start_and_end(data_dir):
    """A hostpoold that is expected not to start: its code and text."""
    done = subprocess.run([procs.program("hostpoold"), "--data-dir", data_dir, "--listen",
                           "127.0.0.1:0"], capture_output=True, text=True, timeout=procs.LIMIT_S,
                          check=False)
    return done.returncode, done.stderr


def test_newer_schema_is_refused(broker, client):
    """Row 79: a downgrade changes nothing, and says what to do."""
    client.submit([b"a"], kind=rpc.FUNCTION, fn="nobody")
    assert broker.stop() == 0
    db = broker.data_dir / "hostpool.db"
    subprocess.run(["sqlite3", db, "PRAGMA user_version=99"], check=True)
    before = db.read_bytes()
    code, text = start_and_end(broker.data_dir)
    assert code == 1 and "schema 99 is newer" in text and "newer hostpool" in text, text
    check = cli("broker", "check", broker.data_dir)
    assert check.returncode == 1 and "schema 99" in check.stderr
    assert db.read_bytes() == before
    subprocess.run(["sqlite3", db, "PRAGMA user_version=1"], check=True)
    broker.start()
    with rpc.Client(broker.port) as after:
        after.hello()
        assert after.counters()["tasks_ready"] == 1


def test_first_start_cut_short(tmp_path):
    """Row 79: killed at each file that the first start makes; the next start works."""
    for number, name in enumerate(["lock", "hostpool.db", "hostpool.db-wal", "blobs", "ballast",
                                   "hostpool.mark", "hostpool.running", "hostpoold.port"]):
        data = tmp_path / f"d{number}.data"
        child = subprocess.Popen([procs.program("hostpoold"), "--data-dir", data, "--listen",
                                  "127.0.0.1:0"], stderr=subprocess.DEVNULL)
        while not (data / name).exists():  # as soon as it is there
            assert child.poll() is None
        child.kill()
        child.wait()
        broker = procs.Broker(tmp_path, name=f"d{number}")
        try:
            with rpc.Client(broker.port) as client:
                client.hello()
                assert client.submit([b"a"], kind=rpc.FUNCTION, fn="nobody") == [1]
            assert broker.stop() == 0
        finally:
            broker.end()


def test_second_broker_over_a_bind_mount(broker, tmp_path):
    """Row 17: the lock is the file's, whatever its path."""
    other = tmp_path / "bound"
    other.mkdir()
    subprocess.run(["mount", "--bind", broker.data_dir, other], check=True)
    try:
        code, text = start_and_end(other)
        assert code == 1 and str(broker.pid) in text, text
    finally:
        subprocess.run(["umount", other], check=True)


def test_tree_that_leads_back(broker, client, tmp_path):
    """The last child of a tree's page is its first: who reads on from the last row goes round."""
    for _ in range(60):
        client.submit([os.urandom(3000)] * 2, kind=rpc.FUNCTION, fn="nobody")
    assert broker.stop() == 0
    db = broker.data_dir / "hostpool.db"
    data, page, bent = bytearray(db.read_bytes()), 16384, 0
    for at in range(page, len(data), page):
        cells = int.from_bytes(data[at + 3:at + 5], "big")
        if data[at] == 5 and cells > 0:
            cell = at + int.from_bytes(data[at + 12:at + 14], "big")
            data[at + 8:at + 12] = data[cell:cell + 4]
            bent += 1
    assert bent, "no table has more than a page"
    db.write_bytes(data)
    check = cli("broker", "check", broker.data_dir)
    assert check.returncode == 5 and "fails its checksum" in check.stdout, check
    data[20] = 0 # as databases were before pages had checksums
    db.write_bytes(data)
    check = cli("broker", "check", broker.data_dir)
    assert check.returncode == 5 and "out of order" in check.stdout, check
    done = cli("broker", "recover", broker.data_dir, tmp_path / "new")
    # The leaf that nothing leads to is found: nothing is lost.
    assert done.returncode == 0 and "120 tasks" in done.stdout, done
