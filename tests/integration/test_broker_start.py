# SPDX-License-Identifier: BSD-2-Clause
"""Starting and stopping the broker: configuration, lock, data folder, tokens, signals."""
import os
import shutil
import signal
import socket
import subprocess

import pytest

import procs
import rpc

TOKEN = "a-token-for-tests-0123456789"


def run(*args, env=None):
    """Runs hostpoold to its end: exit code, stdout, stderr."""
    done = subprocess.run([procs.program("hostpoold"), *map(str, args)], capture_output=True,
                          text=True, timeout=procs.LIMIT_S, env=env, check=False)
    return done.returncode, done.stdout, done.stderr


def token_file(tmp_path, text=TOKEN, mode=0o600):
    path = tmp_path / "token"
    path.write_text(text + "\n")
    path.chmod(mode)
    return path


def test_help_and_version():
    code, out, err = run("--help")
    assert code == 0 and "--data-dir" in out and "Usage" in out and err == ""
    code, out, _ = run("--version")
    assert code == 0 and out.startswith("hostpoold ")
    code, out, _ = run("--example-config")
    assert code == 0 and "lease" in out


@pytest.mark.parametrize("args, words", [
    (["rnu"], ["rnu", "Did you mean", "run"]),
    (["--lisen", "127.0.0.1:0"], ["lisen", "listen"]),
    (["--listen", "127.0.0.1:99999"], ["port"]),
    (["--lease", "forever"], ["lease"]),
    (["--config", "/no/such/file"], ["/no/such/file"]),
    (["--log-level", "loud"], ["loud", "info"]),
    (["--heartbeat", "29s"], ["heartbeat", "lease"]),
])
def test_bad_flags(args, words, tmp_path):
    code, out, err = run(*args, "--data-dir", tmp_path / "d")
    assert code == 2 and out == ""
    assert err.startswith("hostpoold: ") and err.count("\n") == 1
    for word in words:
        assert word in err
    assert not (tmp_path / "d").exists()


def test_check_config(tmp_path):
    path = tmp_path / "hostpoold.conf"
    path.write_text("listen = \"127.0.0.1:0\"\nlease = 20s\n")
    assert run("--check-config", "--config", path)[0] == 0
    path.write_text("listen = \"127.0.0.1:0\"\nleese = 20s\n")
    code, _, err = run("--check-config", "--config", path)
    assert code == 2 and f"{path}:2" in err and "leese" in err


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", "127.0.0.1:0,0.0.0.0:0", "*:0"])
def test_other_addresses_need_a_token(listen, tmp_path):
    code, _, err = run("--listen", listen, "--data-dir", tmp_path / "d")
    assert code == 2
    assert "token_file" in err and "127.0.0.1" in err
    assert not (tmp_path / "d").exists()


def test_token_file_must_be_private(tmp_path):
    path = token_file(tmp_path, mode=0o644)
    code, _, err = run("--token-file", path, "--data-dir", tmp_path / "d")
    assert code == 2 and "chmod 600" in err


def test_token_is_asked(broker_factory, tmp_path):
    broker = broker_factory("--token-file", token_file(tmp_path), listen="0.0.0.0:0")
    assert broker.wait_event("not_encrypted")
    for wrong in ({}, {"token": ""}, {"token": TOKEN[:-1]}, {"token": TOKEN + "x"}):
        with rpc.Client(broker.port) as peer:
            with pytest.raises(rpc.RpcError) as caught:
                peer.hello(**wrong)
            assert caught.value.code == "denied"
            with pytest.raises((EOFError, ConnectionError)):
                peer.call("broker.ping")
    with rpc.Client(broker.port) as peer:
        reply = peer.hello(token=TOKEN)
        assert any("encrypted" in text for text in reply["warnings"])
        assert any("encrypted" in text for text in peer.call("broker.status")["warnings"])
    assert TOKEN not in broker.log()


def test_reload(broker_factory, tmp_path):
    path = token_file(tmp_path)
    conf = tmp_path / "hostpoold.conf"
    conf.write_text(f"token_file = \"{path}\"\n")
    broker = broker_factory("--config", conf)
    token_file(tmp_path, "another-token-0123456789")
    broker.signal(signal.SIGHUP)
    broker.wait_event("config_reloaded")
    with rpc.Client(broker.port) as peer:
        with pytest.raises(rpc.RpcError):
            peer.hello(token=TOKEN)
    with rpc.Client(broker.port) as peer:
        peer.hello(token="another-token-0123456789")
    conf.write_text("no_such_option = 1\n")
    broker.signal(signal.SIGHUP)
    assert "no_such_option" in broker.wait_event("config_refused")[0]
    with rpc.Client(broker.port) as peer:
        peer.hello(token="another-token-0123456789")
    conf.write_text(f"token_file = \"{path}\"\nlease = 40s\n")
    broker.signal(signal.SIGHUP)
    assert "needs_restart=lease" in broker.wait_event("config_reloaded", 2)[-1]


def test_second_broker_is_refused(broker, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(broker.data_dir)
    for path in (broker.data_dir, link):
        code, _, err = run("--listen", "127.0.0.1:0", "--data-dir", path)
        assert code == 1 and str(broker.pid) in err and "another broker" in err
    code, _, err = run("init", "--data-dir", broker.data_dir)
    assert code == 1 and str(broker.pid) in err
    with rpc.Client(broker.port) as peer:
        peer.hello()


def test_port_in_use(broker, tmp_path):
    code, _, err = run("--listen", broker.address, "--data-dir", tmp_path / "other")
    assert code == 1 and broker.address in err
    assert not (tmp_path / "other" / "hostpool.db").exists()  # a failed start leaves no database


def test_init(tmp_path):
    path = tmp_path / "d"
    assert run("init", "--data-dir", path)[0] == 0
    assert (path / "hostpool.db").exists()
    assert path.stat().st_mode & 0o777 == 0o700
    code, _, err = run("init", "--data-dir", path)
    assert code == 1 and "already" in err
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("x")
    code, _, err = run("init", "--data-dir", tmp_path / "full")
    assert code == 1 and "letter.txt" in err


def test_stop_and_start_again(broker, client):
    ids = client.submit([b"a", b"b"], kind=rpc.FUNCTION, fn="nobody")
    epoch = client.call("broker.status")["epoch"]
    assert broker.stop() == 0
    assert broker.events("stopped")
    assert not broker.port_path.exists()
    broker.start(same_port=False)
    with rpc.Client(broker.port) as peer:
        assert peer.hello(session=client.session)["epoch"] > epoch
        tasks = peer.call("task.get", ids=ids)["tasks"]
        assert [t["state"] for t in tasks] == [rpc.STATE["ready"]] * 2
        assert peer.submit([b"c"], kind=rpc.FUNCTION, fn="nobody")[0] > ids[-1]


def test_tells_the_service_manager(broker_factory, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(procs.LIMIT_S)
        env = dict(os.environ, NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="200000")
        broker = broker_factory(env=env)
        assert manager.recv(100) == b"READY=1"
        assert manager.recv(100) == b"WATCHDOG=1"
        broker.signal(signal.SIGHUP)
        seen = [manager.recv(100)]
        while seen[-1] != b"READY=1":
            seen.append(manager.recv(100))
        assert any(text.startswith(b"RELOADING=1\nMONOTONIC_USEC=") for text in seen)
        broker.signal(signal.SIGTERM)
        while manager.recv(100) != b"STOPPING=1":
            pass
        assert broker.wait() == 0


def test_second_signal_ends_at_once(broker):
    broker.signal(signal.SIGSTOP)
    broker.signal(signal.SIGTERM)
    broker.signal(signal.SIGINT)
    broker.signal(signal.SIGCONT)
    assert broker.wait() in (0, 1)  # both may have been seen in one turn, or the stop was faster


@pytest.mark.parametrize("lost", [
    ["hostpool.db"], ["hostpool.db", "hostpool.db-wal"], ["hostpool.db-wal"]])
def test_lost_database(broker, client, lost):
    client.submit([b"a"], kind=rpc.FUNCTION, fn="nobody")
    broker.kill()
    kept = broker.data_dir.parent / "kept"
    kept.mkdir()
    for name in lost:
        assert (broker.data_dir / name).exists()
        shutil.move(broker.data_dir / name, kept / name)
    before = sorted(os.listdir(broker.data_dir))
    for verb in ("run", "init"):
        code, _, err = run(verb, "--listen", "127.0.0.1:0", "--data-dir", broker.data_dir)
        assert code == 1
        assert "is missing" in err and lost[0] in err and "estore" in err
    assert sorted(os.listdir(broker.data_dir)) == before  # nothing was cleaned away
    for name in lost:
        shutil.move(kept / name, broker.data_dir / name)
    broker.start()
    with rpc.Client(broker.port) as peer:
        peer.hello()
        assert peer.counters()["tasks_ready"] == 1


def test_empty_database_file(broker):
    broker.stop()
    (broker.data_dir / "hostpool.db").write_bytes(b"")
    code, _, err = run("--listen", "127.0.0.1:0", "--data-dir", broker.data_dir)
    assert code == 1 and "is empty" in err
    assert (broker.data_dir / "hostpool.db").stat().st_size == 0


def test_foreign_files(tmp_path):
    (tmp_path / "letter.txt").write_text("x")
    code, _, err = run("--listen", "127.0.0.1:0", "--data-dir", tmp_path)
    assert code == 1 and "letter.txt" in err


def test_unwritable_folder():
    code, _, err = run("--listen", "127.0.0.1:0", "--data-dir", "/proc/hostpool")
    assert code == 1 and "/proc/hostpool" in err


def test_log_lines(broker, client):
    assert client.call("broker.ping")
    for line in broker.log().splitlines():
        stamp, level, event = line.split()[:3]
        assert stamp.endswith("Z") and level in ("error", "warn", "info") and event.islower()
