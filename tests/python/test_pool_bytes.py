# SPDX-License-Identifier: BSD-2-Clause
"""What calls, results and code look like as bytes: encoded here, decoded as a child does."""
import array
import functools
import pathlib
import pickle
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))

import pyfarm  # noqa: E402

pyfarm.use_package()

import hostpool  # noqa: E402
from hostpool import _code, _config, _payload, results  # noqa: E402


class Store:
    """Contents, as pool and child see them."""

    def __init__(self):
        self.data = {}
        self.fetches = []
        self.modules = {}
        self.may_put = True

    def put(self, digest, data):
        assert digest not in self.data, "each content is put once"
        self.data[digest] = bytes(data)

    def fetch(self, digest):
        self.fetches.append(digest)
        return self.data[digest]

    def seed(self, digest, data):
        self.data[digest] = data

    def add_modules(self, modules):
        self.modules.update(modules)


@pytest.fixture
def store(monkeypatch):
    monkeypatch.setattr(_payload, "_cache", _payload._Cache())
    return Store()


@pytest.fixture
def encoder(store):
    made = _code.Encoder(store.put, lambda: store.may_put)
    made.setup(None, ())
    made.opened()
    return made


def flat(payload):
    return payload if isinstance(payload, bytes) else b"".join(bytes(piece) for piece in payload)


@pytest.fixture
def run(encoder, store):
    def run(func, *args, kind=_payload.APPLY, many=False):
        payload = encoder.encode(encoder.function(func, many), kind, args)
        return _payload.decode_call(flat(payload), store)()
    return run


def double(x):
    return 2 * x


def fail_at(x):
    if x == 3:
        raise ValueError("three")
    return x


@pytest.mark.parametrize("value", [
    None, 5, -2 ** 70, "text", b"", b"x" * 100, bytearray(b"y" * 100), b"z" * 200_000,
    bytearray(b"w" * 200_000), [b"v" * 20_000, 1, b"u" * 70_000], (b"t" * 20_000,),
    {"k": b"s" * 20_000},
    range(10), {1, 2}, [bytearray(b"r" * 16_384)] * 3])
def test_values_come_back_as_they_were(value):
    data = flat(_payload.encode_value(value))
    for form in (data, memoryview(bytearray(data))):
        back = _payload.decode_value(form)
        assert back == value and type(back) is type(value)
        if isinstance(value, list):
            assert [type(item) for item in back] == [type(item) for item in value]


def test_large_bytes_are_not_copied_into_pickles():
    large = b"x" * 1_000_000
    pieces = _payload.encode_value([large, 5])
    assert any(memoryview(piece).obj is large for piece in pieces)
    assert sum(memoryview(piece).nbytes for piece in pieces) < len(large) + 1000


def test_arrays_stay_out_of_pickles_are_aligned_and_writable():
    numpy = pytest.importorskip("numpy")
    value = [numpy.arange(100_000.0), numpy.ones(7), numpy.zeros((300, 300), order="F")]
    pieces = _payload.encode_value(value)
    assert isinstance(pieces, tuple)
    data = bytearray(flat(pieces))
    back = _payload.decode_value(memoryview(data))
    for left, right in zip(back, value):
        assert (left == right).all() and left.flags.writeable and left.flags.aligned
    readonly = _payload.decode_value(bytes(data))
    assert all(item.flags.writeable for item in readonly)


def test_damaged_values_raise():
    data = flat(_payload.encode_value([b"x" * 100_000]))
    with pytest.raises(Exception):
        _payload.decode_value(data[:-50])
    with pytest.raises(pickle.UnpicklingError):
        _payload.decode_value(b"\x07abc")


def test_calls(run):
    assert run(divmod, 7, 3) == (2, 1)
    assert run(double, array.array("d", [1.0])) == array.array("d", [1.0, 1.0])
    assert run(len, b"x" * 300_000) == 300_000


def test_kinds(encoder, store):
    function = encoder.function(double)
    for kind, body, value in [
            (_payload.MAP_ONE, 4, 8), (_payload.STAR_ONE, (4,), 8),
            (_payload.MAP_CHUNK, [1, 2], [2, 4]), (_payload.MAP_CHUNK, range(3), [0, 2, 4]),
            (_payload.STAR_CHUNK, [(1,), (2,)], [2, 4]),
            (_payload.APPLY_KWDS, ((), {"x": 4}), 8)]:
        assert _payload.decode_call(flat(encoder.encode(function, kind, body)), store)() == value


def test_the_item_that_failed_is_known(encoder, store):
    payload = encoder.encode(encoder.function(fail_at), _payload.MAP_CHUNK, [1, 2, 3, 4])
    with pytest.raises(ValueError) as caught:
        _payload.decode_call(payload, store)()
    data = _payload.encode_error(caught.value, "text", {"kind": "error"})
    assert _payload.is_error(data)
    pickled, text, info, name, message = _payload.decode_error(data)
    assert info["item"] == 2 and name == "builtins.ValueError" and message == "three"
    assert repr(pickle.loads(pickled)) == "ValueError('three')"


def test_functions_by_name_are_part_of_the_call(encoder, store):
    assert encoder.function(double) is encoder.function(double)
    encoder.function(divmod)
    assert not store.data


def test_lambdas_and_closures(run, store):
    pytest.importorskip("cloudpickle")
    offset = 10
    assert run(lambda x: x + offset, 5) == 15
    assert run(lambda f: f(4), lambda x: x * 3) == 12


def test_code_by_value_travels_once(run, store):
    pytest.importorskip("cloudpickle")
    table = list(range(2000))

    def look(x):
        return table[x]
    for x in range(5):
        assert run(look, x) == x
    assert len(store.data) <= 2
    assert len(store.fetches) <= 1


def test_without_cloudpickle_the_message_names_it(run, monkeypatch):
    monkeypatch.setattr(_code, "_cloudpickle", lambda: None)
    monkeypatch.setattr(_code, "_pickler_class", None)
    with pytest.raises(pickle.PicklingError, match="python3-cloudpickle"):
        run(lambda x: x, 5)
    with pytest.raises(Exception, match="cloudpickle|local object"):
        run(len, [lambda: 5])
    monkeypatch.setattr(_code, "_pickler_class", None)


def test_constants_are_sent_and_loaded_once(run, store):
    big = hostpool.constant(list(range(5000)))
    for x in range(4):
        assert run(list.__getitem__, big, x) == x
        assert run(functools.partial(list.__getitem__, big), x) == x
    assert len(store.data) == 1 and len(store.fetches) == 1
    assert hostpool.constant(big) is big
    with pytest.raises(pickle.PicklingError):
        pickle.dumps(big)


def test_large_partials_travel_once(run, store):
    big = functools.partial(list.__getitem__, list(range(5000)))
    assert [run(big, x) for x in range(4)] == [0, 1, 2, 3]
    assert len(store.data) == 1


def test_objects_with_state_are_fresh_for_each_call(run):
    class_ = Counter()
    assert [run(class_.add, 1), run(class_.add, 1)] == [1, 1]
    class_.total = 5
    assert run(class_.add, 1) == 6
    small = functools.partial(append, [])
    assert [run(small, 1), run(small, 2)] == [[1], [2]]


class Counter:
    def __init__(self):
        self.total = 0

    def add(self, x):
        self.total += x
        return self.total


def append(items, x):
    items.append(x)
    return items


def test_in_a_callback_nothing_is_put(run, store):
    store.may_put = False
    assert run(functools.partial(list.__getitem__, list(range(5000))), 3) == 3
    with pytest.raises(pickle.PicklingError):
        run(len, hostpool.constant(b"new"))
    assert not store.data


def test_modules_of_the_program_travel(store, tmp_path, monkeypatch):
    (tmp_path / "own_module_a.py").write_text("import own_package_b.inner\ndef f(x): return x\n")
    (tmp_path / "own_package_b").mkdir()
    (tmp_path / "own_package_b" / "__init__.py").write_text("")
    (tmp_path / "own_package_b" / "inner.py").write_text("y = 5\n")
    monkeypatch.syspath_prepend(tmp_path)
    encoder = _code.Encoder(store.put, lambda: True)
    encoder.setup(None, ())
    encoder.opened()
    import own_module_a
    try:
        payload = encoder.encode(encoder.function(own_module_a.f), _payload.MAP_ONE, 5)
        assert _payload.decode_call(payload, store)() == 5
        assert {"own_module_a", "own_package_b", "own_package_b.inner"} <= set(store.modules)
        digest, is_package, path = store.modules["own_package_b.inner"]
        assert store.data[digest] == b"y = 5\n" and not is_package
        assert path == str(tmp_path / "own_package_b" / "inner.py")
        assert not any(name in store.modules for name in ("hostpool", "json", "pytest"))
        later = _code.Encoder(Store().put, lambda: True)
        setup = _payload.decode_setup(later.setup(None, ()))
        assert setup["contents"][digest] == b"y = 5\n" and "own_module_a" in setup["modules"]
    finally:
        for name in ("own_module_a", "own_package_b", "own_package_b.inner"):
            sys.modules.pop(name, None)


def test_set_up_with_initializer(store):
    encoder = _code.Encoder(store.put, lambda: True)
    constant = hostpool.constant(b"c" * 10)
    payload = encoder.setup(append, ([], constant))
    encoder.opened()
    setup = _payload.decode_setup(payload)
    for digest, data in setup["contents"].items():
        store.seed(digest, data)
    assert _payload.decode_call(setup["init"], store)() == [b"c" * 10]
    assert setup["argv"] == sys.argv and sys.path[-1] in setup["path"]
    assert _payload.decode_setup(b"") == {}
    with pytest.raises(pickle.UnpicklingError, match="version 9"):
        _payload.decode_setup(b"\x09")


class Unpicklable(Exception):
    def __reduce__(self):
        raise RuntimeError("no")


def test_errors_that_cannot_be_pickled_are_text():
    for error in (Unpicklable("here"), KeyboardInterrupt("stop"), SystemExit(3)):
        pickled, _, info, name, message = _payload.decode_error(
            _payload.encode_error(error, "tb", {"kind": "error", "pid": object()}))
        assert pickled is None and name.endswith(type(error).__name__)
    assert info["code"] == "3" or info["code"] == 3


def test_ids_of_maps():
    ranges = [(0, 100, 10), (10, 110, 5), (15, 300, 1)]
    text = results.format_map_id(160, 10, ranges)
    assert text == "map:160:10:0@100+15,15@300+1"
    assert results.parse_map_id(text) == (160, 10, [(0, 100, 15), (15, 300, 1)])
    assert results.parse_map_id(results.format_map_id(0, 0, [])) == (0, 0, [])
    for bad in ("", "map:1:1", "map:1:1:x", "5", "map:1:1:0@5"):
        with pytest.raises(ValueError):
            results.parse_map_id(bad)


def test_runs_of_ids():
    assert _config.ranges_of([5, 3, 4, 9, 4, 10]) == [(3, 3), (9, 2)]
    assert _config.ranges_of([1]) == [(1, 1)]
