# SPDX-License-Identifier: BSD-2-Clause
"""hostpool run and submit: exit codes, output byte by byte, signals, options."""
import hashlib
import os
import signal
import subprocess

import pytest

import cli as lib
import procs


@pytest.fixture
def cli(broker, worker_factory, tmp_path):
    worker_factory(slots=2, module=True)
    made = lib.Cli(broker.address, cwd=tmp_path)
    procs.wait_until(lambda: made("worker", "ls", "-q").out, "a worker")
    return made


@pytest.mark.parametrize("script,code", [
    ("exit 0", 0), ("exit 1", 1), ("exit 3", 3), ("exit 255", 255),
    ("kill -9 $$", 137), ("kill -TERM $$", 143)])
def test_exit_code_is_the_commands(cli, script, code):
    assert cli("run", "--", "sh", "-c", script).code == code


def test_not_found_and_not_executable(cli, tmp_path):
    done = cli("run", "--", "no-such-program")
    assert done.code == 127 and "No such file" in done.err
    plain = tmp_path / "plain"
    plain.write_text("no program")
    assert cli("run", "--", plain).code == 126
    done = cli("run", "--cwd", "/no/such/dir", "--", "true")
    assert done.code == 126 and "/no/such/dir" in done.err


def test_timeout_is_124(cli):
    assert cli("run", "--timeout", "100ms", "--", "sleep", "100").code == 124


def test_streams_are_apart_and_exact(cli):
    done = cli.bytes("run", "--", "sh", "-c", r"printf 'a\000b\377'; printf 'e\001' >&2")
    assert (done.code, done.out, done.err) == (0, b"a\0b\xff", b"e\1")


def test_stdin(cli, tmp_path):
    assert cli("run", "--", "cat", stdin="not passed on").out == ""
    assert cli("run", "--stdin", "-", "--", "cat", stdin="passed on").out == "passed on"
    (tmp_path / "in").write_bytes(bytes(range(256)) * 1000)  # larger than what goes inline
    done = cli.bytes("run", "--stdin", "in", "--", "sha256sum")
    wanted = hashlib.sha256(bytes(range(256)) * 1000).hexdigest()
    assert done.out.split()[0].decode() == wanted


def test_runs_in_the_current_directory(cli, tmp_path):
    assert cli("run", "--", "pwd").out.strip() == str(tmp_path)
    assert cli("run", "--cwd", "/", "--", "pwd").out == "/\n"
    assert cli("run", "--cwd", "-", "--", "pwd").out.strip() != str(tmp_path)


def test_env(cli):
    script = "echo $ONE:$TWO:$HOSTPOOL_HOST"
    done = cli("run", "--env", "ONE=1", "--env", "TWO", "--", "sh", "-c", script, TWO="2")
    assert done.out == "1:2:\n"


def test_output_comes_while_it_runs(cli, tmp_path):
    flag = tmp_path / "go"
    process = cli.start("run", "--", "sh", "-c",
                        f"echo first; while ! test -e {flag}; do sleep 0.02; done; echo second")
    assert lib.read_line(process) == "first\n"
    assert process.poll() is None
    flag.touch()
    done = lib.finish(process)
    assert (done.code, done.out) == (0, "second\n")


def test_output_larger_than_kept_is_whole(cli):
    """Some 19 MB, where the worker keeps the last 16: followed from the first byte."""
    script = "seq 1 2500000; echo end >&2"
    done = cli("run", "--", "sh", "-c", script)
    wanted = "".join(f"{i}\n" for i in range(1, 2500001))
    assert done.code == 0, done.err[-500:]
    assert len(done.out) == len(wanted)
    assert done.out == wanted
    assert done.err == "end\n"


def test_slow_reader_gets_every_byte(cli):
    """Nobody reads until the task has ended: what was dropped on the way comes at the end."""
    process = cli.start("run", "--", "seq", "1", "2000000")
    procs.wait_until(lambda: cli("ls", "-q", "state=done").out, "its end")
    done = lib.finish(process)
    assert done.code == 0, done.err[-500:]
    assert done.out == "".join(f"{i}\n" for i in range(1, 2000001))


def test_signal_goes_to_the_command(cli):
    script = "trap 'echo got; exit 7' USR1; echo ready; while :; do sleep 0.02; done"
    process = cli.start("run", "--", "sh", "-c", script)
    assert lib.read_line(process) == "ready\n"
    process.send_signal(signal.SIGUSR1)
    done = lib.finish(process)
    assert (done.code, done.out) == (7, "got\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_termination_signals(cli, number):
    process = cli.start("run", "--", "sh", "-c", "echo ready; exec sleep 100")
    assert lib.read_line(process) == "ready\n"
    process.send_signal(number)
    assert lib.finish(process).code == 128 + number


def test_second_interrupt_cancels(cli):
    script = "trap 'echo ignored' INT; echo ready; while :; do sleep 0.02; done"
    process = cli.start("run", "--kill-grace", "100ms", "--", "sh", "-c", script)
    assert lib.read_line(process) == "ready\n"
    process.send_signal(signal.SIGINT)
    assert lib.read_line(process) == "ignored\n"
    process.send_signal(signal.SIGINT)
    assert lib.finish(process).code == 130
    cli.wait_state("last", "cancelled")


def test_interrupt_of_a_queued_task(cli):
    cli.ok("queue", "pause", "q")
    process = cli.start("run", "-v", "-Q", "q", "--", "true")
    procs.wait_until(lambda: cli("ls", "-q", "queue=q").out, "the task")
    process.send_signal(signal.SIGINT)
    assert lib.finish(process).code == 130
    assert cli.state("last") == "cancelled"


def test_broken_pipe_ends_the_command(cli):
    process = cli.start("run", "--kill-grace", "100ms", "--", "sh", "-c", "yes")
    lib.read_line(process)
    process.stdout.close()
    assert process.wait(procs.LIMIT_S) == 141
    process.stderr.close()
    cli.wait_state("last", "cancelled", "failed")


def test_cancelled_by_somebody_else(cli):
    process = cli.start("run", "--", "sh", "-c", "echo ready; exec sleep 100")
    lib.read_line(process)
    cli.ok("cancel", "last")
    done = lib.finish(process)
    assert done.code in (125, 143), done


def test_function(cli):
    assert cli("run", "--function", "square", "--args", "[12]").out == "144\n"
    done = cli("run", "--function", "no_such", "--args", "[]", "--expire", "200ms")
    assert done.code == 125, done


def test_usage_errors(cli):
    for args in (["run"], ["run", "--function", "f", "--", "x"],
                 ["run", "--args", "[1]", "--", "x"],
                 ["run", "--function", "f", "--args", "{"],
                 ["run", "--function", "f", "--args", "1"],
                 ["submit", "--array", "5-1", "--", "x"],
                 ["submit", "--array", "1-2", "--key", "k", "--", "x"]):
        done = cli(*args)
        assert done.code == 2 and "See: hostpool help" in done.err, (args, done)


def test_submit_prints_ids(cli):
    first = int(cli.ok("submit", "--", "true"))
    second = int(cli.ok("submit", "--", "true"))
    assert second > first
    begin, end = cli.ok("submit", "--array", "1-10", "--", "true").strip().split("-")
    assert int(end) - int(begin) == 9
    done = cli("submit", "--json", "--", "true").json
    assert done["count"] == 1 and done["outcome"] == "created"


def test_submit_wait(cli):
    assert cli("submit", "--wait", "--", "true").code == 0
    done = cli("submit", "--wait", "--", "sh", "-c", "echo why >&2; exit 4")
    assert done.code == 1 and "exit 4" in done.err and "why" in done.err


def test_array_members(cli):
    ids = cli.ok("submit", "--array", "10-20:5", "--", "sh", "-c",
                 "echo $HOSTPOOL_ARRAY_INDEX").strip()
    assert cli("wait", ids).code == 0
    first = ids.split("-")[0]
    assert cli.ok("logs", f"{first}.15") == "15\n"
    assert cli.ok("logs", ids) == "10\n15\n20\n"
    done = cli("logs", f"{first}.11")
    assert done.code == 3 and "members 10 to 20" in done.err


def test_unique_key(cli):
    cli.ok("queue", "pause", "q")
    first = cli.ok("submit", "-Q", "q", "--key", "k", "--", "true")
    again = cli("submit", "-Q", "q", "--key", "k", "--", "true")
    assert again.code == 0 and again.out == first and "holds the key" in again.err
    done = cli("submit", "-Q", "q", "--key", "k", "--on-conflict", "reject", "--", "true")
    assert done.code == 6 and "--on-conflict join" in done.err
    third = cli.ok("submit", "-Q", "q", "--key", "k", "--on-conflict", "replace", "--", "true")
    assert third != first


def test_retries(cli, tmp_path):
    script = "test -e flag || { touch flag; exit 1; }"
    done = cli("run", "--retries", "1", "--retry-delay", "1ms", "--", "sh", "-c", script)
    assert done.code == 0, done
    assert cli("show", "--json", "last").json["tasks"][0]["attempt"] == 2


def test_broker_restart_is_waited_out(cli, broker, tmp_path):
    flag = tmp_path / "go"
    process = cli.start("run", "--", "sh", "-c",
                        f"echo first; while ! test -e {flag}; do sleep 0.02; done; echo second")
    assert lib.read_line(process) == "first\n"
    broker.kill()
    broker.start()
    flag.touch()
    done = lib.finish(process)
    assert (done.code, done.out) == (0, "second\n"), done
    assert "lost the broker" in done.err


def test_no_broker():
    made = lib.Cli("127.0.0.1:1")
    done = made("run", "--", "true")
    wanted = "cannot reach the broker at 127.0.0.1:1: connection refused"
    assert done.code == 125 and wanted in done.err
    assert made("submit", "--", "true").code == 5
    assert made("ls").code == 5
    assert made("broker", "ping").code == 5
    assert made("broker", "wait", "--timeout", "50ms").code == 124


@pytest.mark.parametrize("words", [("run", "--", "echo", "there"), ("submit", "--", "true")])
def test_broker_that_is_being_restarted(words, broker_factory, worker_factory):
    """Who brings work in that moment waits a little."""
    broker = broker_factory()
    worker_factory(broker)
    assert broker.stop() == 0
    with subprocess.Popen([procs.program("hostpool"), "--host", broker.address, *words],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as asking:
        procs.wait_until(lambda: procs.stat(asking.pid)[0] == "S", "it waits")
        broker.start()
        out, err = asking.communicate(timeout=procs.LIMIT_S)
    assert asking.returncode == 0, err
    assert out == "there\n" if words[0] == "run" else out


def test_token(broker_factory, worker_factory, tmp_path):
    token = tmp_path / "token"
    token.write_text("a-secret-of-the-test\n")
    os.chmod(token, 0o600)
    broker = broker_factory("--token-file", token, name="secret")
    done = lib.Cli(broker.address)("ls")
    assert done.code == 4 and "--token-file" in done.err
    assert lib.Cli(broker.address)("--token-file", token, "ls").code == 0
    assert lib.Cli(broker.address, env={"HOSTPOOL_TOKEN_FILE": str(token)})("ls").code == 0
    wrong = tmp_path / "wrong"
    wrong.write_text("another-secret\n")
    assert lib.Cli(broker.address)("--token-file", wrong, "ls").code == 4


def test_dev(tmp_path):
    made = lib.Cli(cwd=tmp_path, env={"TMPDIR": str(tmp_path)})
    done = made("dev", "-w", "2", "--slots", "1", "--", "sh", "-c",
                "hostpool run -- echo $HOSTPOOL_HOST; hostpool worker ls -q; exit 9")
    assert done.code == 9, done
    host, *workers = done.out.split()
    assert host.startswith("127.0.0.1:") and workers == ["dev1", "dev2"]
    assert list(tmp_path.iterdir()) == []
    assert lib.Cli(host)("ls").code == 5


def test_dev_until_interrupted(tmp_path):
    made = lib.Cli(cwd=tmp_path, env={"TMPDIR": str(tmp_path)})
    process = made.start("dev")
    line = lib.read_line(process)
    assert line.startswith("export HOSTPOOL_HOST=127.0.0.1:")
    other = lib.Cli(line.strip().split("=")[1], cwd=tmp_path)
    assert other("run", "--", "echo", "hello").out == "hello\n"
    process.send_signal(signal.SIGINT)
    assert lib.finish(process).code == 0
    assert list(tmp_path.iterdir()) == []


def test_dev_with_a_bad_module(tmp_path):
    bad = tmp_path / "bad.so"
    bad.write_text("nothing")
    made = lib.Cli(cwd=tmp_path, env={"TMPDIR": str(tmp_path)})
    done = made("dev", "--module", bad, "--", "true")
    assert done.code == 1 and "bad.so" in done.err, done
