# SPDX-License-Identifier: BSD-2-Clause
"""What programs are told when the broker, or a worker, does not do what they ask: at once, by the
right class, and with what to do."""
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from farm_fixtures import *  # noqa: E402,F401,F403
from farm_fixtures import STANDARD, pyfarm  # noqa: E402
import procs  # noqa: E402

pytestmark = pytest.mark.skipif(STANDARD, reason="there is no broker")

HEAD = """
import sys
import hostpool
from hostpool import exceptions
from hostpool.multiprocessing import Pool
"""


# ------------------------------------------------------------------------------ tokens

@pytest.fixture
def guarded_broker(tmp_path):
    """A broker that asks for a token; (address, file of the token)."""
    token = tmp_path / "token"
    token.write_text("a-token-of-this-test-0123456789abcdef\n")
    token.chmod(0o600)
    broker = procs.Broker(tmp_path, "--token-file", token, env=pyfarm.daemon_environment())
    try:
        yield broker.address, token
    finally:
        broker.end()


TOKENS = HEAD + """
host, path = sys.argv[1:]

def refused(work):
    try:
        work()
    except exceptions.BrokerError as error:
        return error.status, "token is missing or wrong" in str(error), "token_file" in str(error)

for connection in (hostpool.connect(host), hostpool.connect(host, token="wrong" * 8)):
    print(refused(lambda: Pool(1, connection=connection)))
    print(refused(hostpool.cpu_count))
    print(refused(hostpool.attach(1).get))
hostpool.connect(host, token_file=path)
print(hostpool.cpu_count())
"""


def test_a_wrong_token_is_told_at_once(program, guarded_broker):
    """The waits have no time, or one of a minute: the program ends because it is told."""
    code, out, err = program(TOKENS, *guarded_broker).finish(45)
    assert (code, out.splitlines(), err) == (0, ["('denied', True, True)"] * 6 + ["1"], "")
