# SPDX-License-Identifier: BSD-2-Clause
"""W7: the program `true`, 5,000 times, two at once, stdout kept."""
from harness import farm, limits, peers
from harness.model import Goal, PEER, Show, Side, Workload
from harness.peers import NOTHING

COUNT = 5000
RATE = (Show("rate", "commands/s"),)
HOSTPOOL, VOLATILE, XARGS = "hostpool", "hostpool, durable=false", "xargs -P2"
DURABLE = "fsync before the start and before the end; output and exit code kept"


def commands(**options):
    def run(context):
        with farm.start(context) as one:
            return farm.drive(one, "pipelined", context.count(COUNT, 20), work="command",
                              **options)["pipelined"]
    return run


WORKLOAD = Workload(
    "W7", "`true` 5,000 times, 2 at once, every exit code checked",
    [Side(HOSTPOOL, DURABLE, commands(), RATE),
     Side(VOLATILE, NOTHING, commands(durable=False), RATE),
     limits.FORK,
     Side(XARGS, NOTHING, peers.shell('seq "$1" | xargs -n1 -P2 true', COUNT), RATE, kind=PEER,
          packages=("findutils",))],
    [Goal((HOSTPOOL, "rate"), (limits.FORK.name, "rate"), 0.9),
     Goal((HOSTPOOL, "rate"), (XARGS, "rate"), 1.5)])
