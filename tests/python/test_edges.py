#!/usr/bin/env python3
"""Where connections begin and end, in both namespaces: every address, slow look-ups, paths, owners
that go away inside a call of their own."""

import asyncio
import errno
import os
import socket
import sys
import tempfile
import threading
import unittest

import nkt_python

nkt_python.use_netkit()

import loops                                                            # noqa: E402

import netkit                                                           # noqa: E402
from netkit import aio                                                  # noqa: E402

LIMIT_S = 20

# Every look-up of a name that is not this host's lasts until `go` is set.
SLOW_RESOLVER = """
import asyncio, ctypes, threading, warnings
import netkit
from netkit import _lib, aio

go, ended = threading.Event(), threading.Semaphore(0)

@ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int32,
                  ctypes.c_void_p, ctypes.c_int32)
def resolve(env, host, family, ips, cap):
    go.wait(30)
    ended.release()
    return _lib.ENOTFOUND

layout = _lib.layout_of(_lib.library())
env = ctypes.create_string_buffer(layout["nkt_env"][1])
assert _lib.quick.nkt_env_init(env) == 0
place = ctypes.c_void_p.from_buffer(env, layout["nkt_env.resolve"][0])
place.value = ctypes.cast(resolve, ctypes.c_void_p).value
assert _lib.quick.nkt_env_set_default(env) == 0

def end(count):
    go.set()
    for _ in range(count):
        assert ended.acquire(timeout=30)
"""


class Listening(unittest.TestCase):
    def families(self, port):
        return [(family, (host, port)) for family, host in
                ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))]

    def test_every_address(self):
        with netkit.listen(":0") as listener:
            listener.timeout = LIMIT_S
            for family, where in self.families(listener.port):
                with socket.socket(family, socket.SOCK_STREAM) as client:
                    client.connect(where)
                    with listener.accept() as conn:
                        # An IPv4 client is one: not ::ffff:127.0.0.1.
                        self.assertEqual(conn.peer, netkit.Address(*client.getsockname()[:2]))
                        self.assertEqual(conn.local, netkit.Address(*where))

    def test_every_address_aio(self):
        async def run():
            async with aio.listen(":0") as listener:
                for family, where in self.families(listener.port):
                    with socket.socket(family, socket.SOCK_STREAM) as client:
                        client.connect(where)
                        async with await listener.accept(timeout=LIMIT_S) as conn:
                            self.assertEqual(conn.peer, netkit.Address(*client.getsockname()[:2]))
                            self.assertEqual(conn.local, netkit.Address(*where))
        for make in loops.LOOPS.values():
            loops.run(run(), make)

    def test_path_too_long(self):
        async def of_aio(function):
            await function(path)
        with tempfile.TemporaryDirectory() as folder:
            path = "unix:" + os.path.join(folder, "x" * 108)
            for function in (netkit.connect, netkit.listen,
                             lambda path: loops.run(of_aio(aio.connect)),
                             lambda path: loops.run(of_aio(aio.listen))):
                with self.assertRaises(OSError) as caught:
                    function(path)
                self.assertEqual(caught.exception.errno, errno.ENAMETOOLONG)
                self.assertEqual(caught.exception.code, -13)
                self.assertEqual(caught.exception.strerror,
                                 "%r: expected a path of at most 107 bytes" % path)
            self.assertEqual(os.listdir(folder), [])


class SlowLookups(unittest.TestCase):
    """Whatever ends first here, it is before the look-up: that ends when it is allowed to."""

    def test_blocking(self):
        out, _ = nkt_python.python(SLOW_RESOLVER + """
for call in (lambda: netkit.connect("slow.test:80", timeout=0.2),
             lambda: netkit.resolve("slow.test", timeout=0.2)):
    try:
        call()
    except TimeoutError as error:
        print(type(error).__name__, getattr(error, "attempts", None), go.is_set())
end(4)
""")
        self.assertEqual(out, "TimeoutError () False\nTimeoutError None False\n")

    def test_aio(self):
        out, _ = nkt_python.python(SLOW_RESOLVER + """
async def main():
    for call in (aio.connect("slow.test:80", timeout=0.2),
                 aio.resolve("slow.test", timeout=0.2)):
        try:
            await call
        except TimeoutError as error:
            print(type(error).__name__, getattr(error, "attempts", None), go.is_set())
asyncio.run(main())
end(4)
""")
        self.assertEqual(out, "TimeoutError () False\nTimeoutError None False\n")

    def test_in_a_running_loop_it_is_told(self):
        out, _ = nkt_python.python(SLOW_RESOLVER + """
async def main():
    for host in ("localhost", "192.0.2.1", "slow.test"):
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            try:
                netkit.resolve(host, timeout=0.2)
            except TimeoutError:
                pass
        print(host, [(warning.category.__name__, warning.filename) for warning in seen])
asyncio.run(main())
end(2)
""")
        self.assertEqual(out, "localhost []\n192.0.2.1 []\n"
                              "slow.test [('RuntimeWarning', '<string>')]\n")


class Owned:
    """A transport whose methods end the connection that stands on it."""

    def __init__(self, where, how):
        self.where = where
        self.how = how
        self.conn = None
        self.calls = []
        self.ready, self.other = socket.socketpair()

    def called(self, name):
        self.calls.append(name)
        if name == self.where:
            getattr(self.conn, self.how)()

    def recv(self, size):
        self.called("recv")
        return None if self.where == "fileno" else b"line\n"

    def send(self, data):
        self.called("send")
        return len(data)

    def shutdown_write(self):
        self.called("shutdown_write")

    def fileno(self):
        self.called("fileno")
        return self.ready.fileno()

    def close(self):
        self.called("close")
        self.ready.close()
        self.other.close()

    def abort(self):
        self.called("abort")
        self.close()


class AsyncOwned(Owned):
    async def recv(self, size):
        return super().recv(size) or b""

    async def send(self, data):
        return super().send(data)


class ClosedWithin(unittest.TestCase):
    """Bug 42: what a callback belongs to is gone when it returns."""

    ROWS = [(where, how) for where in ("recv", "send", "shutdown_write", "fileno", "close")
            for how in ("close", "abort", "interrupt")]

    def check(self, owned, how, ends):
        with self.subTest(where=owned.where, how=how, kind=type(owned).__name__):
            self.assertTrue(owned.conn.closed)
            self.assertEqual(owned.calls.count("close"), 1, owned.calls)
            self.assertEqual(owned.calls[-1], "close")
            # Each call has ended, and those after the end say that it is closed or interrupted.
            self.assertEqual(len(ends), 3)
            if owned.where in ("recv", "send", "fileno"):
                self.assertIsInstance(ends[2], (ValueError, OSError))

    def test_blocking(self):
        for where, how in self.ROWS:
            owned = Owned(where, how)
            conn = owned.conn = netkit.Connection(owned, timeout=LIMIT_S)
            ends = []
            for call in (lambda: conn.write(b"x"), conn.readline, conn.shutdown_write):
                try:
                    ends.append(call())
                except (OSError, ValueError) as error:
                    self.assertNotIsInstance(error, TimeoutError)
                    ends.append(error)
            conn.close()
            self.check(owned, how, ends)

    def test_aio(self):
        async def run(kind, where, how):
            owned = kind(where, how)
            conn = owned.conn = aio.Connection(owned, timeout=LIMIT_S)
            ends = []
            for call in (lambda: conn.write(b"x"), conn.readline, conn.shutdown_write):
                try:
                    ends.append(await call())
                except (OSError, ValueError) as error:
                    self.assertNotIsInstance(error, TimeoutError)
                    ends.append(error)
            conn.close()
            await asyncio.sleep(0)
            return owned, ends
        for make in loops.LOOPS.values():
            for kind in (Owned, AsyncOwned):
                for where, how in self.ROWS:
                    if kind is AsyncOwned and (where == "fileno" or how == "abort"):
                        continue        # it is not asked; its abort is a close
                    owned, ends = loops.run(run(kind, where, how), make)
                    self.check(owned, how, ends)


class Serving(unittest.TestCase):
    def test_the_end_interrupts_clients(self):
        ends, begun, shown = [], threading.Event(), []

        def talk(conn):
            begun.set()
            try:
                conn.readline()
            except OSError as error:
                ends.append(error.errno)
                raise
            finally:
                ended.set()
        ended = threading.Event()
        before, threading.excepthook = threading.excepthook, shown.append
        self.addCleanup(setattr, threading, "excepthook", before)
        listener = netkit.listen("localhost:0")
        server = threading.Thread(target=netkit.serve, args=(talk, listener))
        server.start()
        with netkit.connect(listener.address, timeout=LIMIT_S) as conn:
            self.assertTrue(begun.wait(LIMIT_S))
            listener.close()
            server.join(LIMIT_S)
            self.assertTrue(ended.wait(LIMIT_S))
            self.assertEqual(conn.read(), b"")
        self.assertEqual((ends, shown), ([errno.ECANCELED], []))


if __name__ == "__main__":
    sys.exit(nkt_python.main())
