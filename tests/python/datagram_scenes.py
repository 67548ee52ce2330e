"""The datagram scenario table, in Python: the same rows for netkit and netkit.aio.

As in scenes.py each row is a coroutine: `await s.do(function, ...)` calls a method of the socket
under test, netkit's as it is, netkit.aio's awaited. The names are those of
tests/scenario/udp_table.h; ROWS and NOT_HERE together have all of them, which a test checks.

A scene is two sockets of the namespace, `a` and `b`, on a face: UDP over loopback, UDP with both
ends connected, or a pair in memory.
"""

import array
import copy
import errno
import inspect
import pickle
import signal
import threading

import netkit

FACES = ("udp", "connected", "pair")
LIMIT_S = 20
SHORT = 0.03            # a time-out that is to pass


class Scene:
    def __init__(self, namespace, face):
        self.namespace = namespace
        self.face = face
        self.a = self.b = None
        self.others = []
        self.threads = []
        self.tasks = []

    async def do(self, function, *args, **kwargs):
        result = function(*args, **kwargs)
        return (await result) if inspect.isawaitable(result) else result

    async def begin(self):
        if self.face == "pair":
            self.a, self.b = await self.do(self.namespace.udp_pair, timeout=LIMIT_S)
            return
        self.a = await self.open("127.0.0.1:0")
        self.b = await self.open("127.0.0.1:0")
        if self.face == "connected":
            await self.do(self.a.connect, self.b.local)
            await self.do(self.b.connect, self.a.local)

    async def open(self, *args, **options):
        opened = await self.do(self.namespace.udp, *args, timeout=LIMIT_S, **options)
        self.others.append(opened)
        return opened

    async def end(self):
        for task in self.tasks:
            await task
        for thread in self.threads:
            thread.join(LIMIT_S)
        for one in [self.a, self.b] + self.others:
            if one is not None:
                await self.do(one.close)

    def to(self, other):
        """The `to` argument by which `other` is reached."""
        return other.local if self.face == "udp" else None

    def seen(self, sender):
        """As whom the receiver sees a sender."""
        return None if self.face == "pair" else sender.local

    async def send(self, data, **options):
        return await self.do(self.a.send, data, self.to(self.b), **options)

    async def reply(self, data):
        return await self.do(self.b.send, data, self.to(self.a))

    async def recv(self, **options):
        return await self.do(self.b.recv, **options)

    async def fails(self, wanted, function, *args, code=None, **kwargs):
        """That the call raises an exception of a class, with an errno."""
        try:
            result = await self.do(function, *args, **kwargs)
        except wanted as error:
            if code is not None:
                equal(error.errno, code)
            return error
        raise AssertionError("gave %r, and should raise %s" % (result, wanted.__name__))

    async def fill(self):
        """Sends to a pair's other end until no more is taken; how many that were."""
        count = 0
        try:
            while True:
                await self.send(b"%1000d" % count, timeout=SHORT)
                count += 1
        except TimeoutError:
            return count

    async def hear(self, count):
        """The next numbers that fill() has sent."""
        return [int((await self.recv()).data) for _ in range(count)]

    def meanwhile(self, function):
        """Does it in a task or a thread of its own, and awaits it at the end."""
        async def drive():
            await function()
        if "aio" in self.namespace.__name__:
            import asyncio
            self.tasks.append(asyncio.ensure_future(drive()))
            return
        coroutine = drive()

        def run():
            try:
                coroutine.send(None)
            except StopIteration:
                pass
        self.threads.append(threading.Thread(target=run))
        self.threads[-1].start()

    def later(self, seconds, function):
        """Calls it meanwhile, as the namespace wants to be called."""
        call = function
        if "aio" in self.namespace.__name__:
            import asyncio
            loop = asyncio.get_running_loop()

            def call():
                loop.call_soon_threadsafe(function)
        timer = threading.Timer(seconds, call)
        self.threads.append(timer)
        timer.start()


def equal(got, wanted):
    if got != wanted:
        raise AssertionError("got %r, wanted %r" % (got, wanted))


def at_least(got, least):
    if not got >= least:
        raise AssertionError("got %r, wanted %r or more" % (got, least))


# --- The rows -----------------------------------------------------------------------

async def row_one(s):
    equal(await s.send(b"there"), 5)
    equal((await s.recv()).data, b"there")
    equal(await s.reply(b"back"), 4)
    equal((await s.do(s.a.recv)).data, b"back")


async def row_sender(s):
    await s.send(b"x")
    data, sender = await s.recv()
    equal(data, b"x")
    if s.face == "pair":
        equal(sender, None)
        return
    equal(sender, s.a.local)
    await s.do(s.b.send, b"y", None if s.face == "connected" else sender)
    got = await s.do(s.a.recv)
    equal(got[1], s.b.local)
    equal(got.to, netkit.IP("127.0.0.1"))
    equal(got.interface_index, netkit.IP("fe80::1%lo").scope)
    equal(got.interface, "lo")
    equal(got.hops, 64)
    equal(got.traffic_class, 0)
    equal(got.truncated, False)


async def row_waits(s):
    def say():
        if "aio" in s.namespace.__name__:
            import asyncio
            s.task = asyncio.ensure_future(s.send(b"late"))
        else:
            s.a.send(b"late", s.to(s.b))
    s.later(SHORT, say)
    equal((await s.recv()).data, b"late")


async def row_empty(s):
    equal(await s.send(b""), 0)
    got = await s.recv()
    equal((got.data, got.truncated), (b"", False))
    await s.send(b"after")
    equal((await s.recv()).data, b"after")


async def row_borders(s):
    sent = [bytes([i]) * (i * 37 % 200) for i in range(100)]
    for data in sent:
        await s.send(data)
    equal([(await s.recv()).data for _ in sent], sent)


async def row_truncated(s):
    await s.send(b"123456")
    await s.send(b"12345")
    got = await s.recv(size=5)
    equal((got.data, got.truncated), (b"12345", True))
    got = await s.recv(size=5)
    equal((got.data, got.truncated), (b"12345", False))
    equal(s.b.info().truncated, 1)


async def row_truncated_told(s):
    await s.send(b"hello")
    await s.send(b"four")
    await s.send(b"hello")
    for data, cut in ((b"hell", True), (b"four", False)):
        got = await s.recv(size=4)
        equal((tuple(got), got.truncated), ((data, s.seen(s.a)), cut))
    # A list is never cut, whatever recv() was to take before.
    [got] = await s.do(s.b.recv_many)
    equal((tuple(got), got.truncated), ((b"hello", s.seen(s.a)), False))
    equal(s.b.info().truncated, 1)


async def row_no_room(s):
    await s.fails(ValueError, s.b.recv, 0)
    await s.fails(ValueError, s.b.recv, -1)
    await s.fails(ValueError, s.b.recv, 65536)
    await s.fails(TypeError, s.b.recv, 1.5)
    await s.fails(ValueError, s.b.recv_many, 0)
    await s.send(b"still there")
    equal((await s.recv()).data, b"still there")


async def row_large(s):
    data = bytes(range(256)) * 31 + b"end"
    await s.send(data)
    await s.send(memoryview(data))
    await s.send(bytearray(data))
    for _ in range(3):
        equal((await s.recv()).data, data)


async def row_too_large(s):
    await s.fails(OSError, s.a.send, b"x" * 65536, s.to(s.b), code=errno.EMSGSIZE)
    await s.fails(OSError, s.a.send_many, [b"x" * 65536], s.to(s.b), code=errno.EMSGSIZE)
    if s.face != "pair":        # which has no interfaces
        await s.fails(OSError, s.a.send_each, b"x" * 65536, "239.255.77.78:9",
                      code=errno.EMSGSIZE)
    await s.send(b"after")
    equal((await s.recv()).data, b"after")


async def row_wrong_family(s):
    await s.fails(OSError, s.a.send, b"x", "[::1]:9", code=errno.EAFNOSUPPORT)
    await s.fails(netkit.AddressError, s.a.send, b"x", "127.0.0.1:0")
    await s.fails(netkit.AddressError, s.a.send, b"x", "localhost:9")
    await s.fails(netkit.AddressError, s.a.send, b"x", ("127.0.0.1", 65536))
    await s.fails(TypeError, s.a.send, b"x", 7)
    await s.fails(TypeError, s.a.send, "text", s.b.local)
    await s.fails(BufferError, s.a.send, memoryview(b"abcd")[::2], s.b.local)
    await s.send(b"after")
    equal((await s.recv()).data, b"after")


async def row_nobody_named(s):
    await s.fails(OSError, s.a.send, b"x", code=errno.ENOTCONN)
    equal(s.a.peer, None)
    await s.do(s.a.connect, ("127.0.0.1", s.b.port))
    equal(s.a.peer, s.b.local)
    await s.do(s.a.send, b"x")
    equal((await s.recv()).data, b"x")
    await s.do(s.a.connect, "localhost", s.b.port)


async def row_refused(s):
    if s.face == "pair":
        await s.do(s.b.close)
        await s.fails(ConnectionRefusedError, s.a.send, b"x")
        return
    gone = await s.open("127.0.0.1:0")
    address = gone.local
    await s.do(gone.close)
    await s.do(s.a.connect, address)
    await s.do(s.a.send, b"x")
    error = await s.fails(ConnectionRefusedError, s.a.recv)
    equal(error.address, address)
    # The socket lives on, and its next datagram goes out.
    await s.do(s.a.connect, s.b.local)
    await s.do(s.b.connect, s.a.local)
    await s.do(s.a.send, b"after")
    equal((await s.recv()).data, b"after")


async def row_left(s):
    gone = await s.open("127.0.0.1:0")
    address = gone.local
    await s.do(gone.close)
    await s.do(s.a.send, b"x", address)
    await s.reply(b"still here")
    equal((await s.do(s.a.recv)).data, b"still here")
    told = await s.open("127.0.0.1:0", icmp_errors=True)
    await s.do(told.send, b"x", address)
    error = await s.fails(ConnectionRefusedError, told.recv)
    equal(error.address, address)


async def row_queue_full(s):
    if s.face != "pair":
        # A receiver's full buffer drops; the sender's own empties by itself.
        for _ in range(2000):
            await s.send(b"x" * 1000, timeout=LIMIT_S)
        return
    count = await s.fill()
    at_least(count, 200)
    equal(await s.hear(count), list(range(count)))
    await s.send(b"room again")
    equal((await s.recv()).data, b"room again")


async def row_send_timeout(s):
    count = await s.fill()
    await s.fails(TimeoutError, s.a.send, b"x" * 1000, timeout=SHORT, code=errno.ETIMEDOUT)
    s.a.timeout = SHORT
    await s.fails(TimeoutError, s.a.send, b"x" * 1000, code=errno.ETIMEDOUT)
    # What was not taken does not come, and there is room for one when one has gone.
    equal(await s.hear(1), [0])
    equal(await s.send(b"%1000d" % count), 1000)
    equal(await s.hear(count), list(range(1, count + 1)))
    await s.fails(TimeoutError, s.b.recv, timeout=SHORT)


async def row_partly(s):
    count = await s.fill()
    equal(await s.hear(count), list(range(count)))
    sent = [b"%1000d" % i for i in range(2 * count)]
    error = await s.fails(TimeoutError, s.a.send_many, sent, timeout=SHORT)
    equal(error.sent, count)
    got = []

    async def hear():
        got.extend(await s.hear(2 * count))
    s.meanwhile(hear)
    equal(await s.do(s.a.send_many, sent[count:]), count)
    while s.tasks:
        await s.tasks.pop()
    while s.threads:
        s.threads.pop().join(LIMIT_S)
    equal(got, list(range(2 * count)))


async def row_close_ends_send(s):
    count = await s.fill()
    s.later(SHORT, s.a.close)
    await s.fails(OSError, s.a.send, b"x" * 1000, code=errno.ECANCELED)
    await s.fails(ValueError, s.a.send, b"x")
    # What was sent before can still be read.
    equal(await s.hear(count), list(range(count)))


async def row_buffers(s):
    numbers = array.array("H", [1, 2, 3])
    for data in (b"ab", bytearray(b"ab"), memoryview(b"abc")[:2], memoryview(bytearray(b"xab"))[1:],
                 numbers, memoryview(numbers)):
        equal(await s.send(data), memoryview(data).nbytes)
        equal((await s.recv()).data, bytes(data))
    equal(await s.do(s.a.send_many, [numbers, b"", memoryview(numbers)], s.to(s.b)), 3)
    for data in (numbers, b"", numbers):
        equal((await s.recv()).data, bytes(data))
    await s.fails(TypeError, s.a.send, "ab", s.to(s.b))
    await s.fails(TypeError, s.a.send_many, ["ab"], s.to(s.b))
    await s.fails(BufferError, s.a.send, memoryview(b"abcd")[::2], s.to(s.b))


async def row_signal(s):
    """Of netkit a wait goes on after a signal's handler; of netkit.aio one can be cancelled."""
    if "aio" in s.namespace.__name__:
        import asyncio
        for call in (s.b.recv, s.b.recv_many):
            task = asyncio.ensure_future(call())
            await asyncio.sleep(SHORT)
            task.cancel()
            await s.fails(asyncio.CancelledError, lambda task=task: task)
            await s.send(b"after")
            equal((await s.recv()).data, b"after")
        return
    before = signal.signal(signal.SIGALRM, lambda *_: s.a.send(b"after", s.to(s.b)))
    signal.siginterrupt(signal.SIGALRM, False)
    try:
        for call in (s.b.recv, lambda: s.b.recv_many()[0]):
            signal.setitimer(signal.ITIMER_REAL, SHORT)
            equal(call().data, b"after")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


async def row_timeout(s):
    await s.fails(TimeoutError, s.b.recv, timeout=SHORT)
    await s.fails(TimeoutError, s.b.recv_many, timeout=SHORT)
    s.b.timeout = SHORT
    equal(s.b.timeout, SHORT)
    await s.fails(TimeoutError, s.b.recv)
    await s.send(b"in time")
    equal((await s.recv()).data, b"in time")
    await s.fails(ValueError, s.b.recv, timeout=-1)
    await s.fails(TypeError, s.b.recv, timeout="1")


async def row_interrupt(s):
    s.later(SHORT, s.b.close)
    await s.fails(OSError, s.b.recv, code=errno.ECANCELED)
    equal(s.b.closed, True)
    await s.fails(ValueError, s.b.recv)
    await s.fails(ValueError, s.b.send, b"x")
    await s.do(s.b.close)


async def row_peer_closes(s):
    s.later(SHORT, s.a.close)
    await s.fails(TimeoutError, s.b.recv, timeout=5 * SHORT)


async def row_many(s):
    sent = [b"%03d" % i for i in range(150)]
    equal(await s.do(s.a.send_many, sent, s.to(s.b)), 150)
    got = []
    while len(got) < 150:
        got += await s.do(s.b.recv_many)
    equal([one.data for one in got], sent)
    if s.face != "pair":
        equal({one.sender for one in got}, {s.a.local})
    equal(await s.do(s.b.send_many, [b"", bytearray(b"ab"), memoryview(b"cde")], s.to(s.a)), 3)
    back = []
    while len(back) < 3:
        back += [one.data for one in await s.do(s.a.recv_many, 2)]
    equal(back, [b"", b"ab", b"cde"])
    equal(await s.do(s.a.send_many, [], s.to(s.b)), 0)


async def row_many_pairs(s):
    third = await s.open("127.0.0.1:0")
    pairs = [(b"to b", s.b.local), (b"to third", third.local)] * 3
    equal(await s.do(s.a.send_many, pairs), 6)
    for _ in range(3):
        equal((await s.recv()).data, b"to b")
        equal((await s.do(third.recv)).data, b"to third")


async def row_partly_failed(s):
    error = await s.fails(Exception, s.a.send_many, [b"one", b"two", b"x" * 65600, b"four"],
                          s.to(s.b))
    equal(error.sent, 2)
    equal([(await s.recv()).data, (await s.recv()).data], [b"one", b"two"])


async def row_many_then_one(s):
    await s.do(s.a.send_many, [b"1", b"2", b"3", b"4"], s.to(s.b))
    equal((await s.recv()).data, b"1")
    equal([one.data for one in await s.do(s.b.recv_many, 1)], [b"2"])
    equal((await s.recv()).data, b"3")
    equal((await s.recv()).data, b"4")


async def row_info(s):
    await s.send(b"12345")
    await s.recv()
    info, other = s.a.info(), s.b.info()
    equal((info.sent, info.sent_bytes, other.received, other.received_bytes), (1, 5, 1, 5))
    equal(info.sockets, 0 if s.face == "pair" else 1)


async def row_both_ways(s):
    for i in range(200):
        data = b"%d" % i
        await s.send(data)
        equal((await s.recv()).data, data)
        await s.reply(data)
        equal((await s.do(s.a.recv)).data, data)


async def row_iteration(s):
    await s.do(s.a.send_many, [b"a", b"b", b"c"], s.to(s.b))
    got = []
    if hasattr(s.b, "__aiter__"):
        async for data, _ in s.b:
            got.append(data)
            if len(got) == 3:
                s.b.close()
    else:
        for data, _ in s.b:
            got.append(data)
            if len(got) == 3:
                s.b.close()
    equal(got, [b"a", b"b", b"c"])


async def row_group(s):
    a, b = await s.open(":0"), await s.open(":0")
    at_least(await s.do(b.join, "239.255.77.78", "lo"), 1)
    at_least(b.info().joined, 1)
    a.multicast_interface = "lo"
    equal(a.multicast_interface, "lo")
    await s.do(a.send, b"to all", ("239.255.77.78", b.port))
    got = await s.do(b.recv)
    equal((got.data, got.interface, got.to), (b"to all", "lo", netkit.IP("239.255.77.78")))
    results = a.send_each(b"each", "239.255.77.78:%d" % b.port)
    equal([(one.interface, one.error) for one in results], [("lo", None)])
    equal((await s.do(b.recv)).data, b"each")
    b.leave("239.255.77.78", "lo")
    await s.fails(OSError, b.leave, "239.255.77.78", "lo", code=errno.ENOENT)
    await s.do(a.send, b"unheard", ("239.255.77.78", b.port))
    await s.fails(TimeoutError, b.recv, timeout=SHORT)


async def row_bad_groups(s):
    sock = await s.open(":0")
    await s.fails(OSError, sock.join, "192.0.2.1", code=errno.EINVAL)
    await s.fails(netkit.AddressError, sock.join, "all of them")
    await s.fails(OSError, sock.join, "239.1.2.3", "nosuch0", code=errno.ENODEV)
    await s.fails(OSError, sock.join, "239.1.2.3", source="2001:db8::1", code=errno.EAFNOSUPPORT)
    narrow = await s.open("127.0.0.1:0")
    await s.fails(OSError, narrow.join, "ff15::77", code=errno.EAFNOSUPPORT)
    await s.fails(OSError, s.namespace.udp, interface="nosuch0", code=errno.ENODEV)


async def row_broadcast(s):
    hears = await s.open(":0", family=4, reuse_port=True)
    # Loopback alone: what is sent here stays here.
    says = await s.open(":0", family=4, interface="lo")
    equal(await s.do(says.broadcast, b"who is there?", hears.port), 13)
    got = await s.do(hears.recv)
    equal((got.data, got.to), (b"who is there?", netkit.IP("127.255.255.255")))
    await s.fails(ValueError, says.broadcast, b"x", 70000)


async def row_options(s):
    sock = await s.open("127.0.0.1:0", hops=7, multicast_hops=3, traffic_class=184,
                        dont_fragment=True, loopback=False)
    equal((sock.hops, sock.multicast_hops, sock.traffic_class), (7, 3, 184))
    equal((sock.dont_fragment, sock.loopback), (True, False))
    await s.do(sock.send, b"x", s.b.local)
    if s.face == "udp":
        got = await s.recv()
        equal((got.hops, got.traffic_class), (7, 184))
    sock.hops, sock.multicast_hops, sock.traffic_class = 9, 1, 0
    sock.dont_fragment, sock.loopback = False, True
    sock.recv_buffer, sock.send_buffer = 100000, 100000
    equal((sock.hops, sock.multicast_hops, sock.traffic_class), (9, 1, 0))
    equal((sock.dont_fragment, sock.loopback), (False, True))
    at_least(min(sock.recv_buffer, sock.send_buffer), 100000)
    await s.do(sock.connect, s.b.local)
    at_least(sock.path_mtu, 1500)
    for name, bad in (("hops", 256), ("hops", 0), ("traffic_class", -1)):
        await s.fails(ValueError, setattr, sock, name, bad)
        await s.fails(ValueError, s.namespace.udp, **{name: bad if bad else 256})


async def row_port_in_use(s):
    await s.fails(OSError, s.namespace.udp, s.b.local, code=errno.EADDRINUSE)
    one = await s.open(":0", reuse_port=True)
    two = await s.open(":%d" % one.port, reuse_port=True)
    equal(two.port, one.port)
    await s.fails(OSError, s.namespace.udp, port=one.port, code=errno.EADDRINUSE)


async def row_families(s):
    sock = await s.open(port=0)
    six = await s.open("[::1]:0")
    four = await s.open("127.0.0.1:0")
    await s.do(six.send, b"six", ("::1", sock.port))
    await s.do(four.send, b"four", ("127.0.0.1", sock.port))
    got = dict([tuple(await s.do(sock.recv)), tuple(await s.do(sock.recv))])
    equal(got, {b"six": six.local, b"four": four.local})


async def row_repr(s):
    text = repr(s.a)
    equal(text.startswith("<%s.UDP on " % s.namespace.__name__), True)
    await s.send(b"x")
    got = await s.recv()
    equal(repr(got), "<Datagram b'x' from %s>" % got.sender)
    for same in (pickle.loads(pickle.dumps(got)), copy.copy(got)):
        equal((same, same.hops, same.to), (got, got.hops, got.to))
    equal(got == (b"x", got.sender), True)
    equal(hash(got), hash((b"x", got.sender)))
    await s.do(s.a.close)
    equal(repr(s.a), "<%s.UDP closed>" % s.namespace.__name__)


# By their names in C.
ROWS = {
    "one there, one back": row_one,
    "who sent it": row_sender,
    "waiting for one": row_waits,
    "bug 11: empty datagrams": row_empty,
    "borders and order": row_borders,
    "bug 40: one byte too long": row_truncated,
    "truncation told beside the rest": row_truncated_told,
    "no room at all": row_no_room,
    "8,000 bytes": row_large,
    "longer than any may be": row_too_large,
    "wrong family, port 0": row_wrong_family,
    "nobody named": row_nobody_named,
    "port unreachable": row_refused,
    "port unreachable, another's": row_left,
    "queue full, then room": row_queue_full,
    "queue full, time-out": row_send_timeout,
    "time-outs, then a datagram": row_timeout,
    "interrupt in mid-wait": row_interrupt,
    "the peer closes in mid-wait": row_peer_closes,
    "lists, both ways": row_many,
    "a list partly taken": row_partly,
    "a list with a bad one": row_partly_failed,
    "lists and single ones, mixed": row_many_then_one,
    "counts": row_info,
    "500 round trips": row_both_ways,
    "a signal with SA_RESTART in mid-wait": row_signal,
}

# What Python has on top.
MORE = {
    "pairs of data and receiver": row_many_pairs,
    "iteration": row_iteration,
    "close ends a wait to send": row_close_ends_send,
    "every kind of buffer": row_buffers,
    "a group on one interface": row_group,
    "groups that are none": row_bad_groups,
    "broadcast": row_broadcast,
    "options": row_options,
    "bug 32: a port in use": row_port_in_use,
    "both families on one socket": row_families,
    "shown": row_repr,
}

NOT_HERE = {
    "larger than the path takes": "loopback's path takes all; C's row brings its own transport",
    "interrupt leaves what was received": "close() is what interrupts, and leaves nothing",
    "an error is not final": "is a part of the row of an unreachable port",
    "what to wait for": "is for other people's event loops",
    "pause and resume": "is the poller's",
    "unread is told again": "is the poller's",
    "trace": "is of the environment, which Python does not set",
}

NOT_ON = {
    # The system's buffers empty by themselves: only a pair stays full.
    "queue full, time-out": ("udp", "connected"),
    "a list partly taken": ("udp", "connected"),
    "close ends a wait to send": ("udp", "connected"),
    "wrong family, port 0": ("pair", "connected"),
    "nobody named": ("pair", "connected"),
    "port unreachable, another's": ("pair", "connected"),
    "pairs of data and receiver": ("pair", "connected"),
    "a group on one interface": ("pair", "connected"),
    "groups that are none": ("pair", "connected"),
    "broadcast": ("pair", "connected"),
    "options": ("pair", "connected"),
    "bug 32: a port in use": ("pair", "connected"),
    "both families on one socket": ("pair", "connected"),
}
