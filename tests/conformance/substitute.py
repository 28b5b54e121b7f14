# SPDX-License-Identifier: BSD-2-Clause
"""Puts hostpool's Pool where programs look for multiprocessing's. Nothing else is changed."""
import os


def ours():
    """The module under test; HP_CONFORMANCE_STANDARD=1: the standard library itself."""
    if os.environ.get("HP_CONFORMANCE_STANDARD") == "1":
        import multiprocessing
        return multiprocessing
    import hostpool.multiprocessing
    return hostpool.multiprocessing


def install(pool_class=False):
    """multiprocessing.Pool, and the Pool that a SyncManager makes, become ours.

    pool_class: multiprocessing.pool.Pool, too. Not always, because ThreadPool, which stays as it
    is, finds parts of itself by that name.
    """
    import multiprocessing
    import multiprocessing.managers
    import multiprocessing.pool
    if ours() is multiprocessing:
        return
    pool = ours().Pool
    multiprocessing.Pool = pool
    multiprocessing.managers.SyncManager.register(
        "Pool", pool, multiprocessing.managers.PoolProxy)
    if pool_class:
        multiprocessing.pool.Pool = pool


def install_module():
    """CPython's test module sees hostpool.multiprocessing under the name multiprocessing."""
    import test._test_multiprocessing as tests
    import hostpool.multiprocessing
    tests.multiprocessing = hostpool.multiprocessing
    tests.ProcessesMixin.Pool = staticmethod(hostpool.multiprocessing.Pool)
