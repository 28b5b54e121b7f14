# SPDX-License-Identifier: BSD-2-Clause
"""Facts about the machine, CPU time of processes, and how quiet the machine was."""
import contextlib
import datetime
import os
import pathlib
import platform
import resource
import subprocess

from harness import programs

TICKS = os.sysconf("SC_CLK_TCK")
NOISY_SHARE = 0.2  # of a CPU that others took


def first_line(argv):
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              timeout=10, check=False)
        return done.stdout.splitlines()[0] if done.returncode == 0 and done.stdout else ""
    return ""


def field(path, name):
    """The value of "name: value" or NAME=value in a file."""
    for line in pathlib.Path(path).read_text(errors="replace").splitlines():
        key, _, value = line.replace("=", ":", 1).partition(":")
        if key.strip() == name:
            return value.strip().strip('"')
    return ""


def file_system(folder):
    """Kind of the file system a folder is on."""
    return first_line(["stat", "-f", "-c", "%T", str(folder)])


def version_of(package):
    return first_line(["dpkg-query", "-W", "-f", "${Version}\n", package])


def facts(folder, packages=()):
    """packages: those of Debian that are measured."""
    build = programs.build_folder()
    return {
        "at": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "cpu": field("/proc/cpuinfo", "model name") or platform.machine(),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_mib": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20,
        "kernel": platform.release(),
        "system": field("/etc/os-release", "PRETTY_NAME"),
        "python": platform.python_version(),
        "file_system": file_system(folder),
        "load": os.getloadavg()[0],
        "hostpool": first_line([str(build / "server/hostpoold"), "--version"]),
        "packages": {package: version_of(package) for package in sorted(packages)},
        "commit": first_line(["git", "-C", str(programs.ROOT), "describe", "--always", "--dirty"]),
    }


def cpu_seconds(pid):
    """User and system time of a process so far, without its children."""
    words = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(words[11]) + int(words[12])) / TICKS


def busy_seconds():
    """Of all CPUs and all programs, since boot; and what the host of a virtual machine took."""
    words = pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()
    user, nice, system, _, _, irq, soft_irq, steal = (int(word) / TICKS for word in words[1:9])
    return user + nice + system + irq + soft_irq, steal


def own_seconds():
    """Of this program and of its children that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


class Quiet:
    """Measures what others took while it was open: others_cpu_s and steal_s."""

    def __enter__(self):
        self.begin = (*busy_seconds(), own_seconds())
        return self

    def __exit__(self, *_):
        busy, steal = busy_seconds()
        own = own_seconds()
        self.others_cpu_s = round(max(busy - self.begin[0] - (own - self.begin[2]), 0), 2)
        self.steal_s = round(steal - self.begin[1], 2)


@contextlib.contextmanager
def one_cpu(wanted=True):
    """This program, and all that it starts meanwhile, on one CPU."""
    cpus = os.sched_getaffinity(0)
    if wanted:
        os.sched_setaffinity(0, {min(cpus)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cpus)
