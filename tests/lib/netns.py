# SPDX-License-Identifier: BSD-2-Clause
"""Hosts as network namespaces joined by a bridge; needs root. Only what it made is taken down."""
import contextlib
import ctypes
import os
import secrets
import subprocess


def ip(*words):
    done = subprocess.run(["ip", *words], stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr} (this test needs root)"


class Net:
    """Namespaces hpt<id><host>, addresses 10.90.x.1 and so on, joined by a bridge in one more.

    The bridge lives in a namespace of its own, so that nothing of this host's network is touched.
    """

    NOWHERE = "02:00:00:00:00:01" # nobody's address: the bridge floods, every host ignores

    def __init__(self, hosts):
        self.hosts = hosts
        self.id = secrets.token_hex(2)
        self.subnet = 1 + secrets.randbelow(250)
        self.made = []

    def name(self, host):
        return f"hpt{self.id}{host}"

    def address(self, host):
        return f"10.90.{self.subnet}.{self.hosts.index(host) + 1}"

    def inside(self, host, *argv):
        return ["ip", "netns", "exec", self.name(host), *argv]

    def add(self, host):
        ip("netns", "add", self.name(host))
        self.made.append(host)
        ip("-n", self.name(host), "link", "set", "lo", "up")

    def up(self):
        self.add("br")
        ip("-n", self.name("br"), "link", "add", "br0", "type", "bridge")
        ip("-n", self.name("br"), "link", "set", "br0", "up")
        for host in self.hosts:
            self.add(host)
            ip("-n", self.name("br"), "link", "add", f"p-{host}", "type", "veth",
               "peer", "name", "eth0", "netns", self.name(host))
            ip("-n", self.name("br"), "link", "set", f"p-{host}", "master", "br0", "up")
            ip("-n", self.name(host), "address", "add", f"{self.address(host)}/24", "dev", "eth0")
            ip("-n", self.name(host), "link", "set", "eth0", "up")

    def link(self, host, state):
        """Takes a host's cable out ("down") or puts it in ("up")."""
        ip("-n", self.name("br"), "link", "set", f"p-{host}", state)

    def one_way(self, sender, receiver, cut):
        """While cut, what `sender` sends never reaches `receiver`; the other way is not touched."""
        words = ["-n", self.name(sender), "neigh"]
        address = [self.address(receiver), "dev", "eth0"]
        if cut:
            ip(*words, "replace", address[0], "lladdr", self.NOWHERE, *address[1:],
               "nud", "permanent")
        else:
            ip(*words, "del", *address)

    def down(self):
        for host in reversed(self.made):
            subprocess.run(["ip", "netns", "del", self.name(host)], check=False)


@contextlib.contextmanager
def namespace(name):
    """Sockets made in here, by this thread, belong to the namespace."""
    setns = ctypes.CDLL(None, use_errno=True).setns
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    other = os.open(f"/run/netns/{name}", os.O_RDONLY)
    try:
        assert setns(other, 0) == 0
        yield
    finally:
        assert setns(own, 0) == 0
        os.close(own)
        os.close(other)
