# SPDX-License-Identifier: BSD-2-Clause
"""The program's own source, for children that cannot import it: __main__, and modules that are
neither of the standard library nor installed."""

from __future__ import annotations

import hashlib
import os
import sys
import sysconfig
import threading
from typing import Any, Optional

from . import _payload

MODULE_BYTES_MAX = 32 << 20
MODULE_COUNT_MAX = 4000


def digest_of(data: Any) -> bytes:
    """The name of a content."""
    return hashlib.blake2b(data, digest_size=_payload.DIGEST_BYTES).digest()


def _installed_folders() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    folders = {os.path.realpath(paths[name]) + os.sep
               for name in ("stdlib", "platstdlib", "purelib", "platlib") if name in paths}
    return tuple(folders)


_INSTALLED = _installed_folders()
_OWN_PACKAGE = __name__.partition(".")[0]


def _is_installed(path: str) -> bool:
    return (path.startswith(_INSTALLED) or f"{os.sep}site-packages{os.sep}" in path
            or f"{os.sep}dist-packages{os.sep}" in path)


def _source_of(module: Any) -> Optional[tuple[bytes, bool, str]]:
    """(source, whether it is a package, file) of a module that has to travel, else None."""
    is_package = hasattr(module, "__path__")
    path = getattr(module, "__file__", None)
    if path is None:
        if not is_package:
            return None
        places = [os.path.realpath(place) + os.sep for place in module.__path__]
        if not places or any(map(_is_installed, places)):
            return None
        return b"", True, places[0]  # a namespace package
    if not isinstance(path, str) or not path.endswith(".py"):
        return None
    if _is_installed(os.path.realpath(path)):
        return None
    try:
        with open(path, "rb") as file:
            return file.read(), is_package, os.path.abspath(path)
    except OSError:
        return None


class _Modules:
    """The program's own modules, as far as they are imported by now. One for the process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.seen: set[str] = set()
        self.known_count = -1
        self.table: dict[str, tuple[bytes, bool, str]] = {}
        self.sources: dict[bytes, bytes] = {}
        self.total_bytes = 0

    def scan(self) -> int:
        """Looks for new ones; how many there are in all."""
        with self.lock:
            if self.known_count != len(sys.modules):
                modules = list(sys.modules.items())
                self.known_count = len(modules)
                for name, module in modules:
                    if name not in self.seen:
                        self.seen.add(name)
                        self._add(name, module)
            return len(self.table)

    def _add(self, name: str, module: Any) -> None:
        if (name in ("__main__", "__mp_main__") or module is None
                or name.partition(".")[0] == _OWN_PACKAGE):
            return
        try:
            found = _source_of(module)
        except Exception:  # modules may be any object
            return
        if found is None:
            return
        source, is_package, path = found
        if (self.total_bytes + len(source) > MODULE_BYTES_MAX
                or len(self.table) >= MODULE_COUNT_MAX):
            return
        self.add_source(name, source, is_package, path)

    def add_source(self, name: str, source: bytes, is_package: bool, path: str) -> None:
        digest = digest_of(source)
        self.total_bytes += len(source)
        self.table[name] = (digest, is_package, path)
        self.sources[digest] = source

    def add_package(self, name: str) -> None:
        """Adds an installed package of pure Python, all that is imported of it."""
        with self.lock:
            for full, module in list(sys.modules.items()):
                path = getattr(module, "__file__", None)
                if ((full == name or full.startswith(name + ".")) and full not in self.table
                        and isinstance(path, str) and path.endswith(".py")):
                    try:
                        with open(path, "rb") as file:
                            source = file.read()
                    except OSError:
                        continue
                    self.add_source(full, source, hasattr(module, "__path__"), path)


modules = _Modules()


def after_fork() -> None:
    """In a forked child: another thread may have held the lock."""
    modules.lock = threading.Lock()


def main_source() -> Optional[tuple[bytes, str, str]]:
    """(source, file, package) of the program, or None: an interactive one, or `python -c`."""
    main = sys.modules.get("__main__")
    path = getattr(main, "__file__", None)
    if not isinstance(path, str) or not path.endswith(".py"):
        return None
    try:
        with open(path, "rb") as file:
            package = getattr(getattr(main, "__spec__", None), "parent", None)
            return file.read(), os.path.abspath(path), package or ""
    except OSError:
        return None
