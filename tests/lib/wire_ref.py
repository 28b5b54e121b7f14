# SPDX-License-Identifier: BSD-2-Clause
"""A second MessagePack and MessagePack-RPC, written by hand from the specification.

It shares nothing with the C code or with gen.py, so a mistake that errs in both directions there
(an encoder and a decoder that agree with each other only) shows up against it. Standard
library only.

pack() writes the shortest form of everything. unpack() takes any form, refuses what hostpool
refuses (extension types, NaN, 0xc1, bytes left over) and keeps str and bin apart as str and bytes.
"""

import math
import socket
import struct

REQUEST, RESPONSE, NOTIFY = 0, 1, 2


class WireError(ValueError):
    """Bytes that are not what they should be."""


class NeedMore(WireError):
    """The bytes end in the middle of a value."""


# --------------------------------------------------------------------------------------- writing


def _pack_int(value):
    if 0 <= value < 0x80 or -0x20 <= value < 0:
        return struct.pack(">b" if value < 0 else ">B", value)
    forms = (
        (0, 0xFF, b"\xcc", ">B"),
        (0, 0xFFFF, b"\xcd", ">H"),
        (0, 0xFFFFFFFF, b"\xce", ">I"),
        (0, 2**64 - 1, b"\xcf", ">Q"),
        (-0x80, -1, b"\xd0", ">b"),
        (-0x8000, -1, b"\xd1", ">h"),
        (-0x80000000, -1, b"\xd2", ">i"),
        (-(2**63), -1, b"\xd3", ">q"),
    )
    for low, high, head, form in forms:
        if low <= value <= high:
            return head + struct.pack(form, value)
    raise WireError(f"{value} does not fit in 64 bits")


def _pack_head(count, fix, fix_max, heads):
    """Header with a count: `heads` are the first bytes for counts of 8, 16 and 32 bits."""
    if count <= fix_max:
        return bytes([fix | count])
    for head, form, most in zip(heads, (">B", ">H", ">I"), (0xFF, 0xFFFF, 0xFFFFFFFF)):
        if head is not None and count <= most:
            return bytes([head]) + struct.pack(form, count)
    raise WireError(f"{count} is too many")


def pack(value):
    """The shortest encoding of None, bool, int, float, str, bytes, list, tuple or dict."""
    if value is None:
        return b"\xc0"
    if isinstance(value, bool):
        return b"\xc3" if value else b"\xc2"
    if isinstance(value, int):
        return _pack_int(value)
    if isinstance(value, float):
        return b"\xcb" + struct.pack(">d", value)
    if isinstance(value, str):
        data = value.encode("utf-8", "surrogateescape")  # so that tests can send bad text
        return _pack_head(len(data), 0xA0, 31, (0xD9, 0xDA, 0xDB)) + data
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _pack_head(len(value), 0, -1, (0xC4, 0xC5, 0xC6)) + bytes(value)
    if isinstance(value, (list, tuple)):
        return _pack_head(len(value), 0x90, 15, (None, 0xDC, 0xDD)) + b"".join(map(pack, value))
    if isinstance(value, dict):
        body = b"".join(pack(k) + pack(v) for k, v in value.items())
        return _pack_head(len(value), 0x80, 15, (None, 0xDE, 0xDF)) + body
    raise WireError(f"{type(value).__name__} can not be sent")


# --------------------------------------------------------------------------------------- reading


class _Reader:
    def __init__(self, data):
        self.data = bytes(data)
        self.at = 0

    def take(self, size):
        if self.at + size > len(self.data):
            raise NeedMore(f"{size} bytes wanted at {self.at} of {len(self.data)}")
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, form):
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def text(self, size):
        try:
            return self.take(size).decode("utf-8")
        except UnicodeDecodeError as error:
            raise WireError(f"a str is not UTF-8: {error}") from error

    def array(self, count):
        return [self.value() for _ in range(count)]

    def map(self, count):
        result = {}
        for _ in range(count):
            key = self.value()
            if isinstance(key, (list, dict)) or key in result:
                raise WireError(f"the key {key!r} is given twice, or is no key")
            result[key] = self.value()
        return result

    def real(self, form):
        value = self.number(form)
        if math.isnan(value):
            raise WireError("NaN")
        return value

    def value(self):
        head = self.take(1)[0]
        if head < 0x80:
            return head
        if head >= 0xE0:
            return head - 0x100
        if head < 0x90:
            return self.map(head & 0x0F)
        if head < 0xA0:
            return self.array(head & 0x0F)
        if head < 0xC0:
            return self.text(head & 0x1F)
        return self.wide(head)

    def wide(self, head):
        constants = {0xC0: None, 0xC2: False, 0xC3: True}
        numbers = {
            0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q",
            0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q",
        }  # fmt: skip
        sized = {
            0xC4: (self.take, ">B"), 0xC5: (self.take, ">H"), 0xC6: (self.take, ">I"),
            0xD9: (self.text, ">B"), 0xDA: (self.text, ">H"), 0xDB: (self.text, ">I"),
            0xDC: (self.array, ">H"), 0xDD: (self.array, ">I"),
            0xDE: (self.map, ">H"), 0xDF: (self.map, ">I"),
        }  # fmt: skip
        if head in constants:
            return constants[head]
        if head in numbers:
            return self.number(numbers[head])
        if head in sized:
            read, form = sized[head]
            return read(self.number(form))
        if head in (0xCA, 0xCB):
            return self.real(">f" if head == 0xCA else ">d")
        raise WireError(f"the byte {head:#x} is not allowed")


def unpack_first(data):
    """(value, size) of the first value in `data`; NeedMore if it is not whole."""
    reader = _Reader(data)
    return reader.value(), reader.at


def unpack(data):
    """The one value that `data` is."""
    value, size = unpack_first(data)
    if size != len(data):
        raise WireError(f"{len(data) - size} bytes follow the value")
    return value


# -------------------------------------------------------------------------------------------- rpc


class RpcError(Exception):
    """An error reply: code, text, retry_after_ms (None if not given)."""

    def __init__(self, code, text, retry_after_ms=None):
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text
        self.retry_after_ms = retry_after_ms


def request(msgid, method, params):
    return pack([REQUEST, msgid, method, [params]])


def notify(method, params):
    return pack([NOTIFY, method, [params]])


def reply(msgid, result):
    return pack([RESPONSE, msgid, None, result])


def error_of(value):
    """The RpcError of the error element of a response."""
    if isinstance(value, dict):
        return RpcError(value["code"], value["text"], value.get("retry_after_ms"))
    code, _, text = value.partition(": ")
    return RpcError(code, text)


class Client:
    """A blocking client for tests: call(), notify(), events()."""

    def __init__(self, address, timeout_s=30):
        self.socket = socket.create_connection(address, timeout=timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = b""
        self.msgid = 0
        self.notifications = []
        self.recorded = []  # (direction, frame), for checks against the definition

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def send(self, frame):
        self.recorded.append(("out", unpack(frame)))
        self.socket.sendall(frame)

    def read_frame(self):
        while True:
            try:
                frame, size = unpack_first(self.received)
            except NeedMore:
                data = self.socket.recv(65536)
                if not data:
                    raise ConnectionError("the peer closed the connection") from None
                self.received += data
                continue
            self.received = self.received[size:]
            self.recorded.append(("in", frame))
            return frame

    def begin(self, method, **params):
        """Send a request; returns its id."""
        self.msgid += 1
        self.send(request(self.msgid, method, params))
        return self.msgid

    def finish(self, msgid):
        """The result of a request; notifications that come before are kept."""
        while True:
            frame = self.read_frame()
            if frame[0] == NOTIFY:
                self.notifications.append((frame[1], frame[2][0]))
            elif frame[0] == RESPONSE and frame[1] == msgid:
                if frame[2] is not None:
                    raise error_of(frame[2])
                return frame[3]
            else:
                raise WireError(f"a frame that nobody asked for: {frame!r}")

    def call(self, method, **params):
        return self.finish(self.begin(method, **params))

    def notify(self, method, **params):
        self.send(notify(method, params))

    def next_notification(self):
        """(method, params) of the next notification."""
        while not self.notifications:
            frame = self.read_frame()
            if frame[0] != NOTIFY:
                raise WireError(f"not a notification: {frame!r}")
            self.notifications.append((frame[1], frame[2][0]))
        return self.notifications.pop(0)
