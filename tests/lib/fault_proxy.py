# SPDX-License-Identifier: BSD-2-Clause
"""A TCP proxy that breaks connections in all the ways a network can, on command.

One thread, one asyncio loop. `up` is from the client to the server, `down` the other way. Modes of
a direction: PASS; HOLD (bytes wait, as in a network that retransmits); SWALLOW (bytes are read and
lost; the connection is good for nothing afterwards); DELAY (in order, late); DRIP (one a second).
"""
import asyncio
import contextlib
import socket
import struct
import threading

import netns

PASS, HOLD, SWALLOW, DELAY, DRIP = "pass", "hold", "swallow", "delay", "drip"
UP, DOWN = "up", "down"
PIECE = 65536


def reset(writer):
    """Closes with RST, as a peer that lost its state would."""
    sock = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class Link:
    """One proxied connection."""

    def __init__(self, proxy, client, server):
        self.proxy = proxy
        self.writers = {UP: server[1], DOWN: client[1]}
        self.readers = {UP: client[0], DOWN: server[0]}
        self.lost = False     # bytes were swallowed
        self.orphan = False   # neither end will ever hear of the other again
        self.budget = {}      # direction: bytes until the connection is cut

    def cut(self):
        for writer in self.writers.values():
            reset(writer)

    async def pump(self, way):
        try:
            while data := await self.readers[way].read(PIECE):
                await self.forward(way, data)
            while self.orphan or self.proxy.mode[way] in (HOLD, SWALLOW):
                await self.proxy.changed()  # an end of stream does not get through either
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            if not self.orphan:
                self.cut()

    async def forward(self, way, data):
        mode = self.proxy.mode[way]
        while mode == HOLD and not self.orphan:
            await self.proxy.changed()
            mode = self.proxy.mode[way]
        if self.orphan or mode == SWALLOW:
            self.lost = True
            self.proxy.swallowed += len(data)
            return
        if mode == DELAY:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.proxy.never.wait(), self.proxy.delay_s)
        while mode == DRIP and data:
            self.writers[way].write(data[:1])
            data = data[1:]
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.proxy.changed(), 1)
            mode = self.proxy.mode[way]
        await self.write(way, data)

    async def write(self, way, data):
        left = self.budget.get(way)
        if left is not None and len(data) >= left:
            self.writers[way].write(data[:left])
            await self.writers[way].drain()
            raise ConnectionAbortedError
        if left is not None:
            self.budget[way] = left - len(data)
        self.writers[way].write(data)
        await self.writers[way].drain()


class Proxy:
    """Listens on 127.0.0.1 in one namespace and connects from there to `server`."""

    def __init__(self, space, server):
        self.space, self.server = space, server
        self.mode = {UP: PASS, DOWN: PASS}
        self.delay_s = 0.3
        self.refuse = False
        self.swallowed = self.accepted = 0
        self.links = set()
        self.loop = asyncio.new_event_loop()
        self.event, self.never = asyncio.Event(), asyncio.Event()
        with netns.namespace(space):
            self.socket = socket.create_server(("127.0.0.1", 0))
        self.address = self.socket.getsockname()
        self.thread = threading.Thread(target=self.main, daemon=True)
        self.thread.start()

    @property
    def host(self):
        return "%s:%d" % self.address

    def main(self):
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(asyncio.start_server(self.on_client, sock=self.socket))
        self.loop.run_forever()
        left = asyncio.all_tasks(self.loop)
        for task in left:
            task.cancel()
        self.loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))

    async def on_client(self, reader, writer):
        self.accepted += 1
        if self.refuse:
            reset(writer)
            return
        with netns.namespace(self.space):
            sock = socket.socket()
        sock.setblocking(False)
        try:
            await asyncio.wait_for(self.loop.sock_connect(sock, self.server), 5)
            server = await asyncio.open_connection(sock=sock)
        except (OSError, asyncio.TimeoutError):
            sock.close()
            reset(writer)
            return
        link = Link(self, (reader, writer), server)
        self.links.add(link)
        try:
            await asyncio.gather(link.pump(UP), link.pump(DOWN))
        finally:
            self.links.discard(link)

    async def changed(self):
        """Until somebody sets a mode."""
        await self.event.wait()

    def call(self, function):
        """Runs function() on the loop; its value."""
        async def run():
            value = function()
            self.event.set()
            self.event = asyncio.Event()
            return value
        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(20)

    def set(self, up=PASS, down=PASS, refuse=False):
        def change():
            self.mode = {UP: up, DOWN: down}
            self.refuse = refuse
        self.call(change)

    def cut_all(self):
        self.call(lambda: [link.cut() for link in list(self.links)])

    def cut_after(self, way, size):
        """Each present connection breaks after `size` more bytes, be it within a frame."""
        self.call(lambda: [link.budget.update({way: size}) for link in self.links])

    def vanish(self):
        """The present connections become half-open at both ends, for good."""
        def change():
            for link in self.links:
                link.orphan = True
        self.call(change)

    def heal(self):
        def change():
            self.mode = {UP: PASS, DOWN: PASS}
            self.refuse = False
            for link in list(self.links):
                link.budget = {}
                if link.lost and not link.orphan:
                    link.cut()
        self.call(change)

    def stop(self):
        self.cut_all()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.socket.close()
