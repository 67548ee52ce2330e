#!/usr/bin/env python3
"""netkit.aio, on every kind of event loop: cancelling, time-outs, back-pressure, servers, ends."""

import asyncio
import contextlib
import errno
import gc
import inspect
import os
import re
import socket
import sys
import threading
import time
import unittest
import warnings

import nkt_python

nkt_python.use_netkit()

import loops                                                            # noqa: E402
import netkit                                                           # noqa: E402
from netkit import aio                                                  # noqa: E402


async def steps(count):
    """Lets the loop turn so many times."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition, limit_s=20):
    end = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("it did not happen in time")
        await asyncio.sleep(0.001)


def tcp():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    far.settimeout(20)
    return near, far


async def ends(kind):
    """A connected pair of aio connections: in memory or on a socket."""
    if kind == "pair":
        return aio.pair()
    near, far = tcp() if kind == "tcp" else socket.socketpair()
    return aio.Connection.from_socket(near), aio.Connection.from_socket(far)


class OnEveryLoop(unittest.TestCase):
    """Test methods named on_... are run once on each kind of loop."""

    def __init_subclass__(cls):
        for name, function in list(vars(cls).items()):
            if name.startswith("on_"):
                setattr(cls, "test_" + name[3:], cls.everywhere(function))

    @staticmethod
    def everywhere(function):
        def test(self):
            for name, make in loops.LOOPS.items():
                with self.subTest(loop=name):
                    loops.run(function(self), make)
        test.__doc__ = function.__doc__
        return test


# --- The two namespaces ---------------------------------------------------------

class Surface(unittest.TestCase):
    """What the two namespaces have is the same; what differs is listed here, with its reason."""

    # A blocking iterator and its asynchronous twin.
    TWINS = {"__iter__": "__aiter__", "__next__": "__anext__", "__enter__": "__aenter__",
             "__exit__": "__aexit__"}
    # What netkit has alone: not about waiting, so there is one of it.
    ONLY_BLOCKING = {"get_include"}
    # Never wait; their results may be awaited all the same.
    NOT_COROUTINES = {"connect", "listen", "pair", "udp", "udp_pair"}
    CLASSES = ("Connection", "Listener", "UDP")

    def test_names(self):
        self.assertEqual(sorted(set(netkit.__all__) - self.ONLY_BLOCKING), sorted(aio.__all__))

    def test_what_never_waits_is_the_same_object(self):
        for name in aio.__all__:
            one, other = getattr(netkit, name), getattr(aio, name)
            waits = name in self.CLASSES or inspect.isfunction(other)
            with self.subTest(name=name):
                self.assertEqual(one is other, not waits)

    def signature(self, function):
        found = inspect.signature(function)
        return [(each.name, each.kind, each.default) for each in found.parameters.values()]

    def test_functions(self):
        compared = 0
        for name in aio.__all__:
            if inspect.isfunction(getattr(aio, name)):
                with self.subTest(function=name):
                    self.assertEqual(self.signature(getattr(netkit, name)),
                                     self.signature(getattr(aio, name)))
                    self.assertEqual(inspect.iscoroutinefunction(getattr(aio, name)),
                                     name not in self.NOT_COROUTINES)
                    compared += 1
        self.assertGreaterEqual(compared, 7)

    def members(self, cls):
        return {name: inspect.getattr_static(cls, name) for name in dir(cls)
                if not name.startswith("_") or name in self.TWINS or
                name in self.TWINS.values() or name == "__init__"}

    def test_classes(self):
        compared = 0
        for name in self.CLASSES:
            blocking = self.members(getattr(netkit, name))
            awaited = self.members(getattr(aio, name))
            twins = {self.TWINS.get(member, member): value for member, value in blocking.items()}
            if name == "Listener":
                self.assertNotIn("__await__", twins)
            self.assertEqual(sorted(twins), sorted(awaited), name)
            for member, value in twins.items():
                with self.subTest(cls=name, member=member):
                    other = awaited[member]
                    if isinstance(value, property):
                        self.assertIsInstance(other, property)
                        self.assertEqual(value.fset is None, other.fset is None)
                    elif member in ("__aexit__",) or isinstance(value, property):
                        continue
                    else:
                        self.assertEqual(self.signature(self.bare(value)),
                                         self.signature(self.bare(other)))
                    compared += 1
        self.assertGreater(compared, 55)

    def bare(self, member):
        return getattr(member, "__func__", member)

    # What is said without waiting is no coroutine in either namespace.
    PLAIN = {"close", "abort", "interrupt", "notify", "detach", "to_socket", "fileno", "readable",
             "writable", "seekable", "isatty", "from_socket", "lines", "info", "join", "leave",
             "send_each"}

    def test_everything_that_waits_is_awaited(self):
        for cls in (aio.Connection, aio.Listener, aio.UDP):
            for name, member in self.members(cls).items():
                member = self.bare(member)
                if name.startswith("_") or not inspect.isfunction(member):
                    continue
                with self.subTest(cls=cls.__name__, member=name):
                    self.assertEqual(inspect.iscoroutinefunction(member),
                                     name not in self.PLAIN)

    def test_docstrings_name_the_same_exceptions(self):
        words = re.compile(r"\b(?:[A-Z]\w*(?:Error|Read|Long)|E[A-Z]{3,}|gaierror)\b")
        pairs = [(getattr(netkit, name), getattr(aio, name)) for name in aio.__all__
                 if inspect.isfunction(getattr(aio, name))]
        for cls in self.CLASSES:
            one, other = getattr(netkit, cls), getattr(aio, cls)
            for name in self.members(other):
                if inspect.isfunction(getattr(one, name, None)):
                    pairs.append((getattr(one, name), getattr(other, name)))
        self.assertGreater(len(pairs), 30)
        named = set()
        for one, other in pairs:
            with self.subTest(name=other.__qualname__):
                said = [set(words.findall(self.told(each))) for each in (one, other)]
                self.assertEqual(said[0], said[1])
                named |= said[0]
        self.assertGreater(len(named), 25)

    def told(self, function):
        """A docstring without its example, which catches what it likes."""
        return (function.__doc__ or "").partition(">>>")[0]

    def test_asyncio_is_imported_with_aio_only(self):
        code = ("import sys, netkit\n"
                "assert 'asyncio' not in sys.modules\n"
                "from netkit import aio\n"
                "assert 'asyncio' in sys.modules\n")
        nkt_python.python(code)


# --- Calls that block, in a loop ------------------------------------------------

class Blocking(unittest.TestCase):
    """A call of netkit that waits inside a running loop is told, where it was made."""

    def waits(self, stack):
        """Calls that find nothing, and end by their time-outs."""
        a, b = map(stack.enter_context, netkit.pair(timeout=0.02))
        c, d = map(stack.enter_context, netkit.udp_pair(timeout=0.02))
        listener = stack.enter_context(netkit.listen("127.0.0.1:0", timeout=0.02))
        for fill in (lambda: a.write(b"x" * 1000), lambda: c.send(b"x" * 1000)):
            with contextlib.suppress(TimeoutError):
                while True:
                    fill()
        return {
            "readline": lambda: a.readline(), "read": lambda: a.read(10),
            "read1": lambda: a.read1(), "read1, timed": lambda: a.read1(timeout=0.02),
            "read_until": lambda: a.read_until(b"$"), "iteration": lambda: next(iter(a)),
            "lines": lambda: next(a.lines()), "read_message": lambda: a.read_message(),
            "write": lambda: a.write(b"x" * 1000),
            "writelines": lambda: a.writelines([b"x" * 1000] * 3),
            "accept": lambda: listener.accept(), "recv": lambda: c.recv(),
            "recv_many": lambda: c.recv_many(), "datagrams": lambda: next(iter(c)),
            "send": lambda: c.send(b"x"), "send_many": lambda: c.send_many([b"x"])}

    def told(self, call):
        """What is warned about a call that ends by its time-out."""
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            with self.assertRaises(TimeoutError):
                call()
        return [(one.category, os.path.basename(one.filename), one.lineno) for one in seen
                if "netkit.aio" in str(one.message)]

    def test_a_wait_in_a_loop(self):
        async def run(call):
            return self.told(call)
        with contextlib.ExitStack() as stack:
            for name, call in self.waits(stack).items():
                with self.subTest(call=name):
                    self.assertEqual(self.told(call), [])
                    for make in loops.LOOPS.values():
                        # A machine that lets all of the time-out pass within the first
                        # millisecond of waiting gives the call no occasion.
                        seen = []
                        for _ in range(10):
                            seen = seen or loops.run(run(call), make)
                        self.assertEqual(seen, [(RuntimeWarning, os.path.basename(__file__),
                                                 call.__code__.co_firstlineno)])

    def test_once_for_a_place_and_for_many_slices(self):
        async def run():
            a, b = netkit.pair()
            with a, b:
                for timeout in (0.6, 0.02, 0.02):
                    with self.assertRaises(TimeoutError):
                        b.readline(timeout=timeout)
        for how, count in (("default", 1), ("always", 3)):
            with warnings.catch_warnings(record=True) as seen:
                warnings.simplefilter(how)
                loops.run(run())
            self.assertEqual(len(seen), count, how)

    def test_connect(self):
        """To where nothing is accepted any more."""
        with socket.socket() as full:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            others = [socket.socket() for _ in range(8)]
            for other in others:
                other.setblocking(False)
                other.connect_ex(full.getsockname())

            async def run():
                return self.told(lambda: netkit.connect(full.getsockname(), timeout=0.05))
            try:
                self.assertEqual(len(loops.run(run())), 1)
            finally:
                for other in others:
                    other.close()

    def test_what_is_there_is_not_a_wait(self):
        async def run():
            a, b = netkit.pair()
            c, d = netkit.udp("127.0.0.1:0"), netkit.udp("127.0.0.1:0")
            with a, b, c, d, netkit.listen("127.0.0.1:0") as listener:
                for _ in range(3):
                    a.write(b"line\n")
                    self.assertEqual(b.readline(), b"line\n")
                    a.writelines([b"more", b"!"])
                    self.assertEqual((b.read(4), b.read1()), (b"more", b"!"))
                    c.send(b"datagram", d.local)
                    self.assertEqual(d.recv_many()[0].data, b"datagram")
                with socket.create_connection(tuple(listener.address)):
                    listener.accept().close()
                netkit.resolve("127.0.0.1")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            loops.run(run())

    def test_aio_never_warns(self):
        async def run():
            async with aio.listen("localhost:0") as listener, aio.udp("127.0.0.1:0") as sock:
                async with await aio.connect("localhost", listener.port) as conn:
                    async with await listener.accept():
                        for wait in (conn.readline, conn.read1, listener.accept, sock.recv,
                                     sock.recv_many):
                            with self.assertRaises(TimeoutError):
                                await wait(timeout=0.02)
                        with self.assertRaises(TimeoutError):
                            while True:
                                await conn.write(b"x" * 100000, timeout=0.02)
                await aio.resolve("localhost")
        for make in loops.LOOPS.values():
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                loops.run(run(), make)

    def test_a_thread_of_a_program_with_a_loop(self):
        def work():
            return self.told(lambda: a.readline(timeout=0.02))

        async def run():
            return await asyncio.get_running_loop().run_in_executor(None, work)
        a, b = netkit.pair()
        with a, b:
            self.assertEqual(loops.run(run()), [])


# --- Cancelling -------------------------------------------------------------------

DATA = b"first line\nsecond\n\x00\x00\x00\x05hello$rest of it"


async def read_all_kinds(conn):
    """Every kind of read, in an order that eats DATA; a list of what is left to do."""
    return [("readline", (), b"first line\n"), ("peek", (3,), None), ("readline", (), b"second\n"),
            ("read_message", (), b"hello"), ("read_until", (b"$",), b"$"),
            ("read_exact", (5,), b"rest "), ("read", (2,), b"of"), ("read1", (), None)]


class Cancelling(OnEveryLoop):
    KINDS = ("tcp", "socketpair", "pair")

    async def on_reads_lose_nothing_at_any_byte(self):
        """Each byte comes alone; the read is cancelled after each, and begun again."""
        for kind in self.KINDS:
            a, b = await ends(kind)
            async with a, b:
                sent = 0
                for name, args, want in await read_all_kinds(b):
                    if want is None:
                        continue
                    got = None
                    for _ in range(40):
                        task = asyncio.ensure_future(getattr(b, name)(*args))
                        await steps(4)
                        if not task.done():
                            task.cancel()
                        got = (await asyncio.gather(task, return_exceptions=True))[0]
                        if not isinstance(got, asyncio.CancelledError):
                            break
                        await a.write(DATA[sent:sent + 1])
                        sent += 1
                    self.assertEqual(got, want, (kind, name))
                self.assertEqual(sent, DATA.index(b" it"))

    async def on_reads_lose_nothing_at_any_step(self):
        """All of it comes at once; the read is cancelled after each number of the loop's turns."""
        operations = {"readline": (), "read_lines": (), "read_exact": (11,), "read_until": (b"\n",),
                      "read": (11,), "read1": (), "peek": (2,), "skip_line": ()}
        data = b"first line\n"
        for kind in self.KINDS:
            for name, args in operations.items():
                ended = False
                for count in range(12):
                    a, b = await ends(kind)
                    async with a, b:
                        task = asyncio.ensure_future(getattr(b, name)(*args))
                        await steps(1)
                        await a.write(data)
                        await steps(count)
                        task.cancel()
                        got = (await asyncio.gather(task, return_exceptions=True))[0]
                        await a.write(b"more\n")
                        await a.shutdown_write()
                        rest = await b.read()
                        if isinstance(got, asyncio.CancelledError):
                            self.assertEqual(rest, data + b"more\n", (kind, name, count))
                        elif name == "peek":
                            ended = True
                            self.assertEqual(rest, data + b"more\n", (kind, name, count))
                        else:
                            ended = True
                            self.assertEqual(rest, b"more\n", (kind, name, count))
                            if name not in ("read_lines", "skip_line"):
                                self.assertEqual(got, data)
                if kind == "pair":
                    self.assertTrue(ended, (kind, name))

    async def on_iteration_goes_on(self):
        a, b = await ends("tcp")
        async with a, b:
            got = []

            async def read(lines):
                async for line in lines():
                    got.append(line)

            for i in range(20):
                which = b.__aiter__ if i % 2 else b.lines
                task = asyncio.ensure_future(read(which))
                await a.write(b"%d\n%d" % (2 * i, 2 * i + 1))
                await until(lambda: len(got) == 2 * i + 1)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                await a.write(b"\n")
                got.append(await b.readline())
            await a.shutdown_write()
            self.assertEqual(await b.read(), b"")
            numbers = [int(line) for line in got]
            self.assertEqual(numbers, list(range(40)))

    async def on_a_large_read_is_put_back(self):
        a, b = await ends("tcp")
        data = bytes(range(256)) * 4096
        async with a, b:
            for operation in (b.read, lambda: b.read_exact(len(data) + 1)):
                writer = asyncio.ensure_future(a.write(data))
                task = asyncio.ensure_future(operation())
                await writer
                await until(lambda: b.info.received >= len(data) and b.info.buffered == 0 or
                            b.info.received % len(data) == 0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                self.assertTrue(task.cancelled())
                self.assertEqual(await b.read_exact(len(data)), data)

    async def on_writes_are_whole_or_not_at_all(self):
        """Messages larger than every buffer, cancelled at any moment: each is there or not."""
        for kind in ("tcp", "pair"):
            a, b = await ends(kind)
            async with a, b:
                b.message_max = a.message_max = 10000000
                a.queue_max = 50000
                cancelled = 0

                async def read():
                    found = []
                    while True:
                        message = await b.read_message()
                        if message is None:
                            return found
                        found.append(message)

                reader = None
                for i in range(12):
                    body = bytes([i]) * (300000 * (i % 4) + 10)
                    task = asyncio.ensure_future(a.write_message(body))
                    await steps(i // 2)
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)
                    cancelled += task.cancelled()
                    if i == 5:
                        reader = asyncio.ensure_future(read())
                await a.write_message(b"end")
                await a.shutdown_write()
                found = await reader
                self.assertGreater(cancelled, 0)
                self.assertEqual(found.pop(), b"end")
                for message in found:
                    self.assertEqual(message, message[:1] * len(message))
                    self.assertEqual(len(message), 300000 * (message[0] % 4) + 10)
                order = [message[0] for message in found]
                self.assertEqual(order, sorted(order))

    async def on_a_changed_buffer_does_not_tear(self):
        a, b = await ends("tcp")
        async with a, b:
            data = bytearray(b"x" * 8000000)
            task = asyncio.ensure_future(a.write(data))
            await steps(5)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self.assertTrue(task.cancelled())
            data[:] = b"y" * len(data)
            self.assertEqual(await b.read_exact(len(data)), b"x" * len(data))

    async def on_connect_and_accept(self):
        """Cancelled after any number of turns: nothing stays open, and the next ones work."""
        async with aio.listen("127.0.0.1:0") as listener:
            before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
            for count in range(8):
                connecting = asyncio.ensure_future(connected(listener.address))
                accepting = asyncio.ensure_future(listener.accept())
                await steps(count)
                connecting.cancel()
                accepting.cancel()
                for done in await asyncio.gather(connecting, accepting, return_exceptions=True):
                    if not isinstance(done, BaseException):
                        done.close()
                # Those that were connected wait in the listener's queue.
                while True:
                    try:
                        (await listener.accept(timeout=0.05)).close()
                    except TimeoutError:
                        break
            async with aio.connect(listener.address) as conn, await listener.accept() as other:
                await conn.write(b"still there\n")
                self.assertEqual(await other.readline(), b"still there\n")
            if before is not None:
                await until(lambda: len(os.listdir("/proc/self/fd")) <= before + 3)

    async def on_resolve(self):
        for count in range(6):
            task = asyncio.ensure_future(aio.resolve("localhost", 80))
            await steps(count)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self.assertIn(netkit.Address("127.0.0.1", 80), await aio.resolve("localhost", 80))


async def connected(address):
    return await aio.connect(address)


# --- Time-outs ----------------------------------------------------------------------

class Timeouts(OnEveryLoop):
    async def on_calls_have_their_own(self):
        a, b = await ends("tcp")
        async with a, b:
            await a.write(b"half a li")
            for call in (b.readline, b.read, lambda **k: b.read_exact(100, **k),
                         lambda **k: b.read_until(b"$", **k), lambda **k: b.peek(100, **k),
                         b.read_lines):
                with self.assertRaises(TimeoutError) as caught:
                    await call(timeout=0.01)
                self.assertEqual(caught.exception.errno, errno.ETIMEDOUT)
            b.timeout = 0.01
            with self.assertRaises(TimeoutError):
                await b.readline()
            with self.assertRaises(TimeoutError):
                async for _ in b:
                    self.fail("there is no line")
            await a.write(b"ne\n")
            self.assertEqual(await b.readline(timeout=None), b"half a line\n")

    async def on_the_whole_call(self):
        """Bytes that trickle in do not keep a call alive."""
        a, b = await ends("tcp")
        async with a, b:
            async def trickle():
                while True:
                    await a.write(b"x")
                    await asyncio.sleep(0.01)
            task = asyncio.ensure_future(trickle())
            with self.assertRaises(TimeoutError):
                await b.readline(timeout=0.1)
            task.cancel()

    async def on_writing(self):
        a, b = await ends("tcp")
        async with a, b:
            a.queue_max = 10000
            with self.assertRaises(TimeoutError) as caught:
                await a.write(b"x" * 20000000, timeout=0.05)
            # It has begun, so all of it will be sent.
            self.assertEqual(caught.exception.sent, 20000000)
            with self.assertRaises(TimeoutError) as caught:
                await a.write(b"y", timeout=0.01)
            self.assertEqual(caught.exception.sent, 0)
            with self.assertRaises(TimeoutError):
                await a.flush(timeout=0.01)
            reader = asyncio.ensure_future(b.read_exact(20000001))
            await a.write(b"z")
            self.assertEqual(await reader, b"x" * 20000000 + b"z")

    async def on_accepting_and_connecting(self):
        async with aio.listen("127.0.0.1:0") as listener:
            with self.assertRaises(TimeoutError):
                await listener.accept(timeout=0.01)
        # TEST-NET-1 goes nowhere: the attempt is under way until its time is over.
        blocked, far = await full_listener()
        try:
            with self.assertRaises(TimeoutError) as caught:
                await aio.connect(blocked, timeout=0.1)
            self.assertEqual(len(caught.exception.attempts), 1)
        finally:
            for sock in far:
                sock.close()

    async def on_asyncio_timeouts(self):
        a, b = await ends("tcp")
        async with a, b:
            await a.write(b"half")
            with self.assertRaises(asyncio.TimeoutError):
                await asyncio.wait_for(b.readline(), 0.01)
            if hasattr(asyncio, "timeout"):
                with self.assertRaises(TimeoutError):
                    async with asyncio.timeout(0.01):
                        await b.read_exact(100)
            await a.write(b" line\n")
            self.assertEqual(await b.readline(), b"half line\n")


async def full_listener():
    """An address on this host that answers nobody: its queue is full."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    full = [listener]
    for _ in range(4):
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(listener.getsockname())
        full.append(sock)
    await asyncio.sleep(0.05)
    return listener.getsockname(), full


# --- Writing ------------------------------------------------------------------------

class Writing(OnEveryLoop):
    async def on_back_pressure(self):
        """A writer waits until the peer reads; memory stays bounded."""
        for kind in ("tcp", "pair"):
            a, b = await ends(kind)
            async with a, b:
                a.queue_max = 100000
                written = 0

                async def write():
                    nonlocal written
                    for _ in range(2000):
                        written += await a.write(b"x" * 10000)

                task = asyncio.ensure_future(write())
                seen = -1
                while seen != written:
                    seen = written
                    await asyncio.sleep(0.05)
                self.assertLess(written, 20000000)
                self.assertFalse(task.done())
                self.assertLessEqual(a.info.queued, 100000)
                got = 0
                while got < 20000000:
                    got += len(await b.read1())
                await task
                self.assertEqual(got, 20000000)

    async def on_writers_take_turns(self):
        for kind in ("tcp", "pair"):
            a, b = await ends(kind)
            async with a, b:
                a.queue_max = 5000
                reader = asyncio.ensure_future(b.read_exact(50 * 40000))
                await asyncio.gather(*(a.write(bytes([i]) * 40000) for i in range(50)))
                got = await reader
                self.assertEqual([got[i * 40000:(i + 1) * 40000] for i in range(50)],
                                 [bytes([i]) * 40000 for i in range(50)])

    async def on_any_buffer(self):
        import array
        a, b = await ends("tcp")
        async with a, b:
            numbers = array.array("I", range(1000))
            self.assertEqual(await a.write(numbers), 4 * len(numbers))
            self.assertEqual(await b.read_exact(4 * len(numbers)), numbers.tobytes())
            self.assertEqual(await a.write(memoryview(b"abcdef")[1:3]), 2)
            self.assertEqual(await b.read1(), b"bc")
            self.assertEqual(await a.write(b""), 0)
            with self.assertRaises(TypeError):
                await a.write("text")
            with self.assertRaises(BufferError):
                await a.write(memoryview(b"abcdef")[::2])
            await a.writelines([b"x" * 100000, b"", bytearray(b"y"), memoryview(b"z")])
            self.assertEqual(await b.read_exact(100002), b"x" * 100000 + b"yz")

    async def on_a_gone_peer_is_told(self):
        a, b = await ends("tcp")
        async with a:
            b.abort()
            with self.assertRaises((ConnectionResetError, BrokenPipeError)):
                for _ in range(1000):
                    await a.write(b"x" * 1000)
                    await asyncio.sleep(0.001)

    async def on_others_have_their_turn(self):
        """A task that never has to wait does not keep the loop to itself."""
        a, b = await ends("tcp")
        async with a, b:
            turns = 0

            async def count():
                nonlocal turns
                while True:
                    turns += 1
                    await asyncio.sleep(0)

            other = asyncio.ensure_future(count())
            for _ in range(1000):
                await a.write(b"x")
                await b.read1()
            other.cancel()
            self.assertGreater(turns, 10)


# --- Servers and user's classes --------------------------------------------------

class Servers(OnEveryLoop):
    async def on_chat_of_200(self):
        """Everybody hears everybody, in one order, whoever comes and goes."""
        room = set()

        async def chat(conn):
            room.add(conn)
            try:
                async for line in conn:
                    await asyncio.gather(*(other.write(line) for other in list(room)),
                                         return_exceptions=True)
            finally:
                room.discard(conn)

        listener = aio.listen("127.0.0.1:0")
        server = asyncio.ensure_future(aio.serve(chat, listener))
        clients = await asyncio.gather(*(connected(listener.address) for _ in range(200)))
        await until(lambda: len(room) == 200)
        for i in range(0, 200, 20):
            await clients[i].write(b"hello from %d\n" % i)
        heard = await asyncio.gather(*(read_count(client, 10) for client in clients))
        self.assertEqual(sorted(heard[0]), sorted(b"hello from %d\n" % i
                                                  for i in range(0, 200, 20)))
        for lines in heard:
            self.assertEqual(sorted(lines), sorted(heard[0]))
        for client in clients:
            await client.shutdown_write()
            self.assertEqual(await client.read(), b"")
            client.close()
        await until(lambda: not room)
        listener.close()
        await server

    async def on_max_clients(self):
        now = most = 0

        async def talk(conn):
            nonlocal now, most
            now += 1
            most = max(most, now)
            await conn.readline()
            now -= 1

        listener = aio.listen("127.0.0.1:0")
        server = asyncio.ensure_future(aio.serve(talk, listener, max_clients=3))
        clients = [await aio.connect(listener.address) for _ in range(10)]
        for client in clients:
            await client.write(b"go\n")
            self.assertEqual(await client.read(), b"")
            client.close()
        self.assertEqual(most, 3)
        server.cancel()
        await asyncio.gather(server, return_exceptions=True)
        self.assertTrue(listener.closed)

    async def on_ending_a_server_ends_its_clients(self):
        started = asyncio.Event()
        ended = []

        async def talk(conn):
            started.set()
            try:
                await conn.readline()
            finally:
                ended.append(conn)

        listener = aio.listen("127.0.0.1:0")
        server = asyncio.ensure_future(aio.serve(talk, listener))
        async with aio.connect(listener.address) as client:
            await started.wait()
            server.cancel()
            await asyncio.gather(server, return_exceptions=True)
            self.assertEqual([conn.closed for conn in ended], [True])
            self.assertEqual(await client.read(), b"")

    async def on_a_handler_that_raises(self):
        told = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, what: told.append(what))

        async def talk(conn):
            line = await conn.readline()
            raise {b"bad\n": KeyError("bad"), b"gone\n": ConnectionResetError()}[line]

        listener = aio.listen("127.0.0.1:0")
        server = asyncio.ensure_future(aio.serve(talk, listener))
        for line in (b"bad\n", b"gone\n"):
            async with aio.connect(listener.address) as client:
                await client.write(line)
                self.assertEqual(await client.read(), b"")
        listener.close()
        await server
        self.assertEqual([type(what["exception"]) for what in told], [KeyError])

    async def on_iterating_a_listener(self):
        listener = await aio.listen("localhost:0")
        got = []

        async def accept():
            async for conn in listener:
                got.append(conn)

        task = asyncio.ensure_future(accept())
        one = await aio.connect("127.0.0.1", listener.port)
        other = await connected(("localhost", listener.port))
        await until(lambda: len(got) == 2)
        listener.close()
        await task
        self.assertEqual([conn.peer for conn in got], [one.local, other.local])
        for conn in got + [one, other]:
            await conn.close()

    async def on_a_failed_connect(self):
        async with aio.listen("127.0.0.1:0") as listener:
            address = listener.address
        with self.assertRaises(ConnectionRefusedError) as caught:
            await aio.connect(address)
        [attempt] = caught.exception.attempts
        self.assertEqual(attempt.address, address)
        self.assertIn(str(address), str(caught.exception))
        with self.assertRaises(netkit.AddressError):
            await aio.connect("127.0.0.1:port")
        with self.assertRaises(socket.gaierror):
            await aio.connect("nobody.invalid", 80)


async def read_count(conn, count):
    return [await conn.readline() for _ in range(count)]


class Slow:
    """A transport whose methods are coroutines, over two queues."""

    def __init__(self):
        self.incoming = asyncio.Queue()
        self.sent = []
        self.closed = 0

    async def recv(self, size):
        await asyncio.sleep(0.001)
        data = await self.incoming.get()
        if isinstance(data, Exception):
            raise data
        return data

    async def send(self, data):
        await asyncio.sleep(0.001)
        self.sent.append(data[:1000])
        return len(data[:1000])

    async def shutdown_write(self):
        self.sent.append(None)

    def close(self):
        self.closed += 1


class Transports(OnEveryLoop):
    async def on_coroutines(self):
        slow = Slow()
        async with aio.Connection(slow) as conn:
            slow.incoming.put_nowait(b"one\ntw")
            self.assertEqual(await conn.readline(), b"one\n")
            with self.assertRaises(TimeoutError):
                await conn.readline(timeout=0.02)
            slow.incoming.put_nowait(b"o\n")
            self.assertEqual(await conn.readline(), b"two\n")
            # A recv that is under way goes on without its reader.
            task = asyncio.ensure_future(conn.readline())
            await steps(3)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            slow.incoming.put_nowait(b"three\n")
            await asyncio.sleep(0.01)
            self.assertEqual(await conn.readline(), b"three\n")
            await conn.write(b"x" * 2500)
            self.assertEqual(slow.sent, [b"x" * 1000, b"x" * 1000, b"x" * 500])
            await conn.shutdown_write()
            self.assertIsNone(slow.sent[-1])
            slow.incoming.put_nowait(KeyError("from within"))
            with self.assertRaisesRegex(KeyError, "from within"):
                await conn.readline()
        self.assertEqual(slow.closed, 1)

    async def on_not_now(self):
        """Methods that do not wait say None, and notify() says when."""
        class Box:
            inbox = None

            def recv(self, size):
                data, self.inbox = self.inbox, None
                return data

            def send(self, data):
                return len(data)

        box = Box()
        async with aio.Connection(box) as conn:
            with self.assertRaises(TimeoutError):
                await conn.readline(timeout=0.01)

            def later():
                box.inbox = b"now\n"
                conn.notify()

            thread = threading.Timer(0.02, later)
            thread.start()
            self.assertEqual(await conn.readline(timeout=20), b"now\n")
            thread.join()

    async def on_what_is_none(self):
        for wrong in (object(), 5, None):
            with self.assertRaises(TypeError):
                aio.Connection(wrong)


# --- Ends -----------------------------------------------------------------------------

class Ends(OnEveryLoop):
    async def on_closing_while_others_wait(self):
        for kind in ("tcp", "pair"):
            a, b = await ends(kind)
            a.queue_max = 1000
            waiting = [asyncio.ensure_future(each) for each in
                       (a.readline(), a.read(), a.write(b"x" * 20000000), a.flush())]
            await steps(5)
            a.close()
            for done in await asyncio.gather(*waiting, return_exceptions=True):
                self.assertIsInstance(done, OSError)
                self.assertEqual(done.errno, errno.ECANCELED)
            for call in (a.readline, a.read, a.flush, lambda: a.write(b"x")):
                with self.assertRaises(ValueError):
                    await call()
            await a.close()
            b.close()

    async def on_interrupting(self):
        a, b = await ends("tcp")
        async with a, b:
            task = asyncio.ensure_future(b.readline())
            await steps(3)
            b.interrupt()
            with self.assertRaises(OSError) as caught:
                await task
            self.assertEqual(caught.exception.errno, errno.ECANCELED)

    async def on_detaching(self):
        near, far = tcp()
        conn = aio.Connection.from_socket(near)
        with far:
            with self.assertRaises(TimeoutError):
                await conn.readline(timeout=0.01)
            with conn.to_socket() as sock:
                self.assertTrue(conn.closed)
                sock.send(b"plain")
                self.assertEqual(far.recv(10), b"plain")

    async def on_a_closed_listener(self):
        listener = aio.listen("127.0.0.1:0")
        task = asyncio.ensure_future(listener.accept())
        await steps(3)
        listener.close()
        with self.assertRaises(OSError) as caught:
            await task
        self.assertEqual(caught.exception.errno, errno.ECANCELED)
        with self.assertRaises(ValueError):
            await listener.accept()

    async def on_unclosed(self):
        """What nobody closes is told of once, and closed; the loop goes on undisturbed."""
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            near, far = tcp()
            conn = aio.Connection.from_socket(near)
            with self.assertRaises(TimeoutError):
                await conn.readline(timeout=0.01)       # so that its descriptor is watched
            del conn
            listener = aio.listen("127.0.0.1:0")
            with self.assertRaises(TimeoutError):
                await listener.accept(timeout=0.01)
            del listener
            a, b = aio.pair()
            del a
            for _ in range(3):
                gc.collect()
                await asyncio.sleep(0.01)
        said = [str(each.message) for each in told if each.category is ResourceWarning]
        self.assertEqual(len(said), 3, said)
        # PyPy's collector comes to them in an order of its own.
        self.assertEqual(sorted(text.split()[1] for text in said),
                         ["<netkit.aio.Connection", "<netkit.aio.Connection",
                          "<netkit.aio.Listener"])
        self.assertEqual([text for text in said if not text.startswith("unclosed ")], [])
        self.assertEqual(await b.readline(), b"")
        b.close()
        far.setblocking(False)
        with far:
            await until(lambda: with_nothing(far))
        # The numbers of the descriptors are used again, in the same loop.
        for _ in range(3):
            a, b = await ends("tcp")
            async with a, b:
                task = asyncio.ensure_future(b.readline())
                await steps(3)
                await a.write(b"again\n")
                self.assertEqual(await task, b"again\n")


def with_nothing(sock):
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False


class AfterTheLoop(unittest.TestCase):
    def test_closing_when_the_loop_is_closed(self):
        for name, make in loops.LOOPS.items():
            with self.subTest(loop=name):
                async def leave():
                    a, b = await ends("tcp")
                    for conn in (a, b):
                        with contextlib.suppress(TimeoutError):
                            await conn.readline(timeout=0.01)
                    listener = aio.listen("127.0.0.1:0")
                    with contextlib.suppress(TimeoutError):
                        await listener.accept(timeout=0.01)
                    return a, b, listener

                a, b, listener = loops.run(leave(), make)
                a.close()
                listener.close()
                with warnings.catch_warnings(record=True) as told:
                    warnings.simplefilter("always")
                    del b
                    for _ in range(3):
                        gc.collect()
                self.assertEqual([each.category for each in told], [ResourceWarning])

    def test_threads_of_loops_end(self):
        async def use():
            async with aio.listen("127.0.0.1:0") as listener:
                async with aio.connect(listener.address) as conn:
                    async with await listener.accept() as other:
                        await conn.write(b"x\n")
                        await other.readline()

        for _ in range(3):
            loops.run(use(), loops.NoReaders)
        end = time.monotonic() + 20
        while any(thread.name == "netkit.aio poller" for thread in threading.enumerate()):
            self.assertLess(time.monotonic(), end)
            time.sleep(0.01)

    def test_one_thread_a_loop(self):
        async def use():
            async with aio.listen("127.0.0.1:0") as listener:
                conns = [await aio.connect(listener.address) for _ in range(20)]
                for conn in conns:
                    with contextlib.suppress(TimeoutError):
                        await conn.readline(timeout=0.001)
                names = [thread.name for thread in threading.enumerate()]
                for conn in conns:
                    conn.close()
                return names.count("netkit.aio poller")

        self.assertEqual(loops.run(use(), loops.NoReaders), 1)
        self.assertEqual(loops.run(use()), 0)


class Processes(unittest.TestCase):
    """The end of the interpreter, and forks, with everything open."""

    OPEN = """
import asyncio, os, sys, threading
import loops, netkit
from netkit import aio

async def opened():
    a, b = aio.pair()
    listener = aio.listen("127.0.0.1:0")
    conn = await aio.connect("127.0.0.1", listener.port)
    accepted = await listener.accept()
    sock = aio.udp("127.0.0.1:0")
    one, two = aio.udp_pair()
    return [a, b, listener, conn, accepted, sock, one, two]

def waits(a, b, listener, conn, accepted, sock, one, two):
    return [b.readline, conn.read, listener.accept, sock.recv, two.recv_many]
"""
    EXIT = OPEN + """
async def main():
    everything = await opened()
    everything.append(everything)
    tasks = [asyncio.ensure_future(wait()) for wait in waits(*everything[:8])]
    await asyncio.sleep(0.02)
    assert not any(task.done() for task in tasks)
    return everything, tasks

loop = loops.LOOPS[sys.argv[1]]()
kept = loop.run_until_complete(main())
sock = netkit.udp("127.0.0.1:0")
threading.Thread(target=sock.recv, daemon=True).start()
if sys.argv[2] == "closed":
    loop.close()
elif sys.argv[2] == "forgotten":
    del loop
print("over")
"""
    FORK = OPEN + """
async def fails(everything):
    for wait in waits(*everything) + [lambda: everything[0].write(b"x"),
                                      lambda: everything[5].send(b"x", "127.0.0.1:9")]:
        try:
            await wait()
        except RuntimeError as error:
            assert "parent process" in str(error), error
        else:
            raise AssertionError(wait)

async def works(everything):
    a, b, listener, conn, accepted, sock, one, two = everything
    await a.write(b"a\\n")
    await accepted.write(b"b\\n")
    await sock.send(b"c", sock.local)
    await one.send(b"d")
    said = [await b.readline(), await conn.readline(), (await sock.recv()).data,
            (await two.recv()).data]
    assert said == [b"a\\n", b"b\\n", b"c", b"d"], said
    async with aio.connect("127.0.0.1", listener.port), await listener.accept():
        pass

def child():
    loops.run(fails(everything), make)
    for one in everything:
        one.close()
    async def again():
        await works(await opened())
    loops.run(again(), make)

make = loops.LOOPS[sys.argv[1]]
loop = make()
everything = loop.run_until_complete(opened())
pid = os.fork()
if pid == 0:
    status = 1
    try:
        child()
        status = 0
    except BaseException:
        import traceback
        traceback.print_exc()
    finally:
        os._exit(status)
_, status = os.waitpid(pid, 0)
assert status == 0, status
# Nothing of the parent's was shut down or deregistered.
loop.run_until_complete(asyncio.wait_for(works(everything), 20))
for one in everything:
    one.close()
loop.close()
print("well")
"""

    def run_on_loops(self, code, *arguments):
        env = dict(os.environ, PYTHONWARNINGS="ignore")
        env["PYTHONPATH"] = os.pathsep.join([nkt_python.HERE, env["PYTHONPATH"]])
        for name in loops.LOOPS:
            with self.subTest(loop=name):
                out, err = nkt_python.python(code, name, *arguments, env=env)
                for word in ("Traceback", "Fatal", "Exception ignored"):
                    self.assertNotIn(word, err)
                yield out

    def test_the_end_of_the_interpreter(self):
        for how in ("open", "closed", "forgotten"):
            said = list(self.run_on_loops(self.EXIT, how))
            self.assertEqual(said, ["over\n"] * len(loops.LOOPS), how)

    @unittest.skipUnless(hasattr(os, "fork"), "there is no fork")
    def test_a_child_only_closes(self):
        said = list(self.run_on_loops(self.FORK))
        self.assertEqual(said, ["well\n"] * len(loops.LOOPS))


if __name__ == "__main__":
    sys.exit(nkt_python.main())
