# SPDX-License-Identifier: BSD-2-Clause
"""Three hosts as network namespaces, joined by a bridge: a broker and two workers, with a token."""
import pathlib
import secrets
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))

import netns  # noqa: E402
import pool  # noqa: E402
import wire_ref  # noqa: E402

HOSTS = ("b", "w1", "w2") # the broker first


@pytest.fixture
def net():
    one = netns.Net(HOSTS)
    try:
        one.up()
        yield one
    finally:
        one.down()


class NetPool(pool.Pool):
    def __init__(self, folder, net, workers=HOSTS[1:]):
        token_file = folder / "token"
        token_file.write_text("a token of the test\n")
        token_file.chmod(0o600)
        self.net = net
        super().__init__(
            folder, ["--lease", "1500ms", "--heartbeat", "300ms", "--token-file", token_file],
            address=net.address("b"), port=7741, prefix=net.inside("b"),
            token="a token of the test")
        for host in workers:
            self.add_worker(host, slots=2, flags=["--token-file", token_file],
                            prefix=net.inside(host))

    def client(self, timeout_s=30, **hello):
        with netns.namespace(self.net.name("b")):
            return super().client(timeout_s, **hello)


SCRIPT = """echo "$HOSTPOOL_TASK_ID $HOSTPOOL_ATTEMPT" >>"$STARTS"
sleep 0.05
ip -br -4 addr show eth0
cat"""


def submit_round(client, number, starts):
    """A round of commands and functions; {id: how to check it}."""
    # Losing a link must cost no answer; the sums are checked exactly, the commands by their input.
    made = client.call(
        "task.submit", number=number, payloads=[b"input %d" % i for i in range(30)],
        options={"kind": pool.COMMAND, "argv": ["/bin/sh", "-c", SCRIPT],
                 "env": [f"STARTS={starts}", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]})
    wanted = {made["first"] + i: b"input %d" % i for i in range(30)}
    made = client.call(
        "task.submit", number=number + 1,
        payloads=[wire_ref.pack([number, i]) for i in range(500)],
        options={"kind": pool.FUNCTION, "fn": "sum"})
    wanted.update((made["first"] + i, number + i) for i in range(500))
    return wanted


def check_round(client, wanted):
    """All ended, once, with the right answer; the addresses of the hosts that ran commands."""
    addresses = set()
    for task_id, task in pool.wait_tasks(client, wanted, 60).items():
        assert task["state"] == pool.DONE, task
        right = wanted[task_id]
        if isinstance(right, bytes):
            words = pool.output_of(client, task).split(maxsplit=3)
            assert words[3] == right, task
            addresses.add(words[2].split(b"/")[0].decode())
        else:
            assert wire_ref.unpack(pool.result_of(client, task)) == right
    return addresses


def test_a_link_goes_down_and_comes_back(net, tmp_path):
    starts = tmp_path / "starts"
    with NetPool(tmp_path, net) as one:
        one.start()
        one.wait_workers()
        session = secrets.token_bytes(16)
        with one.client(session=session) as client:
            wanted = submit_round(client, 1, starts)
            both = {net.address("w1"), net.address("w2")}
            assert check_round(client, wanted) == both, "both hosts take part"

            rounds = [submit_round(client, number, starts) for number in (3, 5, 7)]
            pool.until(lambda: one.nodes()["w1"]["assigned"], "w1 has work", 20)
            net.link("w1", "down")
            pool.until(lambda: one.nodes()["w1"]["state"] == 3, "w1 has lost its lease", 20)
            rounds.append(submit_round(client, 9, starts))
            assert check_round(client, rounds.pop()) == {net.address("w2")}, "w1 is cut off"
            net.link("w1", "up")
            for wanted in rounds:
                check_round(client, wanted)
            one.wait_workers(60)
            seen = set()
            for number in range(11, 31, 2):
                seen |= check_round(client, submit_round(client, number, starts))
                if seen == both:
                    break
            assert seen == both, "w1 takes part again"
        lines = starts.read_text().splitlines()
        assert len(lines) == len(set(lines)), "an attempt was started twice"
        assert not one.stop_workers()
        assert one.broker.stop() == 0
        assert not one.leftovers()


def test_a_wrong_token_is_refused(net, tmp_path):
    with NetPool(tmp_path, net, workers=()) as one:
        one.start()
        for token in ("another", ""):
            one.token = token
            with pytest.raises(wire_ref.RpcError, match="denied"):
                one.client()
        one.token = "a token of the test"
        with one.client() as client:
            assert any("encrypt" in line or "TLS" in line
                       for line in client.call("broker.status").get("warnings", []))
        one.broker.stop()
        refused = subprocess.run(
            net.inside("b", pool.find_program(pool.HOSTPOOLD), "--data-dir",
                       str(tmp_path / "other"), "--listen", f"{net.address('b')}:7741"),
            stderr=subprocess.PIPE, text=True, timeout=30, check=False)
        assert refused.returncode == 2 and "token" in refused.stderr
