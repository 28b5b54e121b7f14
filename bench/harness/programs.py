# SPDX-License-Identifier: BSD-2-Clause
"""The programs of the build folder, and what they print."""
import json
import os
import pathlib
import signal
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
SECONDS_MAX = 600
LOADS = ("drive", "peer", "limit_disk", "limit_spawn", "limit_sqlite", "limit_trip")


class Failed(Exception):
    """A program did not do what it was to do; for hostpool that is a wrong result."""


def build_folder():
    return pathlib.Path(os.environ["HP_BUILD"])


def use_build(folder):
    """Sets the build folder for all that follows, tests/lib included, and completes it.

    SIGTERM ends the program in order from now on: what it started must not stay behind."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    folder = folder.resolve()
    if not (folder / "build.ninja").exists():
        raise SystemExit(f"{folder} is no build folder:\n"
                         f"  meson setup {folder} --buildtype=release && ninja -C {folder}")
    os.environ["HP_BUILD"] = str(folder)
    for path in (ROOT / "tests" / "lib", folder / "python"):
        if str(path) not in sys.path:
            sys.path.insert(0, str(path))
    if not all((folder / "bench/programs" / name).exists() for name in LOADS):
        subprocess.run(["ninja", "-C", folder, "bench-programs"], check=True,
                       stdout=subprocess.DEVNULL)


def path_of(name):
    """A load or limit by its name."""
    return str(build_folder() / "bench/programs" / name)


def run_json(argv, env=None, cwd=None):
    """Runs it; its lines of JSON by their "name"."""
    done = subprocess.run([str(word) for word in argv], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, timeout=SECONDS_MAX, check=False,
                          env={**os.environ, **(env or {})}, cwd=cwd)
    if done.returncode != 0:
        raise Failed(f"{' '.join(map(str, argv))}: status {done.returncode}: "
                     f"{(done.stderr + done.stdout)[-600:]}")
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {line["name"]: line for line in lines}


def load(name, *arguments):
    return run_json([path_of(name), *arguments])
