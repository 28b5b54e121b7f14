# SPDX-License-Identifier: BSD-2-Clause
"""What broker.check says may hold names of files: no bytes in them may harm the broker."""
import os

import pytest

import procs


@pytest.mark.parametrize("name", [b"\xff\xfe", b"a" * 150 + "\u00e4".encode() * 40,
                                  b"b" * 151 + "\u00e4".encode() * 40])
def test_folder_with_any_name(tmp_path, processes, client_factory, name):
    folder = tmp_path / os.fsdecode(name)
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system does not take such names")
    broker = procs.Broker(folder)
    processes.append(broker)
    client = client_factory(broker)
    client.call("task.submit", options={"kind": 1, "argv": ["cat"]}, payloads=[b""], blobs=[7])
    checked = client.call("broker.check")
    assert not checked["ok"] and "blob 7" in checked["lines"][0]
    assert broker.stop() == 0
