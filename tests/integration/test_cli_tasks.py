# SPDX-License-Identifier: BSD-2-Clause
"""hostpool ls, show, logs, wait, cancel, why, stats, queue, worker, broker."""
import json
import re
import signal

import pytest

import cli as lib
import procs


@pytest.fixture
def cli(broker, tmp_path):
    """No worker yet: tasks stay queued."""
    return lib.Cli(broker.address, cwd=tmp_path)


@pytest.fixture
def worked(cli, worker_factory):
    worker_factory(slots=2, module=True)
    procs.wait_until(lambda: cli("worker", "ls", "-q").out, "a worker")
    return cli


def ids(text):
    return [int(word) for word in text.split()]


def test_ls_selectors(cli):
    for _ in range(12):
        cli.ok("submit", "--batch", "even", "--", "true")
    cli.ok("submit", "--", "true")
    assert sorted(ids(cli.ok("ls", "-q", "1,4,8-9"))) == [1, 4, 8, 9]
    assert ids(cli.ok("ls", "-q", "5-11:3")) == [5, 8, 11]
    assert ids(cli.ok("ls", "-q", "last")) == [13]
    assert len(ids(cli.ok("ls", "-q", "all"))) == 13
    assert sorted(ids(cli.ok("ls", "-q", "@even"))) == list(range(1, 13))
    assert sorted(ids(cli.ok("ls", "-q", "@even,13"))) == list(range(1, 14))
    done = cli("ls", "-q", "2,99")
    assert done.code == 3 and done.out == "2\n" and "no task 99" in done.err
    assert cli("ls", "@none").out == ""
    assert cli("show", "@none").code == 3


def test_ls_filters_are_the_same_with_json(cli):
    cli.ok("submit", "-Q", "a", "-n", "render one", "--", "true")
    cli.ok("submit", "-Q", "b", "-n", "render two", "--", "true")
    cli.ok("submit", "-Q", "b", "-n", "other", "--delay", "1h", "--", "true")
    for words, wanted in ((["queue=b"], [2, 3]), (["name~render"], [1, 2]),
                          (["state=delayed"], [3]),
                          (["state=queued", "queue=b"], [2]), (["state=pending"], [1, 2, 3]),
                          (["state=failed"], []), (["user=nobody-here"], []),
                          (["user=any"], [1, 2, 3]),
                          (["since=1h"], [1, 2, 3]), (["since=2100-01-01T00:00:00Z"], []),
                          (["state=queued,delayed", "--limit", "2"], [2, 3]),
                          (["1-3", "queue=b"], [2, 3])):
        assert sorted(ids(cli.ok("ls", "-q", *words))) == wanted, words
        assert sorted(t["id"] for t in cli("ls", "--json", *words).json["tasks"]) == wanted, words
        lines = cli.ok("ls", "--jsonl", *words).splitlines()
        assert sorted(json.loads(line)["id"] for line in lines) == wanted, words


def test_ls_columns(cli):
    cli.ok("submit", "-n", "some", "--", "true")
    assert cli.ok("ls", "-o", "id,name") == "ID NAME\n 1 some\n"
    assert cli.ok("ls", "--no-header", "-o", "name,id") == "some  1\n"
    assert "PRIORITY" in cli.ok("ls", "-o", "+priority")
    assert cli("ls", "--json", "-o", "id,state").json == {"tasks": [{"id": 1, "state": "queued"}]}
    assert "priority" in cli("ls", "--json").json["tasks"][0]
    assert "Priority" in cli.ok("ls", "-o", "help")
    done = cli("ls", "-o", "nmae")
    assert done.code == 2 and 'Did you mean "name"' in done.err


def test_ls_usage_errors(cli):
    for words in (["stat=done"], ["state=done,nope"], ["since=x"], ["state="], ["5-1"], ["what"]):
        assert cli("ls", *words).code == 2, words
    assert 'Did you mean "state"' in cli("ls", "stat=done").err


def test_hostile_names_are_escaped(cli):
    name = "\033[31mred\u202e"
    cli.bytes("submit", "--batch", name.replace("\033", ""), "-n", "x", "--", "true")
    cli.bytes("submit", "--", "sh", "-c", f"{name}\n\r")
    for words in (["ls", "-o", "+batch,command"], ["show", "1-2"], ["why", "2"]):
        out = cli.ok(*words)
        assert "\033" not in out and "\r" not in out and "\u202e" not in out
    terminal = cli.terminal("ls", "-o", "id,batch,command", "--color", "never")
    assert terminal.end() == 0 and b"\033[31" not in terminal.seen
    shown = cli("show", "--json", "2").json["tasks"][0]["command"]
    assert "\033[31mred" in shown  # JSON has an escape of its own


def test_ls_on_a_terminal(cli):
    cli.ok("submit", "-n", "n" * 250, "--", "true")
    terminal = cli.terminal("ls")
    assert terminal.end() == 0
    lines = terminal.seen.decode().replace("\r", "").splitlines()
    assert lines[0].split() == ["ID", "STATE", "QUEUE", "NAME", "WAIT", "RUN", "HOST", "REASON"]
    assert all(len(line) <= 120 for line in lines)
    piped = cli.ok("ls")
    assert "n" * 250 in piped
    assert "\033" not in piped


def test_show(worked):
    worked("run", "--", "sh", "-c", "echo o; echo err >&2; exit 3")
    task = worked("show", "--json", "1").json["tasks"][0]
    shown = (task["state"], task["reason"], task["exit_code"], task["host"])
    assert shown == ("failed", "exit 3", 3, "worker")
    assert (task["stdout_size"], task["stderr_size"], task["attempt"]) == (2, 4, 1)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", task["created"])
    text = worked.ok("show", "1")
    assert re.search(r"^exit_code +3$", text, re.M)
    done = worked("show", "77")
    assert done.code == 3 and "no task 77" in done.err


def test_logs(worked):
    worked.bytes("run", "--", "sh", "-c", r"printf 'a\000\377'; echo e >&2")
    done = worked.bytes("logs", "1")
    assert (done.code, done.out, done.err) == (0, b"a\0\xff", b"e\n")
    done = worked.bytes("logs", "--stderr", "1")
    assert (done.out, done.err) == (b"", b"e\n")
    worked("run", "--function", "square", "--args", "[3]")
    assert worked.ok("logs", "2") == "9\n"
    assert worked("logs", "99").code == 3


def test_logs_follow(worked, tmp_path):
    go = tmp_path / "go"
    worked.ok("submit", "--", "sh", "-c",
              f"echo one; while ! test -e {go}; do sleep 0.02; done; seq 1 50000; echo end >&2")
    worked.wait_state("1", "running", "starting")
    procs.wait_until(lambda: worked.ok("logs", "1") == "one\n", "output of the running task")
    process = worked.start("logs", "-f", "1")
    assert lib.read_line(process) == "one\n"
    go.touch()
    done = lib.finish(process)
    assert done.code == 0
    assert done.out == "".join(f"{i}\n" for i in range(1, 50001))
    assert done.err == "end\n"


def test_logs_follow_begins_before_the_task(cli, worker_factory):
    cli.ok("submit", "--", "echo", "late")
    process = cli.start("logs", "-f", "1")
    worker_factory(slots=1)
    done = lib.finish(process)
    assert (done.code, done.out) == (0, "late\n")


def test_wait(worked):
    good = worked.ok("submit", "--", "true").strip()
    bad = worked.ok("submit", "--", "sh", "-c", "exit 3").strip()
    assert worked("wait", good).code == 0
    done = worked("wait", good, bad)
    assert done.code == 1 and f"task {bad} failed on worker: exit 3" in done.err
    done = worked("wait", "--json", f"{good},{bad}")
    assert done.code == 1
    assert [t["state"] for t in done.json["tasks"]] == ["done", "failed"]
    assert worked("wait", "999").code == 3
    assert worked("wait", "all").code == 0  # nothing unfinished


def test_wait_any_and_timeout(worked):
    slow = worked.ok("submit", "--", "sleep", "100").strip()
    fast = worked.ok("submit", "--", "true").strip()
    done = worked("wait", "--any", slow, fast)
    assert done.code == 0 and done.out.strip() == fast
    done = worked("wait", "--timeout", "50ms", slow)
    assert done.code == 124 and "time is over" in done.err
    assert worked("wait", "--any", "--timeout", "50ms", slow).code == 124
    worked.ok("cancel", "--grace", "100ms", slow)
    assert worked("wait", slow).code == 1
    assert worked("wait", "--any", "--all", slow).code == 2


def test_cancel(cli, worker_factory):
    cli.ok("submit", "--", "true")
    cli.ok("submit", "--array", "1-5", "--", "true")
    assert cli.ok("cancel", "1") == "1 cancelled\n"
    assert cli.ok("cancel", "1-3") == "2 cancelled, 1 had ended already\n"
    wanted = {"cancelled": 3, "cancelling": 0, "too_late": 0, "unknown": 0}
    assert cli("cancel", "--json", "4-6").json == wanted
    done = cli("cancel", "44")
    assert done.code == 3 and "no task 44" in done.err
    assert cli("cancel", "--mode", "hard", "1").code == 2


def test_cancel_running(worked):
    worked.ok("submit", "--", "sleep", "100")
    worked.wait_state("1", "running", "starting")
    assert worked.ok("cancel", "--mode", "queued", "1") == "1 left alone (running or ended)\n"
    assert worked.ok("cancel", "--reason", "enough", "1") == "1 told to end\n"
    worked.wait_state("1", "cancelled")


def test_cancel_by_filter(cli):
    for name in ("a", "a", "b"):
        cli.ok("submit", "-Q", name, "--", "true")
    assert cli.ok("cancel", "queue=a") == "2 cancelled\n"
    assert ids(cli.ok("ls", "-q")) == [3]
    assert cli("cancel", "queue=a", "3").code == 2
    assert cli.ok("cancel", "all") == "1 cancelled\n"


def test_cancel_sends_signals(worked):
    process = worked.start("run", "--", "sh", "-c",
                           "trap 'echo got; exit 0' USR1; echo ready; while :; do sleep 0.02; done")
    lib.read_line(process)
    assert worked("cancel", "--signal", "usr1", "last").code == 0
    assert lib.finish(process).out == "got\n"
    done = worked("cancel", "--signal", "USR1", "last")
    assert done.code == 6, done
    assert worked("cancel", "--signal", "NOPE", "last").code == 2


def test_why(cli):
    cli.ok("submit", "--need", "gpu", "--", "true")
    out = cli.ok("why", "1")
    assert "1" in out and len(out) > 10
    done = cli("why", "--json", "1").json["tasks"][0]
    assert done["id"] == 1 and done["state"] == "queued" and done["lines"]
    assert cli("why", "9").code == 3


def test_queue_verbs(worked):
    worked.ok("queue", "pause", "slow")
    worked.ok("submit", "-Q", "slow", "--", "true")
    queues = {q["queue"]: q for q in worked("queue", "ls", "--json").json["queues"]}
    assert queues["slow"]["state"] == "paused" and queues["slow"]["queued"] == 1
    assert "paused" in worked.ok("queue", "show", "slow")
    assert "was paused already" in worked("queue", "pause", "slow").err
    worked.ok("queue", "resume", "slow")
    assert worked("wait", "last").code == 0
    done = worked("queue", "show", "nope")
    assert done.code == 3 and "hostpool queue ls" in done.err


def test_worker_verbs(worked):
    worked.ok("worker", "drain", "worker", "--reason", "new disk")
    row = worked("worker", "show", "--json", "worker").json["workers"][0]
    assert (row["state"], row["reason"], row["slots"]) == ("draining", "new disk", 2)
    assert "square" in row["functions"]
    worked.ok("submit", "--", "true")
    assert worked("wait", "--timeout", "100ms", "last").code == 124
    worked.ok("worker", "resume", "worker")
    assert worked("wait", "last").code == 0
    assert worked("worker", "drain", "nope").code == 3
    assert worked("worker", "show", "nope").code == 3
    assert worked.ok("worker", "ls", "-q") == "worker\n"


def test_broker_verbs(worked, tmp_path):
    assert "answered in" in worked.ok("broker", "ping")
    assert worked("broker", "ping", "--json").json["server"].startswith("hostpoold")
    assert worked("broker", "wait", "--timeout", "5s").code == 0
    status = worked("broker", "status", "--json").json
    assert status["epoch"] == 1 and "submitted_total" in status["figures"]
    assert "start number 1" in worked.ok("broker", "status")
    worked("run", "--", "true")
    assert "verified" in worked.ok("broker", "backup", "copy")
    assert (tmp_path / "copy").is_dir()
    assert worked("broker", "backup", "copy").code != 0
    assert worked.ok("broker", "check").endswith("ok\n")
    assert worked("broker", "check", "--json").json["ok"] is True


def test_stats(worked):
    worked("run", "--", "true")
    worked("run", "--", "false")
    done = worked("stats", "--json").json
    assert done["tasks"]["done"] == 1 and done["tasks"]["failed"] == 1
    assert done["workers"]["slots"] == 2
    assert "1 online of 1" in worked.ok("stats")


def test_wait_survives_a_broker_restart(worked, broker, tmp_path):
    go = tmp_path / "go"
    worked.ok("submit", "--", "sh", "-c", f"while ! test -e {go}; do sleep 0.02; done")
    worked.wait_state("1", "running", "starting")
    process = worked.start("-v", "wait", "1")
    assert b"connected to" in process.stderr.readline()
    broker.kill()
    broker.start()
    go.touch()
    assert lib.finish(process).code == 0


def test_output_that_can_not_be_written(cli):
    cli.ok("submit", "--", "true")
    with open("/dev/full", "wb") as full:
        import subprocess
        done = subprocess.run(cli.argv(["ls"]), stdout=full, stderr=subprocess.PIPE, env=cli.env,
                              timeout=60)
    assert done.returncode == 1 and b"cannot write to standard output" in done.stderr
