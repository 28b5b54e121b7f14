# SPDX-License-Identifier: BSD-2-Clause
"""Fixtures: broker, workers and clients of one test, all ended with it. Failures show the logs."""
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))

import procs  # noqa: E402
import rpc  # noqa: E402


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.when == "call" and report.failed:
        for process in getattr(item, "hp_processes", []):
            report.sections.append((f"log of {process.name}", process.log()[-6000:]))


@pytest.fixture
def processes(request):
    """The processes of this test; whatever is appended is ended afterwards."""
    request.node.hp_processes = started = []
    yield started
    for process in reversed(started):
        process.end()


@pytest.fixture
def broker_factory(tmp_path, processes):
    """broker_factory(*flags, name=..., env=...) starts a hostpoold and waits until it serves."""
    def start(*flags, **more):
        broker = procs.Broker(tmp_path, *flags, **more)
        processes.append(broker)
        return broker
    return start


@pytest.fixture
def broker(broker_factory):
    return broker_factory()


@pytest.fixture
def worker_factory(tmp_path, processes, request):
    """worker_factory(slots=..., module=True|path, name=..., flags=[...]) for the test's broker."""
    def start(broker=None, **more):
        if broker is None:
            broker = request.getfixturevalue("broker")
        worker = procs.Worker(tmp_path, broker, **more)
        processes.append(worker)
        return worker
    return start


@pytest.fixture
def client_factory(request):
    """client_factory(broker=None, hello=True, **hello_fields) connects and greets."""
    clients = []

    def connect(broker=None, hello=True, **fields):
        if broker is None:
            broker = request.getfixturevalue("broker")
        client = rpc.Client(broker.port)
        clients.append(client)
        if hello:
            client.hello(**fields)
        return client
    yield connect
    for client in clients:
        client.close()


@pytest.fixture
def client(client_factory):
    return client_factory()
