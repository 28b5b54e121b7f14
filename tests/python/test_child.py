# SPDX-License-Identifier: BSD-2-Clause
"""The loop of a child against a port that is not one, in a process of its own for each test."""
import os
import pathlib
import subprocess
import sys
import textwrap

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))

import procs  # noqa: E402

PREAMBLE = """
import hashlib, os, pickle, signal, sys
from hostpool import _child, _content, _payload

class Port:
    def __init__(self, *calls):
        self.calls, self.ends = list(calls), []

    def next(self):
        if not self.calls:
            return None
        is_init, payload = self.calls.pop(0)
        number = len(self.ends)
        return is_init, payload, 100 + number, 1, 7, number, 55

    def done(self, ok, text, data):
        data = b"".join(bytes(part) for part in data) if isinstance(data, tuple) else bytes(data)
        self.ends.append((ok, text.decode(), data))

def call(function, *args, kind=_payload.APPLY):
    token = pickle.dumps(function)
    head = _payload._HEADER.pack(_payload.VERSION, kind, 4 + len(token)) + token
    data, buffers = _payload.dumps(args if kind == _payload.APPLY else args[0])
    assert not buffers
    return False, head + data

def setup(**more):
    return True, _payload.encode_setup(more)

def run(*calls):
    port = Port(*calls)
    code = _child.loop(port, _content.Content())
    return code, port.ends

def content(source):
    source = source.encode()
    return hashlib.blake2b(source, digest_size=16).digest(), source
"""


def check(program, tmp_path, python=sys.executable):
    path = tmp_path / "program.py"
    path.write_text(PREAMBLE + textwrap.dedent(program) + "\nprint('fine')\n")
    env = {**os.environ, "PYTHONPATH": str(procs.BUILD / "python"),
           "HOSTPOOL_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run([python, str(path)], env=env, capture_output=True, text=True,
                          timeout=60)
    assert done.stdout.endswith("fine\n") and done.returncode == 0, done.stderr + done.stdout


def test_results_and_errors(tmp_path):
    check("""
        code, ends = run(call(abs, -3), call(abs, "x"), call(int, "7"))
        assert code == 0
        assert _payload.decode_value(ends[0][2]) == 3 and ends[0][0]
        ok, text, data = ends[1]
        assert not ok and text == "TypeError: bad operand type for abs(): 'str'"
        pickled, trace, info, name, words = _payload.decode_error(data)
        assert type(pickle.loads(pickled)) is TypeError and info["pid"] == os.getpid()
        assert info["kind"] == "error" and info["host"] and info["attempt"] == 1
        assert _payload.decode_value(ends[2][2]) == 7
    """, tmp_path)


def test_an_error_ends_its_chunk(tmp_path):
    check("""
        code, ends = run(call(int, ["1", "2"], kind=_payload.MAP_CHUNK),
                         call(int, ["1", "x", "3"], kind=_payload.MAP_CHUNK))
        assert _payload.decode_value(ends[0][2]) == [1, 2]
        assert not ends[1][0] and _payload.decode_error(ends[1][2])[2]["item"] == 1
    """, tmp_path)


def test_what_cannot_be_decoded_or_encoded(tmp_path):
    check("""
        code, ends = run((False, b"nonsense"), (False, OSError("cannot map")),
                         call(eval, "lambda: 0"), call(abs, -1))
        assert [end[0] for end in ends] == [False, False, False, True]
        assert ends[1][1] == "OSError: cannot map"
        assert ends[2][1].startswith("MaybeEncodingError: ")
    """, tmp_path)


def test_exits(tmp_path):
    check("""
        port = Port(call(sys.exit, 3), call(abs, -1))
        assert _child.loop(port, _content.Content()) == 3 and len(port.calls) == 1
        assert _payload.decode_error(port.ends[0][2])[2]["kind"] == "exit"
        code, ends = run(call(signal.raise_signal, signal.SIGINT), call(abs, -1))
        assert [end[0] for end in ends] == [False, True]
    """, tmp_path)


def test_current_task(tmp_path):
    check("""
        import hostpool
        code, ends = run(call(abs, -1), call(eval, "__import__('hostpool').current_task()"))
        task = _payload.decode_value(ends[1][2])
        assert task == hostpool.Task(id=101, attempt=1, epoch=7, index=1, pool=55)
        assert hostpool.current_task() is None
    """, tmp_path)


def test_modules_of_the_client(tmp_path):
    check("""
        digest, source = content("def boom():\\n    raise ValueError('far')  # here\\n")
        sub, sub_source = content("from farmod import boom\\nplace = __name__, __package__\\n")
        main, main_source = content("ready = __name__\\n"
                                    "if __name__ == '__main__':\\n    raise SystemExit\\n")
        code, ends = run(
            setup(modules={"farmod": (digest, False, "/nowhere/farmod.py"),
                           "box.inner.sub": (sub, False, "/nowhere/box/inner/sub.py")},
                  main=(main, "/nowhere/program.py"), path=["/", "/nowhere"],
                  contents={digest: source, sub: sub_source, main: main_source}),
            call(exec, "import farmod; farmod.boom()"),
            call(eval, "__import__('box.inner.sub').inner.sub.place"),
            call(eval, "__import__('__main__').ready"),
            call(exec, "import box.missing"))
        assert ends[0][:2] == (True, ""), ends[0]
        trace = _payload.decode_error(ends[1][2])[1]
        assert 'File "/nowhere/farmod.py", line 2, in boom' in trace and "# here" in trace
        assert "_child.py" not in trace
        assert _payload.decode_value(ends[2][2]) == ("box.inner.sub", "box.inner")
        assert _payload.decode_value(ends[3][2]) == "__mp_main__"
        assert ends[4][1].startswith("ModuleNotFoundError")
    """, tmp_path)


def test_same_file_here_is_used(tmp_path):
    (tmp_path / "mine.py").write_text("x = 1\n")
    (tmp_path / "other.py").write_text("x = 'of this host'\n")
    check(f"""
        same, source = content("x = 1\\n")
        new, new_source = content("x = 'of the client'\\n")
        code, ends = run(
            setup(modules={{"mine": (same, False, "/nowhere/mine.py"),
                            "other": (new, False, "/nowhere/other.py")}},
                  path=[{str(tmp_path)!r}], contents={{same: source, new: new_source}}),
            call(eval, "__import__('mine').__file__"), call(eval, "__import__('other').x"))
        assert _payload.decode_value(ends[1][2]) == {str(tmp_path / "mine.py")!r}
        assert _payload.decode_value(ends[2][2]) == "of the client"
    """, tmp_path)


def test_failing_set_up(tmp_path):
    check("""
        code, ends = run(setup(init=call(int, "x")[1]))
        assert not ends[0][0] and ends[0][1].startswith("ValueError: invalid literal")
    """, tmp_path)


def test_cache_of_contents(tmp_path):
    check("""
        got = []
        class Hub:
            closed = False
            def pool_get(self, pool, digest):
                got.append((pool, digest))
                return data
            def close(self):
                self.closed = True
        data = os.urandom(100000)
        digest = _content.digest_of(data)
        for turn in range(3):
            one = _content.Content()
            one.pool, one.hub = 9, Hub()
            fetched = one.fetch(digest)
            assert bytes(fetched) == data and one.fetch(digest) is fetched
        memoryview(fetched)[0:1] = b"!"  # private: the file stays as it is
        assert got == [(9, digest)]
        path = os.path.join(os.environ["HOSTPOOL_CACHE_DIR"], digest.hex())
        assert os.listdir(os.environ["HOSTPOOL_CACHE_DIR"]) == [digest.hex()]
        with open(path, "r+b") as file:
            file.write(b"damaged")
        one = _content.Content()
        one.pool, one.hub = 9, Hub()
        assert bytes(one.fetch(digest)) == data and len(got) == 2
        one.disconnect()
        assert one.hub is None
    """, tmp_path)


def test_entries_of_the_path(tmp_path):
    check("""
        own = "python%d.%d" % sys.version_info[:2]
        base = os.path.join(os.environ["HOSTPOOL_CACHE_DIR"], "lib")
        for name in (own, own + "/site-packages", own + "/lib-dynload", "python2.0/site-packages",
                     "python3/dist-packages", "program"):
            os.makedirs(os.path.join(base, name))
        usable = [name for name in (own, own + "/site-packages", own + "/lib-dynload",
                                    "python2.0/site-packages", "python3/dist-packages", "program",
                                    "missing") if _child._is_usable(os.path.join(base, name))]
        assert usable == [own + "/site-packages", "python3/dist-packages", "program"]
    """, tmp_path)
