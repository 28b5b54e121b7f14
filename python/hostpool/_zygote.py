# SPDX-License-Identifier: BSD-2-Clause
"""`python -m hostpool._zygote`: what hostpool-worker starts to have children that run Python.

It imports once what all of them need, then forks them on the worker's word. A Python that cannot do
that says so in one line, so this file keeps to a syntax that old ones can read.
"""
import sys

EX_UNAVAILABLE = 69


def _fail(text):
    # type: (str) -> None
    sys.stderr.write("hostpool: %s\n" % " ".join(text.split()))
    sys.exit(EX_UNAVAILABLE)


def _ready_text():
    # type: () -> str
    version = sys.version_info
    return "python%d.%d %d.%d.%d %s" % (version[:2] + version[:3] + (sys.executable,))


def main():
    # type: () -> None
    if sys.version_info < (3, 9):
        _fail("Python 3.9 or later is needed; %s is %s"
              % (sys.executable, ".".join(map(str, sys.version_info[:3]))))
    try:
        from hostpool import _hostpool
    except ImportError as error:
        _fail("%s cannot load hostpool's extension: %s" % (sys.executable, error))
    import gc
    import os
    import signal
    # -m puts the worker's own folder first, whose files are nobody's modules.
    if sys.path and sys.path[0] in ("", os.getcwd()):
        del sys.path[0]
    from hostpool import _child
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.collect()
    gc.freeze()  # children share these objects for longer
    try:
        port = _hostpool.zygote(_ready_text())
    except _hostpool.error as error:
        _fail(str(error))
    _child.main(port)


if __name__ == "__main__":
    main()
