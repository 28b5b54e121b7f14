# SPDX-License-Identifier: BSD-2-Clause
"""A scratch copy of the source with a build of its own: bugs are planted in it, tests run."""
import filecmp
import json
import os
import pathlib
import resource
import shutil
import subprocess
import sys
import time

import supervise

SUPERVISE = str(pathlib.Path(supervise.__file__).resolve())
MEMORY_MAX = 8 << 30
NEEDS_PYTHON = "pytest tests/python/"


class BuildFailed(Exception):
    pass


def source_files(root):
    """The files of the tree, as git sees them, or all but build folders."""
    listed = subprocess.run(["git", "-C", root, "ls-files", "-co", "--exclude-standard", "-z"],
                            capture_output=True, check=False)
    if listed.returncode == 0 and listed.stdout:
        names = [os.fsdecode(name) for name in listed.stdout.split(b"\0") if name]
        return [name for name in names if os.path.isfile(os.path.join(root, name))]
    found = []
    for folder, folders, names in os.walk(root):
        here = os.path.relpath(folder, root)
        folders[:] = [name for name in folders
                      if name != ".git" and not (here == "." and name.startswith("build"))]
        found += [os.path.normpath(os.path.join(here, name)) for name in names]
    return found


def copy(source, target):
    """With its time, which ninja goes by; what was there before and differs is as new as now."""
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if not os.path.exists(target):
        shutil.copy2(source, target, follow_symlinks=False)
    elif not filecmp.cmp(source, target, shallow=False):
        shutil.copyfile(source, target)


class Tree:
    """One scratch tree: its source, its build folder, the tests it can run."""

    def __init__(self, root, folder, log):
        self.root = str(root)
        self.source = os.path.join(folder, "source")
        self.build = os.path.join(self.source, "build")
        self.log = log
        self.jobs = 2
        self.seconds = {}  # catcher -> what it takes without a bug
        for name in source_files(self.root):
            copy(os.path.join(self.root, name), os.path.join(self.source, name))

    # -------------------------------------------------------------- builds
    def set_up(self, options, python):
        """A build of its own, from nothing; ccache makes it cheap."""
        env = dict(os.environ)
        if shutil.which("ccache") and "CC" not in env:
            env["CC"] = "ccache gcc"
        command = ["meson", "setup", self.build, self.source, "-Dtests=true", "-Ddocs=false",
                   "-Dbuildtype=debug", f"-Dpython={'enabled' if python else 'disabled'}"]
        self.logged(command + options, env)
        self.ninja(["build.ninja"])  # a folder that was there already may be of an older tree
        self.read_targets()

    def take(self, build, targets):
        """A copy of what exists of the targets in a build folder beside the source."""
        wanted = set(targets)
        listed = subprocess.run(["ninja", "-C", build, "-t", "inputs", *targets], check=True,
                                capture_output=True, text=True).stdout.splitlines()
        wanted.update(name for name in listed if not name.startswith("../"))
        # What meson writes itself is no target of ninja's.
        wanted.update(str(path.relative_to(build)) for path in pathlib.Path(build).rglob("*.h"))
        for name in wanted:
            if os.path.isfile(os.path.join(build, name)):
                copy(os.path.join(build, name), os.path.join(self.build, name))
        for name in ("build.ninja", ".ninja_log", ".ninja_deps"):
            copy(os.path.join(build, name), os.path.join(self.build, name))
        for name in ("meson-info", "meson-private", "meson-logs"):
            shutil.copytree(os.path.join(build, name), os.path.join(self.build, name),
                            dirs_exist_ok=True)
        self.read_targets(build)

    def read_targets(self, origin=None):
        """Tests and programs; paths of the build that was copied become those of the copy."""
        def load(name):
            text = pathlib.Path(self.build, "meson-info", name).read_text(encoding="utf-8")
            if origin is not None:
                text = text.replace(json.dumps(str(origin))[1:-1], self.build)
                text = text.replace(json.dumps(self.root)[1:-1] + "/", self.source + "/")
            return json.loads(text)
        self.tests = {test["name"]: test for test in load("intro-tests.json")}
        targets = load("intro-targets.json")
        self.by_id = {target["id"]: os.path.relpath(target["filename"][0], self.build)
                      for target in targets}
        self.modules = [name for name in self.by_id.values() if name.startswith("worker/sdk/")]
        kinds = ("executable", "shared library", "shared module", "custom")
        self.programs = [name for target in targets
                         for name in [os.path.relpath(target["filename"][0], self.build)]
                         if target["type"] in kinds and target["build_by_default"] and
                         not name.startswith(("tests/", "bench/", "worker/sdk/hp_test"))]
        self.programs += [name for name in self.by_id.values() if name.startswith("tests/field/")]

    def ninja(self, targets):
        self.logged(["ninja", "-C", self.build, "-j", str(self.jobs), *targets], None)

    def logged(self, command, env):
        self.log.write(f"$ {' '.join(command)}\n")
        self.log.flush()
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=self.log,
                              stderr=subprocess.STDOUT, env=env, check=False)
        if done.returncode != 0:
            raise BuildFailed(" ".join(command[:2]))

    # -------------------------------------------------------------- planting
    def path(self, name):
        return pathlib.Path(self.source, name)

    def plant(self, name, text):
        """Writes the file; gives back what it held."""
        path = self.path(name)
        old = path.read_text(encoding="utf-8")
        path.write_text(text, encoding="utf-8")
        return old

    # -------------------------------------------------------------- tests
    def knows(self, catcher):
        kind, _, rest = catcher.partition(" ")
        if kind == "sim":
            return "seeds" in self.tests
        if kind in ("pytest", "run"):
            return self.path(rest.split("::")[0].split(" ")[0]).exists()
        return catcher in self.tests

    def command(self, catcher):
        """What to build for a catcher, how to run it, and how long that may take."""
        kind, _, rest = catcher.partition(" ")
        env = dict(os.environ, PYTHONDONTWRITEBYTECODE="1", HP_BUILD=self.build)
        env.pop("PYTHONPATH", None)
        if kind == "sim":
            test = self.tests["seeds"]
            command = [test["cmd"][0], "--seeds", rest]
            return [self.target(test)], command, dict(env, **test["env"]), 300
        if kind == "pytest":
            command = ["/usr/bin/python3", "-m", "pytest", "-p", "no:cacheprovider", "-q", "-x",
                       "--timeout", "100", *rest.split(" ")]
            return self.programs, command, env, 300
        if kind == "run":
            words = [word.replace("{build}", self.build) for word in rest.split(" ")]
            words[0] = str(self.path(words[0]))
            return self.programs, words, env, 600
        test = self.tests[catcher]
        targets = [self.by_id[name] for name in test["depends"]]
        if self.target(test) not in targets:
            targets.append(self.target(test))
        if catcher.startswith("exec_"):
            targets += self.modules  # loaded by path: the build does not know
        targets = [name for name in targets if not name.startswith("..") and name != "."]
        return targets, test["cmd"], dict(env, **test["env"]), max(60, min(test["timeout"], 300))

    def target(self, test):
        for word in test["cmd"]:
            name = os.path.relpath(word, self.build)
            if name in self.by_id.values():
                return name
        return "."

    def run(self, catcher):
        """Whether the catcher's test passes now, how it failed otherwise, and the seconds."""
        targets, command, env, limit = self.command(catcher)
        if catcher in self.seconds:
            limit = min(limit, 20 + 10 * self.seconds[catcher])
        if targets:
            self.ninja(targets)
        self.log.write(f"$ {' '.join(command)}\n")
        self.log.flush()
        begin = time.monotonic()
        child = subprocess.Popen([sys.executable, SUPERVISE, *command], cwd=self.source, env=env,
                                 stdin=subprocess.DEVNULL, stdout=self.log,
                                 stderr=subprocess.STDOUT, preexec_fn=self.limits)
        try:
            status = child.wait(limit)
            how = "" if status == 0 else "died" if status == supervise.DIED else "failed"
        except subprocess.TimeoutExpired:
            how = "hung"
            child.terminate()
            child.wait()
        return how, time.monotonic() - begin

    @staticmethod
    def limits():
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if "ASAN_OPTIONS" not in os.environ:
            resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_MAX, MEMORY_MAX))
