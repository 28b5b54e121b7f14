# SPDX-License-Identifier: BSD-2-Clause
"""A joblib backend: joblib.Parallel, and what uses it, on the farm.

    import joblib
    import hostpool.joblib

    hostpool.joblib.register()
    with joblib.parallel_backend("hostpool", n_jobs=-1):
        joblib.Parallel()(joblib.delayed(pow)(i, 2) for i in range(10))

n_jobs=-1 is one for each slot of the farm. Keywords of parallel_backend beyond n_jobs are those of
hostpool.multiprocessing.Pool. Functions and arguments are pickled as for Pool; nested calls of
Parallel inside a task run in threads there.
"""

from __future__ import annotations

import inspect
from multiprocessing import TimeoutError
from typing import Any, Optional

try:
    from joblib import register_parallel_backend  # type: ignore[import]
    from joblib._parallel_backends import (  # type: ignore[import]
        AutoBatchingMixin, ParallelBackendBase)
except ImportError as error:  # pragma: no cover
    raise ImportError(
        "hostpool.joblib needs joblib (Debian: python3-joblib)") from error

from .pool import Pool

__all__ = ["HostpoolBackend", "register"]

_POOL_OPTIONS = frozenset(
    name for name, parameter in inspect.signature(Pool).parameters.items()
    if parameter.kind is parameter.KEYWORD_ONLY)


class HostpoolBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
    """Serves both styles of joblib: apply_async (1.2) and submit with retrieval (1.4 and later)."""

    supports_timeout = True
    supports_retrieve_callback = True
    supports_return_generator = True
    uses_threads = False
    supports_sharedmem = False
    default_n_jobs = -1

    def __init__(self, nesting_level: Optional[int] = None,
                 inner_max_num_threads: Optional[int] = None, **pool_options: Any) -> None:
        super().__init__(nesting_level=nesting_level,
                         inner_max_num_threads=inner_max_num_threads)
        self._pool_options = pool_options
        self._pool: Any = None

    def effective_n_jobs(self, n_jobs: Optional[int]) -> int:
        """Children asked for; a negative number counts from the slots of the farm."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None:
            n_jobs = -1
        if n_jobs > 0:
            return n_jobs
        if self._pool is None:
            self._pool = Pool(**self._pool_options)
        return max(int(self._pool.processes) + 1 + n_jobs, 1)

    def configure(self, n_jobs: int = 1, parallel: Any = None, prefer: Optional[str] = None,
                  require: Optional[str] = None, **pool_options: Any) -> int:
        """Opens the pool of one Parallel call, or of a `with Parallel(...)`. joblib gives its own
        options of memory mapping besides: they are not for us."""
        del prefer, require
        self._pool_options.update((name, value) for name, value in pool_options.items()
                                  if name in _POOL_OPTIONS)
        self.parallel = parallel
        count = self.effective_n_jobs(n_jobs)
        if self._pool is not None and n_jobs is not None and n_jobs > 0:
            self.terminate()
        if self._pool is None:
            self._pool = Pool(count, **self._pool_options)
        return count

    def submit(self, func: Any, callback: Any = None) -> Any:
        """joblib >= 1.4: the callback gets the future and asks retrieve_result_callback."""
        if callback is None:
            return self._pool.apply_async(func)
        return self._pool.apply_async(func, callback=_Outcome.pass_on(callback, False),
                                      error_callback=_Outcome.pass_on(callback, True))

    def retrieve_result_callback(self, out: Any) -> Any:
        """The value of what submit's callback was given."""
        if isinstance(out, _Outcome):
            return out.get()
        return out.get()

    def apply_async(self, func: Any, callback: Any = None) -> Any:
        """joblib < 1.4: a result with get(timeout)."""
        return self._pool.apply_async(func, callback=callback)

    def terminate(self) -> None:
        """Ends the pool."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.terminate()
            pool.join()
        self.reset_batch_stats()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """After an exception: what is still queued or running is dropped."""
        self.terminate()
        if ensure_ready:
            self.configure(n_jobs=self.parallel.n_jobs, parallel=self.parallel)

    def get_exceptions(self) -> list[type[BaseException]]:
        """joblib < 1.4: what a get may raise for lack of time."""
        return [TimeoutError]


class _Outcome:
    """A result, or an exception, as joblib's callback wants it."""

    def __init__(self, value: Any, is_error: bool) -> None:
        self._value = value
        self._is_error = is_error

    @staticmethod
    def pass_on(callback: Any, is_error: bool) -> Any:
        return lambda value: callback(_Outcome(value, is_error))

    def get(self, timeout: Optional[float] = None) -> Any:
        del timeout
        if self._is_error:
            raise self._value
        return self._value


def register(name: str = "hostpool", make_default: bool = False) -> None:
    """Makes the backend known to joblib under this name."""
    register_parallel_backend(name, HostpoolBackend, make_default=make_default)
