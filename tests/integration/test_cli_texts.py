# SPDX-License-Identifier: BSD-2-Clause
"""Texts of hostpool: tests/golden/cli and docs/cli.md. HP_GOLDEN_UPDATE=1 writes them anew."""
import os
import pathlib
import shutil
import subprocess

import pytest

import cli as lib
import procs

GOLDEN = procs.ROOT / "tests" / "golden" / "cli"
UPDATE = os.environ.get("HP_GOLDEN_UPDATE")

# One broker address for all, on which nobody listens.
HOST = "127.0.0.1:1"

ERRORS = [
    [], ["subimt", "--", "true"], ["queue"], ["queue", "pasue", "x"], ["worker", "lss"],
    ["ls", "--joson"],
    ["run", "--qeue", "x", "--", "true"], ["ls", "-Z"], ["ls", "--jobs", "3"],
    ["--jobs", "3", "ls"],
    ["submit", "--cpus", "9999", "--", "x"], ["submit", "--cpus", "x", "--", "x"],
    ["submit", "--timeout", "5", "--", "x"], ["submit", "--mem", "5Q", "--", "x"],
    ["submit", "--at", "noon", "--", "x"], ["submit", "--on-conflict", "jion", "--", "x"],
    ["submit", "--queue"], ["submit"], ["submit", "--env", "=x", "--", "true"],
    ["run", "--wait=1", "--", "x"],
    ["wait"], ["show", "abc"], ["show", "5-1"], ["cancel", "--signal", "FOO", "1"],
    ["cancel", "1-5:0"],
    ["queue", "show", "a", "b"], ["completion", "bsh"], ["help", "exit-cods"], ["help", "quue"],
    ["map", "--halt", "now", "--", "x", ":::", "1"], ["map", "--", "x", ":::", "1", ":::", "2"],
    ["map", "--resume", "--", "x", ":::", "1"], ["ls", "stat=x"], ["ls", "state=x"],
    ["ls", "-o", "nmae"],
    ["ls"], ["submit", "--", "true"], ["run", "--", "true"], ["wait", "1"], ["broker", "ping"],
    ["--token-file", "/no/such/file", "ls"], ["--host", "127.0.0.1:99999", "ls"],
]

TOPICS = ["exit-codes", "selectors", "filters", "formats", "environment"]


def verbs():
    made = lib.Cli(HOST)
    names = []
    for line in made.ok("help").splitlines():
        words = line[2:19].split()
        if line[:2] == "  " and line[2] not in " -" and words[0] not in TOPICS:
            names.append(words)
    return names


def compare(name, text):
    path = GOLDEN / name
    if UPDATE:
        path.write_text(text)
    assert path.exists(), f"{path} is missing: HP_GOLDEN_UPDATE=1"
    assert text == path.read_text(), f"{path} differs: look at it, then HP_GOLDEN_UPDATE=1"


def test_help_texts():
    made = lib.Cli(HOST)
    names = verbs()
    assert len(names) >= 26
    compare("help.txt", made.ok("help"))
    for words in names:
        text = made.ok("help", *words)
        if words != ["help"]:
            assert text == made.ok(*words, "--help") == made.ok(*words, "-h")
        assert max(map(len, text.splitlines())) <= 88, words
        compare(f"help-{'-'.join(words)}.txt", text)
    for topic in [*TOPICS, "queue", "worker", "broker"]:
        compare(f"help-{topic}.txt", made.ok("help", topic))


def test_errors():
    made = lib.Cli(HOST)
    parts = []
    for words in ERRORS:
        done = made(*words)
        assert done.out == "" and done.err.startswith("hostpool: "), (words, done)
        parts.append(f"$ hostpool {' '.join(words)}\n{done.err}exit {done.code}\n")
    compare("errors.txt", "\n".join(parts))


def test_docs_are_what_the_table_says():
    text = lib.Cli(HOST).ok("help", "--markdown")
    path = procs.ROOT / "docs" / "cli.md"
    if UPDATE:
        path.write_text(text)
    assert text == path.read_text(), "docs/cli.md: HP_GOLDEN_UPDATE=1 makes it anew"


def complete(made, *words):
    out = made.ok("help", "--complete", "--", *words)
    return [line.split("\t")[0] for line in out.splitlines()]


def test_completion_engine():
    made = lib.Cli(HOST)
    assert complete(made, "sub") == ["submit"]
    assert complete(made, "queue", "p") == ["pause"]
    assert "queue" in complete(made, "q")
    assert complete(made, "submit", "--qu") == ["--quiet", "--queue"]
    assert complete(made, "cancel", "--mode", "") == ["force", "soft", "queued"]
    assert complete(made, "ls", "state=fa") == ["state=failed"]
    assert complete(made, "run", "--", "") == [":command"]
    assert complete(made, "run", "-n", "x", "c") == [":command"]
    assert complete(made, "submit", "--stdin", "") == [":file"]
    assert complete(made, "submit", "--cwd", "") == [":dir"]
    assert complete(made, "completion", "") == ["bash", "fish", "zsh"]
    assert "selectors" in complete(made, "help", "s")
    assert complete(made, "nonsense", "") == []


def test_completion_asks_the_broker(broker):
    made = lib.Cli(broker.address)
    made.ok("queue", "pause", "gpu")
    assert complete(made, "queue", "resume", "g") == ["gpu"]
    assert complete(made, "submit", "-Q", "g") == ["gpu"]
    task = made.ok("submit", "--", "true").strip()
    assert task in complete(made, "show", "")
    assert "last" in complete(made, "show", "l")


def test_bash_completion():
    made = lib.Cli(HOST)
    folder = str(pathlib.Path(procs.program("hostpool")).parent)
    script = """
source <(hostpool completion bash)
try() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _hostpool; echo "${COMPREPLY[*]}"; }
try hostpool sub
try hostpool cancel --mode s
try hostpool ls state = fai
"""
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60,
                          env={**made.env, "PATH": f"{folder}:{os.environ['PATH']}"})
    assert done.stdout.split("\n") == ["submit", "soft", "failed", ""], done


@pytest.mark.parametrize("shell,check",
                         [("zsh", ["zsh", "-n"]), ("fish", ["fish", "--no-execute"])])
def test_other_scripts_parse(shell, check, tmp_path):
    path = tmp_path / shell
    path.write_text(lib.Cli(HOST).ok("completion", shell))
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    assert subprocess.run([*check, path], timeout=60).returncode == 0


def test_manual_pages():
    made = lib.Cli(HOST)
    pages = ["hostpool"] + ["hostpool-" + "-".join(words) for words in verbs()]
    for page in pages:
        source = made.ok("help", "--man", page)
        assert source.startswith(f"{page}(1)\n")
        if shutil.which("scdoc"):
            done = subprocess.run(["scdoc"], input=source, capture_output=True, text=True,
                                  timeout=60)
            assert done.returncode == 0, (page, done.stderr)
            assert f".TH \"{page}\" \"1\"" in done.stdout
    built = [path.name for path in (procs.BUILD / "cli").glob("*.1")]
    if built:
        # man_verbs in cli/meson.build
        assert sorted(built) == sorted(page + ".1" for page in pages)


def test_version():
    assert lib.Cli(HOST).ok("--version").startswith("hostpool ")
