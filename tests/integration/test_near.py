# SPDX-License-Identifier: BSD-2-Clause
"""Content by descriptor on one host, as a client that was written from the protocol's page does it;
and peers that give what they should not."""
import fcntl
import os
import struct

import pytest

import rpc

F_ADD_SEALS, F_GET_SEALS, SEALS = 1033, 1034, 0x1 | 0x2 | 0x4 | 0x8
MFD_CLOEXEC, MFD_ALLOW_SEALING = 1, 2
SIZE = 3 * 1024 * 1024 + 17


def content(size=SIZE):
    return os.urandom(4096) * (size // 4096) + b"e" * (size % 4096)


def memory(data, key=b"", seal=True):
    """A memory file with the data and the key, sealed."""
    fd = os.memfd_create("tests", MFD_CLOEXEC | MFD_ALLOW_SEALING)
    os.write(fd, data + key)
    if seal:
        fcntl.fcntl(fd, F_ADD_SEALS, SEALS)
    return fd


def give(client, file, size, **fields):
    facts = os.fstat(file)
    place = {"pid": os.getpid(), "fd": file, "device": facts.st_dev, "inode": facts.st_ino}
    return client.call("blob.give", **{"size": size, **place, **fields})


def given(client, key, data, durable):
    fd = memory(data, key)
    try:
        return give(client, fd, len(data), durable=durable)["blob"]
    finally:
        os.close(fd)  # the broker has its own, or a copy


def lent(client, blob):
    """The bytes of a loan, and the loan."""
    loan = client.call("blob.lend", blob=blob)
    with open(f"/proc/{loan['pid']}/fd/{loan['fd']}", "rb") as file:
        facts = os.fstat(file.fileno())
        assert (facts.st_dev, facts.st_ino) == (loan["device"], loan["inode"])
        return file.read(loan["size"]), loan


def got(client, blob):
    data = b""
    while True:
        reply = client.call("blob.get", blob=blob, offset=len(data), size=1 << 18)
        data += reply["data"]
        if len(data) == reply["size"]:
            return data, reply


@pytest.fixture
def near(broker, client_factory):
    """A greeted client on the broker's host, and its key."""
    client = client_factory(broker, hello=False)
    hello = client.hello(near=True)
    with open(f"/proc/{hello['near_pid']}/fd/{hello['near_fd']}", "rb") as file:
        assert file.read() == hello["near_proof"] and len(hello["near_proof"]) == 16
        seals = struct.unpack("i", struct.pack("i", fcntl.fcntl(file, F_GET_SEALS)))[0]
        assert seals & SEALS == SEALS
    assert hello["near_pid"] == broker.pid
    return client, hello["near_key"]


@pytest.mark.parametrize("durable", [True, False])
def test_given_is_lent_and_got(near, durable):
    client, key = near
    data = content()
    blob = given(client, key, data, durable)
    back, loan = lent(client, blob)
    assert back == data
    assert "digest" not in loan  # a file as well, but its memory is at hand still
    assert got(client, blob)[0] == data
    again, second = lent(client, blob)
    assert again == data and second["fd"] == loan["fd"]


def test_durable_gift_outlives_the_broker(near, broker, client_factory):
    client, key = near
    data = content()
    blob = given(client, key, data, True)
    broker.kill()
    broker.start()
    client = client_factory(broker, hello=False)
    client.hello(near=True)
    far, reply = got(client, blob)
    back, loan = lent(client, blob)
    assert far == back == data
    assert reply["digest"] == loan["digest"]


def test_what_was_put_is_lent(near):
    client, _ = near
    data = content(300000)
    blob = client.call("blob.open", size=len(data))["blob"]
    for at in range(0, len(data), 1 << 18):
        client.call("blob.put", blob=blob, offset=at, data=data[at:at + (1 << 18)])
    assert lent(client, blob)[0] == data


def test_what_is_in_no_descriptor_is_not_lent(near):
    client, _ = near
    blob = client.call("blob.open", size=5, durable=False)["blob"]
    client.call("blob.put", blob=blob, offset=0, data=b"hello")
    with pytest.raises(rpc.RpcError) as error:
        client.call("blob.lend", blob=blob)
    assert error.value.code == "unsupported"
    for blob in (4711, blob + 1):
        with pytest.raises(rpc.RpcError) as error:
            client.call("blob.lend", blob=blob)
        assert error.value.code == "not_found"


def test_many_at_once(near):
    """The answers come as they are ready, each for its blob."""
    client, key = near
    files, waiting = [], {}
    for i in range(40):
        data = bytes([i]) * (300000 + i)
        fd = memory(data, key)
        facts = os.fstat(fd)
        files.append(fd)
        waiting[client.send("blob.give", size=len(data), durable=i % 2 == 0, pid=os.getpid(), fd=fd,
                            device=facts.st_dev, inode=facts.st_ino)] = data
    for message, data in waiting.items():
        assert lent(client, client.reply(message)["blob"])[0] == data
    for fd in files:
        os.close(fd)


def expect_unsupported(client, file, size, **fields):
    for durable in (True, False):
        with pytest.raises(rpc.RpcError) as error:
            give(client, file, size, durable=durable, **fields)
        assert error.value.code == "unsupported", error.value


def test_hostile_gifts(near, tmp_path, client_factory, broker):
    """Whatever the place is, it is refused, and the broker serves on."""
    client, key = near
    data = content(400000)
    good = memory(data, key)
    path = tmp_path / "file"
    path.write_bytes(data + key)
    disk = os.open(path, os.O_RDWR)
    os.mkfifo(tmp_path / "fifo")
    fifo = os.open(tmp_path / "fifo", os.O_RDWR)
    other = client_factory(broker, hello=False).hello(near=True)["near_key"]
    assert other != key
    files = {
        "regular file of the disk": disk,
        "fifo": fifo,
        "socket": client.socket.fileno(),
        "folder": os.open(tmp_path, os.O_RDONLY),
        "device file": os.open("/dev/zero", os.O_RDONLY),
        "unsealed": memory(data, key, seal=False),
        "key of another connection": memory(data, other),
        "no key": memory(data),
    }
    for fd in files.values():
        expect_unsupported(client, fd, len(data))
        expect_unsupported(client, fd, len(data), device=os.fstat(good).st_dev)
    inode = os.fstat(good).st_ino
    expect_unsupported(client, good, len(data), inode=inode + 1)
    expect_unsupported(client, good, len(data), device=os.fstat(good).st_dev + 1)
    expect_unsupported(client, good, len(data), pid=2**31 - 1)
    expect_unsupported(client, good, len(data), pid=2**32 - 1)
    expect_unsupported(client, good, len(data), pid=1)  # as a peer in another namespace sees itself
    expect_unsupported(client, good, len(data), pid=broker.pid)
    expect_unsupported(client, good, len(data), fd=2**32 - 1)
    expect_unsupported(client, good, len(data) + 1)
    expect_unsupported(client, good, len(data) - 1)
    expect_unsupported(client, good, 1 << 27)
    for wrong in ({"size": 0}, {"size": (1 << 30) + 1}, {"pid": 0}, {"pid": 2**32}, {"fd": -1}):
        with pytest.raises(rpc.RpcError) as error:
            give(client, good, **{"size": len(data), **wrong})
        assert error.value.code == "bad_request"
    blob = give(client, good, len(data))["blob"]
    assert lent(client, blob)[0] == data
    for fd in [good, *(fd for name, fd in files.items() if name != "socket")]:
        os.close(fd)


def test_near_unasked(broker, client_factory):
    """Who does not ask is offered nothing: some clients can not even hold such bytes."""
    client = client_factory(broker, hello=False)
    assert not [name for name in client.hello() if name.startswith("near")]
    fd = memory(b"x" * 300000, bytes(16))
    expect_unsupported(client, fd, 300000)
    os.close(fd)


def test_near_off(broker_factory, client_factory):
    broker = broker_factory("--near=no")
    client = client_factory(broker, hello=False)
    assert not [name for name in client.hello(near=True) if name.startswith("near")]
    fd = memory(b"x" * 300000, bytes(16))
    expect_unsupported(client, fd, 300000)
    with pytest.raises(rpc.RpcError) as error:
        client.call("blob.lend", blob=1)
    assert error.value.code == "unsupported"
    os.close(fd)
