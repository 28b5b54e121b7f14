# SPDX-License-Identifier: BSD-2-Clause
"""hostpool: multiprocessing.Pool whose processes are anywhere.

    from hostpool.multiprocessing import Pool

    def square(x):
        return x * x

    if __name__ == "__main__":
        with Pool() as pool:
            print(pool.map(square, range(10)))

The broker is the one given to hostpool.connect(), else that of the environment variable
HOSTPOOL_HOST, else a private one on this host that ends with the program.

Names are imported when they are first used: a child of a pool starts fast, and a Python that cannot
load the extension gets as far as saying so. For the same reason this file keeps to old syntax.
"""

__version__ = "0.2.0"

_HOMES = {
    "Pool": "pool",
    "PoolHandle": "pool",
    "AsyncResult": "results",
    "MapResult": "results",
    "attach": "_attach",
    "connect": "_config",
    "disconnect": "_config",
    "cpu_count": "_config",
    "Constant": "_code",
    "constant": "_code",
    "LocalFarm": "_local",
    "local": "_local",
    "Executor": "executor",
    "Future": "executor",
    "current_task": "_child",
    "Task": "_child",
    "BrokerLost": "exceptions",
    "BrokerError": "exceptions",
    "InitializerError": "exceptions",
    "PoolTerminated": "exceptions",
    "QuotaExceeded": "exceptions",
    "RemoteError": "exceptions",
    "TaskCancelled": "exceptions",
    "TaskGone": "exceptions",
    "TaskTimeout": "exceptions",
    "WorkerExit": "exceptions",
    "WorkerLost": "exceptions",
    "HostpoolError": "exceptions",
}

__all__ = sorted(name for name in _HOMES if not name.startswith("_"))


def __getattr__(name):  # type: ignore[no-untyped-def]
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError("module %r has no attribute %r" % (__name__, name))
    import importlib
    value = getattr(importlib.import_module("." + home, __name__), name)
    globals()[name] = value
    return value


def __dir__():  # type: ignore[no-untyped-def]
    return sorted(set(globals()) | set(_HOMES))
