# SPDX-License-Identifier: BSD-2-Clause
"""W10: W1 with all that makes tasks differ, and someone who looks at statistics each second."""
import threading

from harness import farm, programs
from harness.model import Goal, Side, Workload
from harness.peers import RATE

COUNT = 400_000
MIXED, PLAIN = "hostpool, mixed", "hostpool, W1"
DURABLE = "fsync before the acknowledgement and before the result (default settings)"


class Polls(threading.Thread):
    """Asks for all statistics each second."""

    def __init__(self, one):
        super().__init__(daemon=True)
        self.one = one
        self.ended = threading.Event()
        self.count = 0

    def run(self):
        with self.one.client(60) as client:
            while not self.ended.wait(1 if self.count else 0):
                for method in ("broker.status", "queue.list", "worker.list"):
                    client.call(method)
                self.count += 1

    def stop(self):
        self.ended.set()
        self.join()


def mixed(context):
    with farm.start(context) as one:
        polls = Polls(one)
        polls.start()
        found = farm.drive(one, "pipelined", context.count(COUNT, 500), work="mixed")
        polls.stop()
        if polls.count == 0:
            raise programs.Failed("nobody could look at the statistics")
    return found["pipelined"]


def plain(context):
    with farm.start(context) as one:
        return farm.drive(one, "pipelined", context.count(COUNT, 500))["pipelined"]


WORKLOAD = Workload(
    "W10", "10 queues, 20 priorities, 1 % delayed, 1 % retried, 1 % failures, statistics polled",
    [Side(MIXED, DURABLE, mixed, RATE), Side(PLAIN, DURABLE, plain, RATE)],
    [Goal((MIXED, "rate"), (PLAIN, "rate"), 0.8)])
