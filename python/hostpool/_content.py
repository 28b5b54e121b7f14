# SPDX-License-Identifier: BSD-2-Clause
"""Contents of a pool in its children: code and constants, by the digest of their bytes.

A content is fetched from the broker once for each host: children share a folder of the worker
(HOSTPOOL_CACHE_DIR). Its name is its digest, which is checked whenever it is read.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.abc
import importlib.machinery
import importlib.util
import linecache
import mmap
import os
import sys
import time
import types
from collections.abc import Iterator, Sequence
from typing import Any, Optional

from . import _hostpool

DIGEST_BYTES = 16
MAP_BYTES = 65536        # larger contents are mapped: children then share the memory
FIND_S = 30.0            # a content may be put a moment after the call that names it
CACHE_BYTES_MAX = 4 << 30

Modules = dict[str, tuple[bytes, bool, str]]

# While a child runs the client's script: what that makes at its top level would be made by each
# child, without end.
is_importing_main = False


def digest_of(data: Any) -> bytes:
    """The digest that names these bytes."""
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()


class Content:
    """What the children of one pool can be given, and what this one has of it."""

    def __init__(self, cache_dir: Optional[str] = None) -> None:
        self.pool = 0
        self.hub: Any = None
        self._host = os.environ.get("HOSTPOOL_HOST")
        self._pid = os.getpid()
        self._data: dict[bytes, Any] = {}
        self._cache_dir = cache_dir or os.environ.get("HOSTPOOL_CACHE_DIR")
        self._finder: Optional[_Finder] = None

    # ------------------------------------------------------------ bytes

    def seed(self, digest: bytes, data: bytes) -> None:
        """Gives it a content that came with the set-up."""
        self._data[bytes(digest)] = data

    def fetch(self, digest: bytes) -> Any:
        """The bytes with this digest (bytes, or a private mapping that may be written)."""
        digest = bytes(digest)
        data = self._data.get(digest)
        if data is None:
            data = self._from_cache(digest)
            if data is None:
                data = self._from_broker(digest)
            self._data[digest] = data
        return data

    def _from_cache(self, digest: bytes) -> Any:
        if not self._cache_dir:
            return None
        path = os.path.join(self._cache_dir, digest.hex())
        try:
            with open(path, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                data: Any
                if size > MAP_BYTES:
                    data = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY)
                else:
                    data = file.read()
        except OSError:
            return None
        if digest_of(data) != digest:  # a crash of the host can leave any bytes
            with contextlib.suppress(OSError):
                os.unlink(path)
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # it is in use: see _make_room
        return data

    def _from_broker(self, digest: bytes) -> Any:
        with self._locked(digest) as is_locked:
            data = self._from_cache(digest) if is_locked else None
            if data is not None:
                return data  # another child has fetched it meanwhile
            data = self._get(digest)
            if digest_of(data) != digest:
                raise OSError(f"hostpool: content {digest.hex()} arrived damaged")
            if is_locked and self._keep(digest, data):
                kept = self._from_cache(digest)
                return data if kept is None else kept
        return data

    @contextlib.contextmanager
    def _locked(self, digest: bytes) -> Iterator[bool]:
        """One child of the host fetches, the others wait. False: there is no folder for it."""
        file = -1
        path = ""
        if self._cache_dir:
            path = os.path.join(self._cache_dir, f".{digest.hex()}.lock")
            with contextlib.suppress(OSError):
                os.makedirs(self._cache_dir, 0o700, exist_ok=True)
                file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if file >= 0:
                fcntl.flock(file, fcntl.LOCK_EX)
            yield file >= 0
        finally:
            if file >= 0:
                # Who still waits for the removed one finds the content, or fetches it once more.
                with contextlib.suppress(OSError):
                    os.unlink(path)
                os.close(file)

    def _keep(self, digest: bytes, data: Any) -> bool:
        assert self._cache_dir is not None
        path = os.path.join(self._cache_dir, digest.hex())
        temporary = f"{path}.{os.getpid()}"
        try:
            with open(temporary, "wb") as file:
                file.write(data)
            os.rename(temporary, path)
        except OSError:  # the disk is full, say: then it stays in memory
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            return False
        self._make_room()
        return True

    def _make_room(self) -> None:
        """Removes what was not used for longest, if the folder is too large."""
        assert self._cache_dir is not None
        entries = []
        with contextlib.suppress(OSError):
            for entry in os.scandir(self._cache_dir):
                with contextlib.suppress(OSError):
                    facts = entry.stat()
                    entries.append((facts.st_mtime, facts.st_size, entry.path))
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries)[:-1]:
            if total <= CACHE_BYTES_MAX:
                break
            with contextlib.suppress(OSError):
                os.unlink(path)
            total -= size

    # ------------------------------------------------------------ the broker

    def _connection(self) -> Any:
        if self.hub is not None and (self._pid != os.getpid() or self.hub.closed):
            self.hub = None  # a process that the task has forked, or another thread's call ended
        if self.hub is None:
            self._pid = os.getpid()
            self.hub = _hostpool.Hub(host=self._host, name="hostpool child")
        return self.hub

    def _get(self, digest: bytes) -> Any:
        end = time.monotonic() + FIND_S
        pause = 0.01
        while True:
            try:
                return self._connection().pool_get(self.pool, digest)
            except _hostpool.error as error:
                if error.status not in ("not_found", "stopped") or time.monotonic() > end:
                    raise LookupError(f"hostpool: content {digest.hex()} of pool {self.pool} "
                                      f"cannot be had: {error}") from None
            time.sleep(pause)
            pause = min(2 * pause, 0.2)

    def disconnect(self) -> None:
        """Ends the connection: between calls an idle child keeps none."""
        hub, self.hub = self.hub, None
        if hub is not None:
            hub.close()

    # ------------------------------------------------------------ modules

    def add_modules(self, modules: Modules) -> None:
        """Modules of the client's program: they can be imported from here on."""
        if not modules:
            return
        if self._finder is None:
            self._finder = _Finder(self)
            sys.meta_path.insert(0, self._finder)
        self._finder.add(modules)

    def set_main(self, digest: bytes, filename: str, package: Optional[str] = None) -> None:
        """Runs the client's script as multiprocessing's spawn does: as __mp_main__, so that what is
        below `if __name__ == "__main__"` does not run; it is __main__ from then on. package: that
        of a script run by -m, for its relative imports."""
        source = bytes(self.fetch(digest))
        module = types.ModuleType("__mp_main__")
        module.__file__ = filename
        module.__dict__["__package__"] = package
        code = compile(source, filename, "exec", dont_inherit=True)
        show_source(filename, source)
        sys.modules["__main__"] = sys.modules["__mp_main__"] = module
        global is_importing_main
        is_importing_main = True
        try:
            exec(code, module.__dict__)
        finally:
            is_importing_main = False


def show_source(filename: str, source: bytes) -> None:
    """Makes tracebacks show lines of a file that is not on this host (or differs here)."""
    try:
        text = importlib.util.decode_source(source)
    except (SyntaxError, UnicodeDecodeError):
        return
    linecache.cache[filename] = (len(source), None, text.splitlines(True), filename)


class _Loader(importlib.abc.InspectLoader):
    """A module whose source came from the client."""

    def __init__(self, content: Content, digest: bytes, is_package: bool, filename: str) -> None:
        self._content = content
        self._digest = digest
        self._is_package = is_package
        self._filename = filename

    def get_data(self) -> bytes:
        return bytes(self._content.fetch(self._digest))

    def get_filename(self, fullname: str) -> str:
        return self._filename

    def is_package(self, fullname: str) -> bool:
        return self._is_package

    def get_source(self, fullname: str) -> str:
        return importlib.util.decode_source(self.get_data())

    def get_code(self, fullname: str) -> types.CodeType:
        source = self.get_data()
        code: types.CodeType = compile(source, self._filename, "exec", dont_inherit=True)
        show_source(self._filename, source)
        return code

    def exec_module(self, module: types.ModuleType) -> None:
        exec(self.get_code(module.__name__), module.__dict__)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds modules of the client's program. A file of this host is used if it is the same."""

    def __init__(self, content: Content) -> None:
        self._content = content
        self._modules: Modules = {}
        self._packages: set[str] = set()  # folders above modules, with or without an __init__

    def add(self, modules: Modules) -> None:
        self._modules.update(modules)
        for name in modules:
            parent = name.rpartition(".")[0]
            while parent:
                self._packages.add(parent)
                parent = parent.rpartition(".")[0]

    def find_spec(self, fullname: str, path: Optional[Sequence[Any]],
                  target: Optional[types.ModuleType] = None
                  ) -> Optional[importlib.machinery.ModuleSpec]:
        known = self._modules.get(fullname)
        if known is None and fullname not in self._packages:
            return None
        local = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if known is None:
            if local is not None:
                return local
            spec = importlib.machinery.ModuleSpec(fullname, None, is_package=True)
            return spec
        digest, is_package, filename = known
        if local is not None and _has_digest(local.origin, digest):
            return local
        loader = _Loader(self._content, digest, is_package, filename)
        spec = importlib.machinery.ModuleSpec(fullname, loader, origin=filename,
                                              is_package=is_package)
        spec.has_location = True
        return spec


def _has_digest(path: Optional[str], digest: bytes) -> bool:
    try:
        with open(path or "", "rb") as file:
            return digest_of(file.read()) == digest
    except OSError:
        return False
