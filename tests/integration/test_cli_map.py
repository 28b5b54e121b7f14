# SPDX-License-Identifier: BSD-2-Clause
"""hostpool map: inputs, order, joblog, resume, halt, interrupts, functions."""
import os
import re
import signal

import pytest

import cli as lib
import procs


@pytest.fixture
def cli(broker, worker_factory, tmp_path):
    worker_factory(slots=2, module=True)
    made = lib.Cli(broker.address, cwd=tmp_path)
    procs.wait_until(lambda: made("worker", "ls", "-q").out, "a worker")
    return made


def joblog(path):
    """{seq: (exitval, signal, command)}, the last line of each."""
    lines = path.read_text().splitlines()
    assert lines[0].split("\t") == ["Seq", "Host", "Starttime", "JobRuntime", "Send", "Receive",
                                    "Exitval", "Signal", "Command"]
    rows = [line.split("\t") for line in lines[1:]]
    assert all(len(row) == 9 for row in rows)
    return {int(r[0]): (int(r[6]), int(r[7]), r[8]) for r in rows}


def test_words_files_and_standard_input(cli, tmp_path):
    (tmp_path / "a").write_text("1\n2 3\n")
    (tmp_path / "b").write_text("4")
    wanted = ["x1", "x2 3", "x4"]
    assert sorted(cli.ok("map", "--", "echo", "x{}", ":::", "1", "2 3", "4").splitlines()) == wanted
    assert sorted(cli.ok("map", "--", "echo", "x{}", "::::", "a", "b").splitlines()) == wanted
    assert sorted(cli.ok("map", "-a", "a", "--", "echo", "x{}").splitlines()) == wanted[:2]
    assert sorted(cli.ok("map", "--", "echo", "x{}", stdin="1\n2 3\n4").splitlines()) == wanted
    out = cli.ok("map", "-0", "--", "echo", "x{}", stdin="1\x002 3\x004\0")
    assert sorted(out.splitlines()) == wanted
    assert cli.ok("map", "--", "echo", stdin="") == ""


def test_hostile_inputs_are_arguments(cli):
    inputs = ["$(touch evil)", "; rm -rf x", "a  b", "'q'", "*", "-n", "{}", ""]
    done = cli("map", "-k", "--", "printf", "[%s]\\n", "{}", ":::", *inputs)
    assert done.out.splitlines() == [f"[{i}]" for i in inputs]


def test_replacements(cli):
    done = cli.ok("map", "--", "echo", "{}", "{.}", "{/}", "{//}", "{/.}", "{#}", ":::", "a/b.c")
    assert done == "a/b.c a/b b.c a b 1\n"


def test_program_from_input(cli):
    assert cli.ok("map", "--", "{}", "x", ":::", "echo") == "x\n"


def test_keep_order(cli):
    script = 'test "$1" = 1 && sleep 0.3; echo $1'
    inputs = [str(i) for i in range(1, 300)]
    done = cli.ok("map", "-k", "--", "sh", "-c", script, "sh", "{}", ":::", *inputs)
    assert done.split() == inputs


def test_outputs_of_tasks_do_not_mix(cli):
    script = "for i in 1 2 3 4 5; do echo $1; sleep 0.002; done"
    lines = cli.ok("map", "--", "sh", "-c", script, "sh", "{}", ":::", *"abcdefgh").split()
    assert len(lines) == 40
    assert all(len(set(lines[i:i + 5])) == 1 for i in range(0, 40, 5))


def test_tag(cli):
    done = cli("map", "-k", "--tag", "--", "sh", "-c", "echo $0; echo b; echo e >&2", "{}", ":::",
               "1", "2")
    assert done.out == "1\t1\n1\tb\n2\t2\n2\tb\n"
    assert done.err == "1\te\n2\te\n"


def test_large_outputs(cli):
    """Larger than what goes inline, so it comes by blob."""
    done = cli("map", "-k", "--", "seq", "{}", ":::", "100000", "3", "50000")
    wanted = "".join(f"{i}\n" for n in (100000, 3, 50000) for i in range(1, n + 1))
    assert done.code == 0 and done.out == wanted


def test_exit_code_and_summary(cli):
    done = cli("map", "-n", "some", "--", "sh", "-c", "echo bad >&2; exit $0", ":::", "0", "3", "0")
    assert done.code == 1
    assert "1 task failed. First: " in done.err and 'exit 3: "bad"' in done.err
    assert "hostpool ls state=failed @some" in done.err
    failed = re.search(r"hostpool logs (\d+)", done.err).group(1)
    assert cli("logs", "--stderr", failed).err == "bad\n"
    assert cli("ls", "-q", "state=failed", "@some").out.split() == [failed]


def test_jobs_limits_what_is_in_flight(cli, worker_factory, tmp_path):
    worker_factory(slots=6, name="second")
    procs.wait_until(lambda: len(cli("worker", "ls", "-q").out.split()) == 2, "two workers")
    script = f"echo + >> {tmp_path}/log; sleep 0.03; echo - >> {tmp_path}/log"
    cli.ok("map", "-j", "3", "--", "sh", "-c", script, ":::", *map(str, range(30)))
    depth = most = 0
    for line in (tmp_path / "log").read_text().split():
        depth += 1 if line == "+" else -1
        most = max(most, depth)
    assert most <= 3


def test_joblog_resume_and_retry(cli, tmp_path):
    log = tmp_path / "log"
    script = "test $0 != 2 -o -e fixed"
    words = ["--joblog", log, "--", "sh", "-c", script, "{}"]
    assert cli("map", *words, ":::", "1", "2", "3").code == 1
    rows = joblog(log)
    assert {seq: row[0] for seq, row in rows.items()} == {1: 0, 2: 1, 3: 0}
    assert rows[2][2] == "sh -c 'test $0 != 2 -o -e fixed' 2"
    # resume: those that are there are left out, also failed ones
    done = cli("map", "--resume", *words, ":::", "1", "2", "3", "4")
    assert done.code == 0 and len(log.read_text().splitlines()) == 5
    # retry-failed: only the failed one
    (tmp_path / "fixed").touch()
    assert cli("map", "--retry-failed", *words, ":::", "1", "2", "3", "4", "5").code == 0
    assert len(log.read_text().splitlines()) == 6 and joblog(log)[2][0] == 0
    # both: what has not succeeded yet
    assert cli("map", "--resume", "--retry-failed", *words, ":::", "1", "2", "3", "4",
               "5").code == 0
    assert sorted(joblog(log)) == [1, 2, 3, 4, 5] and len(log.read_text().splitlines()) == 7


def test_resume_refuses_other_inputs(cli, tmp_path):
    log = tmp_path / "log"
    assert cli("map", "--joblog", log, "--", "echo", ":::", "1").code == 0
    done = cli("map", "--joblog", log, "--resume", "--", "echo", ":::", "other")
    assert done.code == 2 and "another command" in done.err


def test_resume_after_half_a_line(cli, tmp_path):
    log = tmp_path / "log"
    cli.ok("map", "--joblog", log, "--", "echo", ":::", "1", "2")
    whole = log.read_text().splitlines(keepends=True)
    log.write_text("".join(whole[:-1]) + whole[-1][:5])
    cli.ok("map", "--joblog", log, "--resume", "--", "echo", ":::", "1", "2")
    rows = [line.split("\t") for line in log.read_text().splitlines()[1:]]
    assert sorted(int(r[0]) for r in rows if len(r) == 9) == [1, 2]


def test_resume_needs_a_joblog(cli):
    assert cli("map", "--resume", "--", "echo", ":::", "1").code == 2


def test_results(cli, tmp_path):
    cli("map", "--results", "out", "--", "sh", "-c", "echo o$0; echo e >&2; exit $0", ":::", "0",
        "4")
    folder = tmp_path / "out" / "2"
    assert (folder / "stdout").read_text() == "o4\n"
    assert (folder / "stderr").read_text() == "e\n"
    assert (folder / "exitval").read_text() == "4\n"
    assert (folder / "input").read_text() == "4"


def test_halt_now(cli, tmp_path):
    log = tmp_path / "log"
    done = cli("map", "-j", "4", "--halt", "now,fail=1", "--joblog", log, "--", "sh", "-c",
               "test $0 = 2 && exit 5; sleep 100", ":::", *map(str, range(1, 100)))
    assert done.code == 1 and "stopped: " in done.err
    assert joblog(log) == {2: (5, 0, joblog(log)[2][2])}


def test_halt_soon_lets_running_ones_end(cli):
    done = cli("map", "-j", "2", "--halt", "soon,fail=1", "--", "sh", "-c",
               "test $0 = 1 && exit 1; sleep 0.3; echo ended $0", ":::", *map(str, range(1, 50)))
    assert done.code == 1
    assert done.out in ("ended 2\n", "ended 2\nended 3\n", "")


def test_interrupt(cli, tmp_path):
    log = tmp_path / "log"
    process = cli.start("map", "-n", "b", "-j", "50", "--joblog", log, "--kill-grace", "100ms",
                        "--",
                        "sh", "-c", "test $0 -le 2 && exit 0; exec sleep 100", ":::",
                        *map(str, range(1, 1000)))
    procs.wait_until(lambda: log.exists() and len(log.read_text().splitlines()) >= 3, "two ends")
    process.send_signal(signal.SIGINT)
    done = lib.finish(process)
    assert done.code == 130
    wanted = r"stopped: 2 done, 0 failed, \d+ cancelled.* of \d+ submitted \(batch @b\)"
    assert re.search(wanted, done.err)
    assert "--resume" in done.err
    procs.wait_until(lambda: not cli("ls", "-q", "state=unfinished", "@b").out, "all cancelled")
    # what was cancelled is not in the joblog: it runs when resumed
    assert sorted(joblog(log)) == [1, 2]


def test_function(cli):
    done = cli.ok("map", "-k", "--function", "square", ":::", *map(str, range(200)))
    assert [int(n) for n in done.split()] == [i * i for i in range(200)]


def test_function_args(cli):
    done = cli("map", "-k", "--dry-run", "--function", "f", "--args", '[1, "{}", {"a": "{}"}]',
               ":::", "7", "x")
    assert done.out == 'f [1,7,{"a":7}]\nf [1,"x",{"a":"x"}]\n'


def test_inputs_that_come_slowly(cli):
    """A producer that waits for what its earlier input made: map must not wait for more input."""
    read_end, write_end = os.pipe()
    process = cli.start("map", "--", "echo", stdin=read_end)
    os.close(read_end)
    for word in (b"one", b"two", b"three"):
        os.write(write_end, word + b"\n")
        assert lib.read_line(process) == word.decode() + "\n"
    os.close(write_end)
    assert lib.finish(process).code == 0


def test_many_inputs_in_bounded_memory(cli):
    """100,000 function tasks by one pipe; the program stays small."""
    import resource
    inputs = "".join(f"{i}\n" for i in range(100000))
    done = cli("map", "--function", "square", stdin=inputs)
    assert done.code == 0, done.err[-1000:]
    assert sum(map(int, done.out.split())) == sum(i * i for i in range(100000))
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 400 << 10


def test_broken_pipe(cli):
    process = cli.start("map", "--kill-grace", "100ms", "--", "sh", "-c", "echo $0", ":::",
                        *map(str, range(5000)))
    lib.read_line(process)
    process.stdout.close()
    assert process.wait(procs.LIMIT_S) == 141
    process.stderr.close()


def test_bar_on_a_terminal(cli):
    terminal = cli.terminal("map", "--bar", "-n", "b", "--", "echo", ":::", *map(str, range(40)))
    assert terminal.end() == 0
    text = terminal.seen.decode()
    assert "batch @b: 40 tasks on queue default, 1 of 1 workers can run them" in text
    assert "40 tasks done in" in text
    assert "\033[31" not in text


def test_no_bar_in_a_pipe(cli):
    done = cli("map", "--bar", "--", "true", ":::", "1")
    assert done.err == ""


def test_dry_run_runs_nothing(cli):
    assert cli.ok("map", "--dry-run", "--", "rm", "-f", ":::", "a b") == "rm -f 'a b'\n"
    assert cli.ok("ls", "-q", "all") == ""


def test_usage_errors(cli):
    for args in (["map"], ["map", "--", "x", ":::", "1", ":::", "2"], ["map", "--", "x", "::::"],
                 ["map", "--halt", "often", "--", "x", ":::", "1"],
                 ["map", "-a", "f", "--", "x", ":::", "1"],
                 ["map", "-j", "0", "--", "x", ":::", "1"]):
        done = cli(*args)
        assert done.code == 2, (args, done)
    assert cli("map", "--", "echo", "::::", "no-such-file").code == 1
    assert cli("map", "--", "echo", stdin="a\0b\n").code == 1


def test_broker_restart_in_the_middle(cli, broker, tmp_path):
    process = cli.start("map", "-k", "--", "sh", "-c", "sleep 0.01; echo $0", ":::",
                        *map(str, range(300)))
    assert lib.read_line(process) == "0\n"
    broker.kill()
    broker.start()
    done = lib.finish(process)
    assert done.code == 0, done
    assert done.out.split() == [str(i) for i in range(1, 300)]
