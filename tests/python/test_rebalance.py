# SPDX-License-Identifier: BSD-2-Clause
"""Quick calls do not wait behind long ones while any child is free, here or on another worker."""
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import fault_jobs as jobs  # noqa: E402
from farm_fixtures import *  # noqa: E402,F401,F403
from farm_fixtures import LIMIT_S, STANDARD, connected, in_time  # noqa: E402
import procs  # noqa: E402

pytestmark = pytest.mark.skipif(STANDARD, reason="is about farms")


def begun(folder):
    return len(list(folder.glob("begun-*")))


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("function", ["squares", "lengths"])
def test_a_worker_that_joins_gets_what_waits(own_farm, tmp_path, durable, function):
    import hostpool
    own_farm.add_worker()
    with connected(own_farm):
        pool = hostpool.Pool(durable=durable)
        assert pool.map(jobs.square, range(2000), 1) == [x * x for x in range(2000)]
        long = [pool.apply_async(jobs.hold, (str(tmp_path), i)) for i in range(2)]
        procs.wait_until(lambda: begun(tmp_path) == 2, "both began")
        if function == "squares":
            quick = pool.map_async(jobs.square, range(200), 1)
            wanted = [x * x for x in range(200)]
        else:
            data = [bytes(70000) for _ in range(200)]
            quick = pool.map_async(len, data, 1)
            wanted = [70000] * 200
        assert not quick.ready()
        own_farm.add_worker("worker-2")
        assert quick.get(LIMIT_S) == wanted
        assert not any(one.ready() for one in long)
        (tmp_path / "go").touch()
        assert [one.get(LIMIT_S) for one in long] == [0, 1]
        pool.terminate()
        assert in_time(pool.join)


def test_a_free_child_gets_what_waits_in_another(farm, pools, tmp_path):
    pool = pools(2)
    assert pool.map(jobs.square, range(5000), 1) == [x * x for x in range(5000)]
    result = pool.imap_unordered(jobs.hold_first, [(str(tmp_path), i) for i in range(500)])
    got = [result.next(LIMIT_S) for _ in range(499)]
    assert sorted(got) == list(range(1, 500))
    (tmp_path / "go").touch()
    assert result.next(LIMIT_S) == 0


def test_long_ones_are_spread(own_farm, tmp_path):
    """Calls that turn out to be long run in all children there are, whoever was given them."""
    import hostpool
    own_farm.add_worker()
    own_farm.add_worker("worker-2")
    with connected(own_farm):
        pool = hostpool.Pool()
        assert pool.map(jobs.square, range(2000), 1) == [x * x for x in range(2000)]
        result = pool.map_async(jobs.hold_all, [(str(tmp_path), i) for i in range(40)], 1)
        procs.wait_until(lambda: begun(tmp_path) == 4, "four run at once")
        (tmp_path / "go").touch()
        assert result.get(LIMIT_S) == list(range(40))
        pool.terminate()
        assert in_time(pool.join)
