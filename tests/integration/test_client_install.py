# SPDX-License-Identifier: BSD-2-Clause
"""libhostpool as a user has it: installed, found by pkg-config, built against."""
import os
import pathlib
import subprocess

import procs
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
TESTS = ["tasks", "many", "waiting", "blobs", "large", "map", "chunks", "chunks_that_fail",
         "async", "output", "fork", "operators", "unreachable"]


def run(argv, **more):
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          check=False, **more)
    assert done.returncode == 0, f"{argv}: {done.returncode}\n{done.stdout}"
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The library installed below a folder; its programs are built there."""
    folder = tmp_path_factory.mktemp("install")
    run(["meson", "install", "-C", str(procs.BUILD), "--no-rebuild", "--destdir",
         str(folder / "dest")])
    found = list((folder / "dest").rglob("hostpool.pc"))
    assert len(found) == 1, found
    env = dict(os.environ, PKG_CONFIG_PATH=str(found[0].parent),
               PKG_CONFIG_SYSROOT_DIR=str(folder / "dest"))
    flags = run(["pkg-config", "--cflags", "--libs", "hostpool"], env=env).split()
    libdir = found[0].parent.parent
    for source in [ROOT / "client/examples/squares.c", ROOT / "client/examples/pool.c",
                   ROOT / "tests/integration/client_api.c"]:
        run(["cc", "-std=gnu17", "-Wall", "-Wextra", "-Werror", str(source), "-o",
             str(folder / source.stem), *flags, f"-Wl,-rpath,{libdir}"])
    return folder


@pytest.fixture
def environment(broker, worker_factory):
    worker_factory(module=True, slots=2)
    return dict(os.environ, HOSTPOOL_HOST=broker.address)


def test_library(installed):
    """The soname is right, and only what the header declares is visible."""
    lib = next((installed / "dest").rglob("libhostpool.so.0"))
    assert "libhostpool.so.0" in run(["readelf", "-d", str(lib)])
    names = [line.split()[-1].split("@")[0]
             for line in run(["nm", "-D", "--defined-only", str(lib)]).splitlines()]
    names.remove("HOSTPOOL_0")
    headers = "".join(path.read_text() for path in (ROOT / "client/include").glob("*.h"))
    assert names and all(f" {name}(" in headers or f"*{name}(" in headers for name in names)
    declared = {line.split("(")[0].split()[-1].lstrip("*") for line in headers.splitlines()
                if line.startswith("HP_API ")}
    assert declared == set(names)
    assert "libhostpool.so.0" in run(["readelf", "-d", str(installed / "squares")])


def test_squares(installed, environment):
    assert run([str(installed / "squares"), "1000"], env=environment, timeout=120) == "333833500\n"


@pytest.mark.parametrize("name", TESTS)
def test_api(installed, environment, name):
    run([str(installed / "client_api"), name], env=environment, timeout=240)


@pytest.mark.parametrize("name", ["blobs", "large"])
def test_api_far(installed, environment, name):
    """The same, as from another host."""
    run([str(installed / "client_api"), name], env=dict(environment, HOSTPOOL_NEAR="0"),
        timeout=240)


def test_broker_killed(installed, environment, broker):
    """The broker dies in the middle of a map, twice, and the map does not notice."""
    with subprocess.Popen([str(installed / "client_api"), "restart"], env=environment,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as child:
        assert child.stdout.readline() == "ready\n"
        for _ in range(2):
            broker.kill()
            broker.start()
        output, _ = child.communicate(timeout=240)
        assert child.returncode == 0, output
