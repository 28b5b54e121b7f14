# SPDX-License-Identifier: BSD-2-Clause
"""The checker of the kill campaigns: a right history passes, and each rule bites."""
import contextlib
import copy
import json
import os
import pathlib
import sqlite3
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/kill"))

import check  # noqa: E402
import pool  # noqa: E402
import specs  # noqa: E402
import wire_ref  # noqa: E402

SQUARE, ONCE, EXIT3, CANCEL, VOLATILE, HUGE = 10, 20, 30, 40, 50, 60


class Broker:
    """What a broker answers about tasks."""

    def __init__(self, tasks, blobs):
        self.tasks, self.blobs = tasks, blobs

    @contextlib.contextmanager
    def client(self, *_):
        yield self

    def call(self, method, **params):
        if method == "blob.get":
            data = self.blobs[params["blob"]][params["offset"]:][:100000]
            return {"data": data, "size": len(self.blobs[params["blob"]])}
        assert method == "task.get"
        return {"tasks": [dict(self.tasks[i], id=i) for i in params["ids"] if i in self.tasks]}


class World:
    """A history without a flaw."""

    def __init__(self, folder):
        self.folder = folder
        self.lines = [
            {"n": 1, "kind": "square", "base": 3, "count": 2}, {"a": 1, "first": 10, "count": 2},
            {"n": 2, "kind": "once", "base": 5, "count": 1}, {"a": 2, "first": 20, "count": 1},
            {"n": 3, "kind": "exit3", "base": 6, "count": 1}, {"a": 3, "first": 30, "count": 1},
            {"n": 4, "kind": "cancel", "base": 7, "count": 2}, {"a": 4, "first": 40, "count": 2},
            {"x": [40]}, {"c": [[40, 0]]}, {"v": [50, 2, 8]},
            {"n": 5, "kind": "huge", "base": 9, "count": 1}, {"a": 5, "first": 60, "count": 1},
            {"e": [10, pool.DONE, 1]}, {"e": [50, pool.DONE, 1]}, {"e": [50, specs.UNKNOWN, 0]}]
        self.load = ["A 70 1 echo 2", f"E 70 9 0 1 {check.fnv1a(specs.payload('echo', 2))}"]
        done = {"state": pool.DONE, "attempt": 1}
        self.tasks = {i: dict(done, end={"result": wire_ref.pack([base * base])[1:]})
                      for i, base in ((10, 3), (11, 4), (41, 8), (51, 9))}
        self.tasks[20] = dict(done, end={"exit_code": 0, "out": b"out 20 in-5"})
        self.tasks[30] = {"state": pool.FAILED, "reason": specs.EXIT, "attempt": 4, "failures": 2,
                          "losses": 1, "end": {"exit_code": 3}}
        self.tasks[40] = {"state": specs.CANCELLED, "attempt": 0}
        self.tasks[50] = {"state": specs.UNKNOWN, "attempt": 0}
        self.tasks[60] = dict(done, end={"result_blob": 5})
        self.tasks[70] = dict(done, end={"result": specs.payload("echo", 2)})
        self.blobs = {5: specs.payload("huge", 9)}
        self.starts = ["20 1 7", "30 1 7", "30 2 7", "30 3 8", "30 4 8"]
        self.overlap = ""

    def problems(self, **more):
        self.folder.joinpath("journal.python").write_text("\n".join(map(json.dumps, self.lines)))
        self.folder.joinpath(f"journal.{check.LIBRARY}").write_text("\n".join(self.load))
        self.folder.joinpath("starts").write_text("\n".join(self.starts) + "\n")
        if self.overlap:
            self.folder.joinpath("key.overlap").write_text(self.overlap)
        broker = Broker(copy.deepcopy(self.tasks), self.blobs)
        return check.check_history(broker, self.folder, **more)[2]


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def test_a_right_history(world):
    assert not world.problems()
    del world.tasks[50], world.lines[-2:]
    world.lines[10] = {"v": [51, 1, 9]}
    assert not world.problems(broker_crashed=False, broker_ended=False)


def lose(world):
    del world.tasks[11]


def leave_running(world):
    world.tasks[11]["state"] = 5


def answer_wrong(world):
    world.tasks[11]["end"]["result"] = wire_ref.pack([17])[1:]


def answer_for_another(world):
    world.tasks[10], world.tasks[11] = world.tasks[11], world.tasks[10]


def cut_a_blob(world):
    world.blobs[5] = world.blobs[5][:-1]


def fail_for_no_reason(world):
    world.tasks[11] = {"state": pool.FAILED, "reason": specs.NODE_LOST, "attempt": 1}


def fail_too_early(world):
    world.tasks[30]["failures"] = 1


def give_an_id_twice(world):
    world.lines.append({"v": [11, 1, 4]})


def end_twice(world):
    world.lines.append({"e": [10, pool.FAILED, 1]})


def end_in_another_attempt(world):
    world.tasks[10]["attempt"] = 2


def answer_changed(world):
    world.load[1] = "E 70 9 0 1 12345"


def break_a_promise(world):
    world.lines.append({"bad": "number 3 had other ids"})


def start_an_attempt_twice(world):
    world.starts.append("30 2 9")


def start_an_attempt_unknown(world):
    world.starts.append("30 5 9")


def start_at_most_once_again(world):
    world.tasks[20]["attempt"] = 2
    world.starts.append("20 2 9")


def be_done_without_a_start(world):
    world.starts.pop(0)


def start_without_a_cause(world):
    world.tasks[30]["losses"] = 0


def undo_a_cancel(world):
    world.tasks[40] = dict(world.tasks[41])


def cancel_unasked(world):
    world.tasks[41] = {"state": specs.CANCELLED, "attempt": 0}


def cancel_what_was_too_late(world):
    world.lines.append({"c": [[40, 2]]})


def forget_while_running_on(world):
    del world.lines[-2:]


def answer_wrong_in_memory(world):
    world.tasks[51]["end"]["result"] = wire_ref.pack([80])[1:]


def overlap(world):
    world.overlap = "20 1\n"


@pytest.mark.parametrize("spoil", [
    lose, leave_running, answer_wrong, answer_for_another, cut_a_blob, fail_for_no_reason,
    fail_too_early, give_an_id_twice, end_twice, end_in_another_attempt, answer_changed,
    break_a_promise, start_an_attempt_twice, start_an_attempt_unknown, start_at_most_once_again,
    be_done_without_a_start, undo_a_cancel, cancel_unasked, cancel_what_was_too_late,
    answer_wrong_in_memory, overlap])
def test_a_wrong_history(world, spoil):
    assert not world.problems()
    spoil(world)
    assert world.problems()


@pytest.mark.parametrize("spoil", [start_without_a_cause, forget_while_running_on])
def test_wrong_without_a_crash(world, spoil):
    if spoil is not forget_while_running_on:
        del world.tasks[50], world.lines[-2:]
        world.lines[10] = {"v": [51, 1, 9]}
        assert not world.problems(broker_crashed=False, broker_ended=False)
    spoil(world)
    assert world.problems(broker_crashed=False, broker_ended=False)


@pytest.fixture
def stopped(tmp_path):
    data, state = tmp_path / "data", tmp_path / "w1.state"
    (data / "blobs" / "05").mkdir(parents=True)
    state.mkdir()
    (state / "spool").write_bytes(bytes(check.SPOOL_EMPTY_BYTES))
    (data / "blobs" / "05" / f"{5:016x}").write_bytes(b"content")
    database = sqlite3.connect(data / "hostpool.db")
    for table in check.EMPTY_TABLES:
        database.execute(f"CREATE TABLE {table}(row BLOB)")
    database.execute("CREATE TABLE blob(blob INTEGER PRIMARY KEY)")
    database.execute("INSERT INTO blob VALUES(5)")
    database.commit()
    yield data, state, database
    database.close()


def left(stopped):
    data, state, database = stopped
    database.commit()
    return list(check.check_stopped(data, [state]))


def test_stopped_in_order(stopped):
    assert not left(stopped)


@pytest.mark.parametrize("table", check.EMPTY_TABLES)
def test_rows_are_left(stopped, table):
    stopped[2].execute(f"INSERT INTO {table} VALUES(x'00')")
    assert left(stopped)


@pytest.mark.parametrize("name", [
    "hostpool.db-wal", "hostpool.running", "blobs/05/0000000000000006",
    "blobs/05/0000000000000005.part"])
def test_files_are_left(stopped, name):
    path = stopped[0].joinpath(name)
    path.write_bytes(b"")
    os.utime(path, (1, 1))
    assert left(stopped)


def test_an_upload_may_wait(stopped):
    stopped[0].joinpath("blobs/05/0000000000000006").write_bytes(b"not named yet")
    assert not left(stopped)


def test_a_blob_is_missing(stopped):
    stopped[0].joinpath("blobs/05/0000000000000005").unlink()
    assert left(stopped)


def test_a_result_is_left_at_a_worker(stopped):
    stopped[1].joinpath("spool").write_bytes(bytes(check.SPOOL_EMPTY_BYTES + 40))
    assert left(stopped)
