#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""A client of the kill campaign without libhostpool, to check the idempotence of submits.

  client.py ADDRESS PORT SESSION_HEX JOURNAL SEED POOL_ID FOLDER

Every submit is written to the journal before it is sent: {"n", "kind", "base", "count"}, and again
when it is acknowledged: {"a", "first", "count"}. After a lost connection, or a restart by kill -9
with the same journal, the same numbers are sent again. Now and then a number that was answered is
sent once more: its ids must be the same. {"e": [id, state, attempt]} is an end that was told;
{"x": [id, ...]} is written before a cancel, {"c": [[id, outcome], ...]} when it is answered;
{"v": [first, count, base]} are tasks that are not durable, which have no number: a broker that ends
forgets them. {"bad": text} is a broken promise. SIGTERM: no further submits, wait for the ends,
exit 0.
"""
import json
import os
import random
import signal
import sys
import threading

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import specs  # noqa: E402
import pool  # noqa: E402
import wire_ref  # noqa: E402

WEIGHTS = {"square": 30, "bare": 15, "echo": 15, "flaky": 8, "fail": 6, "cmd": 12, "once": 7,
           "key": 4, "exit3": 3, "huge": 2, "array": 3, "delayed": 4, "cancel": 6}
VOLATILE_SHARE = 0.2 # of turns
LAST_REPEATED = 8  # answers the broker must still know: acked_up_to stays this far behind
RETRY_CODES = {"busy", "draining"}


class Client:
    def __init__(self, argv):
        address, port, session, journal, seed, self.pool_id, self.folder = argv
        self.address = (address, int(port))
        self.session = bytes.fromhex(session)
        self.random = random.Random(f"{seed} {os.getpid()}")
        self.submits, self.acks, self.ended = {}, {}, {}
        self.load(journal)
        self.journal = open(journal, "ab", buffering=0)
        self.wire = None
        self.stopping = False
        self.pause = threading.Event()

    def load(self, journal):
        if not os.path.exists(journal):
            return
        with open(journal, "rb") as lines:
            for line in lines:
                self.learn(json.loads(line))

    def learn(self, entry):
        if "n" in entry:
            self.submits[entry["n"]] = entry
        elif "a" in entry:
            self.acks[entry["a"]] = (entry["first"], entry["count"])
        elif "e" in entry:
            self.ended[entry["e"][0]] = entry["e"]

    def note(self, **entry):
        self.journal.write(json.dumps(entry).encode() + b"\n")
        self.learn(entry)

    def connect(self):
        self.wire = pool.Client(self.address, float(os.environ.get("HP_KILL_TIMEOUT_S", "20")))
        token = os.environ.get("HP_KILL_TOKEN")
        more = {"token": token} if token else {}
        hello = self.wire.call("hello", client="kill", version=1, session=self.session, **more)
        if hello.get("last_number", 0) < max(self.acks, default=0):
            self.note(bad=f"the session forgot {max(self.acks)}: {hello}")

    def send_submits(self, numbers):
        """In one go; [(number, message id), ...]. What they need is uploaded before."""
        specs_of = [self.submits[number] for number in numbers]
        bodies = [self.body(one["kind"], one["base"], one["count"]) for one in specs_of]
        return [(number, self.wire.begin("task.submit", number=number, **body,
                                         acked_up_to=max(0, number - LAST_REPEATED)))
                for number, body in zip(numbers, bodies)]

    def body(self, kind, base, count):
        """Options and payloads; large ones are put into blobs before."""
        options = specs.options(kind, self.pool_id, self.folder)
        if kind == "array":
            return {"options": options, "count": count}
        payloads = [specs.payload(kind, base + i) for i in range(count)]
        if max(map(len, payloads)) <= specs.INLINE_BYTES:
            return {"options": options, "payloads": payloads}
        return {"options": options, "payloads": [b""] * count,
                "blobs": [self.put_blob(payload) for payload in payloads]}

    def put_blob(self, data):
        blob = self.wire.call("blob.open", size=len(data))["blob"]
        for at in range(0, len(data), 1 << 18):
            self.wire.call("blob.put", blob=blob, offset=at, data=data[at:at + (1 << 18)])
        return blob

    def finish_submit(self, number, msgid):
        reply = self.wire.finish(msgid)
        ids = (reply["first"], reply["count"])
        if reply["count"] != self.submits[number]["count"]:
            self.note(bad=f"number {number}: {ids} for {self.submits[number]}")
        if number in self.acks:
            if self.acks[number] != ids:
                self.note(bad=f"number {number} had {self.acks[number]}, now {ids}")
        else:
            self.note(a=number, first=ids[0], count=ids[1])

    def unacked(self):
        return sorted(set(self.submits) - set(self.acks))

    def repeatable(self):
        """Numbers that were answered and must still be known."""
        last = max(self.submits, default=0)
        return [n for n in self.acks if n > last - LAST_REPEATED]

    def new_submits(self):
        numbers = []
        for _ in range(self.random.randint(1, 3)):
            last = self.submits.get(max(self.submits, default=0), {"n": 0, "base": 0, "count": 0})
            kind = self.random.choices(list(WEIGHTS), WEIGHTS.values())[0]
            few = kind in specs.COMMANDS or kind == "huge"
            count = self.random.randint(1, 3 if few else 100 if kind == "array" else 30)
            self.note(n=last["n"] + 1, kind=kind, base=last["base"] + last["count"], count=count)
            numbers.append(last["n"] + 1)
        return numbers

    def open_ids(self):
        return [i for first, count in self.acks.values() for i in range(first, first + count)
                if i not in self.ended]

    def wait_some(self, ids):
        """Learn of ends; may time out."""
        reply = self.wire.call("task.wait", ids=ids[:300], timeout_ms=500, mode=0)
        for task in reply["tasks"]:
            if task["state"] >= 9:
                self.note(e=[task["id"], task["state"], task.get("attempt", 0)])

    def turn(self):
        if self.wire is None:
            self.connect()
            numbers = self.unacked()
        elif self.stopping:
            numbers = self.unacked()
        else:
            numbers = self.new_submits()
        for sent in self.send_submits(numbers):
            self.finish_submit(*sent)
        known = self.repeatable()
        if known and self.random.random() < 0.3:
            self.finish_submit(*self.send_submits([self.random.choice(known)])[0])
        if not self.stopping:
            self.cancel_some(numbers)
            self.submit_volatile()
        ids = self.open_ids()
        if len(ids) > 200 or self.stopping:
            self.wait_some(ids)

    def cancel_some(self, numbers):
        """Half of what was just submitted to be cancelled; the other half ends by itself."""
        for number in numbers:
            if self.submits[number]["kind"] == "cancel":
                first, count = self.acks[number]
                ids = self.random.sample(range(first, first + count), (count + 1) // 2)
                self.note(x=ids)
                reply = self.wire.call("task.cancel", ids=ids)
                self.note(c=[[one["id"], one["outcome"]] for one in reply["results"]])

    def submit_volatile(self):
        if self.random.random() < VOLATILE_SHARE:
            base, count = self.random.randrange(10**6), self.random.randint(1, 20)
            made = self.wire.call("task.submit", **self.body("volatile", base, count))
            self.note(v=[made["first"], made["count"], base])
            self.wait_volatile(made["first"], made["count"])

    def wait_volatile(self, first, count):
        """Their ends are told now, or never: nothing else waits for them."""
        reply = self.wire.call("task.wait", ids=list(range(first, first + count)), timeout_ms=200)
        for task in reply["tasks"]:
            if task["state"] >= 9:
                self.note(e=[task["id"], task["state"], task.get("attempt", 0)])

    def run(self):
        while not self.stopping or self.unacked() or self.open_ids():
            try:
                self.turn()
                self.pause.wait(self.random.random() * 0.1)
            except wire_ref.RpcError as error:
                if error.code not in RETRY_CODES:
                    self.note(bad=f"refused: {error}")
                    return 1
                self.drop()
            except (OSError, ConnectionError):
                self.drop()
        return 0

    def drop(self):
        if self.wire is not None:
            self.wire.close()
        self.wire = None
        self.pause.wait(0.05)


def main():
    client = Client(sys.argv[1:])

    def stop(*_):
        client.stopping = True

    signal.signal(signal.SIGTERM, stop)
    return client.run()


if __name__ == "__main__":
    sys.exit(main())
