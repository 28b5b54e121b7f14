# SPDX-License-Identifier: BSD-2-Clause
"""Debian packages that peers and plots need: which are missing, and how to get them."""
import importlib.util
import os
import shutil
import subprocess

# What shows that a package is there: a program, or a module of Python.
SIGNS = {
    "beanstalkd": "beanstalkd",
    "gearman-job-server": "gearmand",
    "redis-server": "redis-server",
    "findutils": "xargs",
    "python3-matplotlib": "module:matplotlib",
    "python3-msgpack": "module:msgpack",
}
PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


def program(name):
    """Where a program is, or None."""
    return shutil.which(name, path=PATH)


def is_there(package):
    kind, _, name = SIGNS[package].rpartition(":")
    return importlib.util.find_spec(name) is not None if kind else program(name) is not None


def missing(packages):
    return sorted({package for package in packages if not is_there(package)})


def install_command(packages):
    return ["apt-get", "install", "-y", "--no-install-recommends", *packages]


def explain(packages):
    return (f"not installed: {', '.join(packages)}. As root:\n"
            f"  {' '.join(install_command(packages))}\n"
            "or run bench/setup. (Their services need not run: each measurement starts its own.)")


def install(packages):
    """Installs what is missing. Debian may start their services: see bench/setup."""
    wanted = missing(packages)
    if not wanted:
        return
    become = [] if os.geteuid() == 0 else ["sudo", "-n"]
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run([*become, "apt-get", "update", "-q"], check=True, env=env)
    subprocess.run([*become, *install_command(wanted)], check=True, env=env)
