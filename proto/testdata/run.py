#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Golden tests of proto/gen.py.

small.toml and small-states.toml must give the files in golden/; with --update they are rewritten.
Each bad-*.toml must be refused with the text in its first line ("# error: ..."), exactly; a
bad-states-*.toml is given as the state definition.
"""

import difflib
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
GEN = HERE.parent / "gen.py"


def run_gen(definition, states, *args):
    command = [sys.executable, GEN, "--definition", definition, "--states", states, *args]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def check_golden(update):
    """Problems found with the outputs of the small definition."""
    problems = []
    golden = HERE / "golden"
    with tempfile.TemporaryDirectory() as folder:
        made = run_gen(HERE / "small.toml", HERE / "small-states.toml", "--all", folder)
        if made.returncode != 0:
            return [f"small.toml is refused: {made.stderr}"]
        names = sorted(p.name for p in pathlib.Path(folder).iterdir())
        if not update and names != sorted(p.name for p in golden.iterdir()):
            problems.append(f"golden/ does not hold exactly {names}")
        for name in names:
            new = (pathlib.Path(folder) / name).read_text(encoding="utf-8")
            path = golden / name
            if update:
                path.parent.mkdir(exist_ok=True)
                path.write_text(new, encoding="utf-8")
                continue
            old = path.read_text(encoding="utf-8") if path.exists() else ""
            if old != new:
                lines = difflib.unified_diff(
                    old.splitlines(), new.splitlines(), f"golden/{name}", "made now", lineterm=""
                )
                problems.append("\n".join(lines))
    return problems


def check_bad():
    """Problems found with the definitions that must be refused."""
    problems = []
    files = sorted(HERE.glob("bad-*.toml"))
    for path in files:
        first = path.read_text(encoding="utf-8").splitlines()[0]
        want = f"gen.py: {first.removeprefix('# error: ')}\n"
        is_states = path.name.startswith("bad-states-")
        definition = HERE / "small.toml" if is_states else path
        states = path if is_states else HERE / "small-states.toml"
        with tempfile.TemporaryDirectory() as folder:
            made = run_gen(definition, states, "--all", folder)
            left = list(pathlib.Path(folder).iterdir())
        if made.returncode != 1 or made.stderr != want or left:
            problems.append(
                f"{path.name}: status {made.returncode}, files left {len(left)}\n"
                f"  want: {want}  got:  {made.stderr}"
            )
    if len(files) < 40:
        problems.append(f"only {len(files)} bad definitions were found")
    return problems


def main():
    update = sys.argv[1:] == ["--update"]
    if sys.argv[1:] and not update:
        print(__doc__)
        return 2
    problems = check_golden(update) + check_bad()
    print("\n".join(problems) or "all as expected")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
