# SPDX-License-Identifier: BSD-2-Clause
"""The C protocol code against wire_ref.py and against the generated Python tables.

HP_WIRE_TOOL is the program of wire_tool.c. Run by meson (suite unit, test wire_ref) or by pytest.
"""

import importlib.util
import os
import pathlib
import random
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import wire_ref  # noqa: E402


def load_messages():
    path = HERE.parent.parent / "python" / "hostpool" / "_messages.py"
    spec = importlib.util.spec_from_file_location("hostpool_messages", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


messages = load_messages()
GROUPS = [(m, False) for m in messages.MESSAGES] + [
    (m, True) for m, table in messages.MESSAGES.items() if table["kind"] == "call"
]


class Tool:
    def __init__(self, path):
        self.process = subprocess.Popen(
            [path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="ascii"
        )

    def ask(self, *words):
        self.process.stdin.write(" ".join(words) + "\n")
        self.process.stdin.flush()
        status, _, rest = self.process.stdout.readline().rstrip("\n").partition(" ")
        assert status in ("ok", "error"), "the tool died"
        return status, rest

    def map(self, method, is_reply, encoded):
        return self.ask("reply" if is_reply else "params", method, encoded.hex())

    def fixed(self, name):
        status, rest = self.ask("fixed", name)
        assert status == "ok", rest
        return bytes.fromhex(rest)


@pytest.fixture(scope="module")
def tool():
    path = os.environ.get("HP_WIRE_TOOL")
    if not path:
        pytest.skip("HP_WIRE_TOOL is not set")
    tool = Tool(path)
    yield tool
    tool.process.stdin.close()
    assert tool.process.wait(timeout=30) == 0


def fields_of(method, is_reply):
    return messages.MESSAGES[method]["reply" if is_reply else "fields"]


def sample(rng, field, kind):
    if kind == "bool":
        return rng.random() < 0.5
    if kind in ("u32", "u64", "i64"):
        edge = rng.choice([field["min"], field["max"], 0, 1, 127, 128, 65536, 2**32, -1, -33])
        return min(max(edge, field["min"]), field["max"])
    if kind == "enum":
        return rng.choice(list(messages.ENUMS[field["ref"]].values()))
    if kind == "struct":
        return sample_map(rng, messages.STRUCTS[field["ref"]]["fields"])
    size = min(rng.choice([0, 1, 16, 31, 32, 255, 256, 300]), field["max_len"])
    return "x" * size if kind == "str" else rng.randbytes(size)


def sample_map(rng, fields):
    """A valid map, keys in the order of the definition."""
    result = {}
    for field in fields:
        if not field.get("required") and rng.random() < 0.4:
            continue
        if field["type"] == "list":
            count = min(rng.choice([0, 1, 2, 16, 17]), field["max_items"])
            count = min(count, 2) if field["item"] == "struct" else count
            result[field["name"]] = [sample(rng, field, field["item"]) for _ in range(count)]
        else:
            result[field["name"]] = sample(rng, field, field["type"])
    return result


@pytest.mark.parametrize("method,is_reply", GROUPS)
def test_bytes_agree(tool, method, is_reply):
    """C decodes what wire_ref packed and encodes the same bytes; validate() agrees."""
    rng = random.Random(f"{method} {is_reply}")
    for _ in range(30):
        value = sample_map(rng, fields_of(method, is_reply))
        encoded = wire_ref.pack(value)
        status, rest = tool.map(method, is_reply, encoded)
        assert status == "ok", rest
        assert bytes.fromhex(rest) == encoded
        assert wire_ref.unpack(encoded) == value
        messages.validate(method, value, is_reply)
        assert messages.unknown_keys(method, value, is_reply) == []


WRONG = [None, True, -1, 0, 2**63, 2**64 - 1, 1.5, "", "text", "a\0b", b"", b"\xff", [], [[]], {}]
WRONG += ["x" * 300, "x" * 5000, {"id": 1}, {1: 1}, [None], ["x" * 300], [{}], [-1]]


@pytest.mark.parametrize("method,is_reply", GROUPS)
def test_verdicts_agree(tool, method, is_reply):
    """What C refuses validate() refuses with the same words, and the other way round."""
    rng = random.Random(f"wrong {method} {is_reply}")
    for field in fields_of(method, is_reply):
        for wrong in WRONG:
            value = sample_map(rng, fields_of(method, is_reply))
            value[field["name"]] = wrong
            status, text = tool.map(method, is_reply, wire_ref.pack(value))
            try:
                messages.validate(method, value, is_reply)
                python = ("ok", "")
            except messages.InvalidMessage as error:
                python = ("error", str(error))
            assert status == python[0], (value, text, python)
            if status == "error":
                # Up to the word after which C names the type it got.
                assert text.split(", is ")[0] == python[1].split(", is ")[0]


FIXED = {
    "submit": [
        0,
        300,
        "task.submit",
        [
            {
                "number": 2**32,
                "options": {
                    "kind": 1,
                    "argv": ["echo", "ä"],
                    "queue": "night",
                    "at_most_once": True,
                    "on_conflict": 2,
                },
                "payloads": [b"", b"\x00\xff"],
                "blobs": [0, 2**64 - 1],
            }
        ],
    ],
    "done": [
        0,
        0,
        "worker.done",
        [
            {
                "items": [
                    {
                        "id": 70000,
                        "attempt": 2,
                        "epoch": 5,
                        "reason": 11,
                        "end": wire_ref.pack(
                            {"exit_code": -129, "errno": 13, "out_truncated": True}
                        ),
                    }
                ]
            }
        ],
    ],
    "ping_reply": [1, 2**32 - 1, None, {"now_ms": -(2**63)}],
    "output": [
        2,
        "task.output",
        [{"id": 1, "attempt": 1, "stream": 2, "offset": 128, "data": b"oops\n"}],
    ],
    "error_text": [1, 7, "busy: the queue is full (retry after 250 ms)", None],
    "error_map": [
        1, 7, {"code": "busy", "text": "the queue is full", "retry_after_ms": 250}, None,
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", FIXED)
def test_typed_messages(tool, name):
    """Messages built by the typed C functions, against what a person wrote down."""
    frame = tool.fixed(name)
    assert wire_ref.unpack(frame) == FIXED[name]
    assert wire_ref.pack(FIXED[name]) == frame


def test_frames(tool):
    cases = [
        (wire_ref.request(9, "task.get", {}), "request 9 task.get"),
        (wire_ref.notify("task.event", {}), "notify task.event"),
        (wire_ref.reply(2**32 - 1, {}), f"response {2**32 - 1}"),
        (wire_ref.pack([1, 4, "not_found: no task 7", None]), "failure 4 not_found no task 7"),
        (wire_ref.pack([1, 4, {"code": "x", "text": "y"}, None]), "failure 4 x y"),
    ]
    for frame, want in cases:
        assert tool.ask("frame", frame.hex()) == ("ok", want)
    for bad in ([], [0, 1], [3, 1, "a", [{}]], [0, -1, "a", [{}]], [0, 1, "a", [{}, {}]], {}, 5):
        assert tool.ask("frame", wire_ref.pack(bad).hex())[0] == "error"


def test_hostile_frames_agree(tool):
    """Random damage: whatever the C side takes as a whole value wire_ref takes too."""
    rng = random.Random(1)
    taken = 0
    for _ in range(2000):
        data = bytearray(wire_ref.pack([0, 1, "x", [{"a": [1, b"b", None, {"c": "d"}]}]]))
        for _ in range(rng.randrange(4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        status, text = tool.ask("frame", data.hex())
        if status == "ok":
            taken += 1
            try:
                wire_ref.unpack(data)
            except wire_ref.WireError as error:
                # Text and keys are judged later in C, by the decoder.
                assert "UTF-8" in str(error) or "key" in str(error), (data.hex(), text)
    assert taken > 200


if __name__ == "__main__":
    sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", __file__]))
