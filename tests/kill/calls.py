#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""A client of the kill campaign with a hostpool.Pool: maps, single calls and large arguments.

  calls.py HOST:PORT JOURNAL SEED

Each answer is looked at here; {"bad": text} in the journal is a wrong one, or an error that no call
should have had; {"calls": n} is written each time so many have been answered. The pool is durable:
whatever is killed, a call is run again. SIGTERM: no further calls, close, join, exit 0.
"""
import json
import os
import random
import signal
import sys

sys.path.insert(0, os.environ["HP_KILL_PACKAGES"])

import hostpool  # noqa: E402

stopping = False


def square(x):
    return x * x


def turned(data):
    return data[::-1]


def stop(*_):
    global stopping
    stopping = True


def rounds(pool, rand):
    """Asks, and gives (what it was, right answer, answer)."""
    kind = rand.choice(["map", "map", "chunks", "single", "large"])
    first = rand.randrange(10**6)
    if kind == "single":
        handles = [pool.apply_async(square, (first + i,)) for i in range(20)]
        return kind, [(first + i) ** 2 for i in range(20)], [one.get() for one in handles]
    if kind == "large":
        data = rand.randbytes(400000)
        return kind, data[::-1], pool.apply(turned, (data,))
    numbers = range(first, first + rand.randint(1, 400))
    chunk = None if kind == "map" else rand.randint(1, 20)
    return kind, [x * x for x in numbers], pool.map(square, numbers, chunksize=chunk)


def main():
    address, journal, seed = sys.argv[1:]
    rand = random.Random(f"{seed} {os.getpid()}")
    os.environ["HOSTPOOL_HOST"] = address
    signal.signal(signal.SIGTERM, stop)
    with open(journal, "a", encoding="ascii", buffering=1) as out:
        pool = hostpool.Pool(3, max_losses=100000, child_losses=100000, orphan_timeout=10.0)
        while not stopping:
            kind, right, answer = rounds(pool, rand)
            if answer != right:
                print(json.dumps({"bad": f"{kind}: {str(answer)[:80]}, not {str(right)[:80]}"}),
                      file=out)
            print(json.dumps({"calls": len(right) if kind != "large" else 1}), file=out)
        pool.close()
        pool.join()
    return 0


if __name__ == "__main__":
    sys.exit(main())
