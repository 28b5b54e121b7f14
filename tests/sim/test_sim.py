# SPDX-License-Identifier: BSD-2-Clause
"""What the simulator says of itself: test_sim.py <path of sim>.

Its traps are bugs put into the simulation: each must be found, and minimised to a command that
breaks the same rule with next to nothing in it. A trace must have words for all that happens.
"""
import re
import subprocess
import sys


def run(*args):
    """Exit status and output of sim."""
    done = subprocess.run([sys.argv[1], *args], capture_output=True, text=True, timeout=250)
    return done.returncode, done.stdout + done.stderr


def check(condition, what, output):
    if not condition:
        sys.exit(f"{what}:\n{output[-3000:]}")


def trap_is_found(name, seeds, faults, tasks):
    """With at most so many faults left; returns nothing, ends at the first lie."""
    status, output = run("--trap", name, "--seeds", seeds, "--failures", "1")
    check(status == 1, f"the trap {name} was not found in seeds {seeds}", output)
    found = re.search(r"minimised: (\d+) faults happen, (\d+) tasks", output)
    rule = re.search(r"rule: (.*)", output)
    command = re.search(r"^ *sim (--seed .*)$", output, re.MULTILINE)
    check(found and rule and command, f"the trap {name} was not minimised", output)
    check(int(found[1]) <= faults and int(found[2]) <= tasks,
          f"{name}: more is left than needed", output)
    status, again = run(*command[1].split())
    words = rule[1].split("%")[0]
    check(status == 1 and words in again, f"{command[0]} does not break '{words}'", again)
    print(f"{name}: {command[0].strip()}")


def a_trace_has_words(seed):
    status, output = run("--seed", seed, "--trace")
    check(status == 0, f"seed {seed}", output)
    lines = output.splitlines()
    check(lines[0].startswith(f"# Seed {seed}: one history"), "no head", output[:500])
    check("no words" not in output and "?" not in {line[15:16] for line in lines},
          "steps without words", "\n".join(line for line in lines if "no words" in line))
    for actor in ("broker", "disk", "worker 0", "client 0", "FAULT", "audit"):
        check(any(line[15:].startswith(actor) for line in lines), f"{actor} says nothing", output)
    check(" ok: hash " in lines[-1], "no figures", lines[-1])


def what_is_cut_is_cut():
    status, output = run("--seed", "3", "--faults", "none", "--acts", "0..3", "--until", "20000")
    check(status == 0 and " 0 faults," in output, "faults none", output)
    status, output = run("--seeds", "5..4")
    check(status == 0, "no seeds", output)


trap_is_found("early-ack", "1..3", 0, 60)
trap_is_found("no-fence", "1..200", 3, 400)
trap_is_found("pair", "1..50", 2, 60)
for seed in ("5", "1000006"):
    a_trace_has_words(seed)
what_is_cut_is_cut()
