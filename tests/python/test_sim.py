#!/usr/bin/env python3
"""netkit.sim in both namespaces: what reaches the C library, what becomes of the bytes and
datagrams, and that it can be repeated. netkit.aio on the first kind of loop, and with
NKT_TEST_ALL=1 on every kind; the scenario table a third of the rows, and all of them then."""

import asyncio
import copy
import errno
import gc
import hashlib
import inspect
import pickle
import sys
import threading
import time
import unittest
import warnings
from unittest import mock

import nkt_python

nkt_python.use_netkit()

import loops                                                            # noqa: E402
import netkit                                                           # noqa: E402
import netkit.sim                                                       # noqa: E402
import scenes                                                           # noqa: E402
from netkit import _lib, aio, sim                                       # noqa: E402
from netkit.sim import Impairment                                       # noqa: E402
from test_scenes import drive                                           # noqa: E402

LIMIT_S = 20
KINDS = list(loops.LOOPS.items()) if nkt_python.EVERYTHING else list(loops.LOOPS.items())[:1]
MASK = (1 << 64) - 1


def mix(x):
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9 & MASK
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb & MASK
    return x ^ (x >> 31)


STATE, LOSS, DUPLICATE, REORDER, CORRUPT, WHERE = range(6)


def drawn(seed, number, what, sending=True):
    """What netkit.h draws for a datagram, written down once more."""
    if sending:
        seed += 0xd1b54a32d192ed03
    return mix(seed + (number * 16 + what + 1) * 0x9e3779b97f4a7c15 & MASK)


def happens(probability, seed, number, what, sending=True):
    return drawn(seed, number, what, sending) >> 32 < int(probability * (1 << 32))


async def do(function, *args, **kwargs):
    """A call of either namespace."""
    result = function(*args, **kwargs)
    return (await result) if inspect.isawaitable(result) else result


class Both(unittest.TestCase):
    """A test is a coroutine, and run in netkit and on each kind of loop in netkit.aio."""

    def both(self, test):
        with self.subTest(namespace="netkit"):
            drive(test(netkit))
        for name, make in KINDS:
            with self.subTest(namespace="netkit.aio", loop=name):
                loops.run(test(aio), make)

    async def tcp(self, namespace, **options):
        """Two ends of a TCP connection."""
        with_listener = namespace.listen("127.0.0.1:0", **options)
        if namespace is aio:
            accepting = asyncio.ensure_future(with_listener.accept())
            near = await aio.connect(with_listener.address)
            far = await accepting
        else:
            near = netkit.connect(with_listener.address)
            far = with_listener.accept()
        with_listener.close()
        return near, far

    async def end(self, *endpoints):
        for endpoint in endpoints:
            await do(endpoint.close)


# --- Impairment -------------------------------------------------------------------

# Each field with a value of its own, and what it is in C.
FIELDS = {
    "latency": (0.25, {"latency_ms": 250.0}),
    "jitter": (0.125, {"jitter_ms": 125.0}),
    "jitter_shape": ("normal", {"jitter": 1}),
    "overtake": (True, {"overtake": True}),
    "rate": (64000, {"rate": 64000}),
    "queue": (5000, {"queue_bytes": 5000}),
    "mtu": (1280, {"mtu": 1280}),
    "loss": (0.125, {"loss": 0.125}),
    "loss_burst": (3, {"loss_burst": 3.0}),
    "burst_loss": (0.75, {"burst_loss": 0.75}),
    "duplicate": (0.0625, {"duplicate": 0.0625}),
    "reorder": (0.375, {"reorder": 0.375}),
    "reorder_by": (0.5, {"reorder_ms": 500.0}),
    "corrupt": (0.03125, {"corrupt": 0.03125}),
    "stall": (0.625, {"stall": 0.625}),
    "stall_for": (2, {"stall_ms": 2000.0}),
    "piece_max": (7, {"piece_max": 7}),
    "cut": ("end", {"cut": 3}),
    "cut_bytes": (4096, {"cut_bytes": 4096}),
    "cut_after": (1.5, {"cut_ms": 1500.0}),
    "accept_delay": (0.75, {"accept_ms": 750.0}),
    "schedule": ([(1, 0.5, None), (2, 0.25, Impairment(loss=0.5))], {"step_count": 2}),
    "repeat": (60, {"repeat_ms": 60000.0}),
}
EVERYTHING = {name: value for name, (value, _) in FIELDS.items()}


class Values(unittest.TestCase):
    def test_every_field_reaches_c(self):
        self.assertEqual(sorted(FIELDS), sorted(Impairment.__slots__))
        made = Impairment(**EVERYTHING)
        in_c, plain_in_c = sim._Struct(made, 99), sim._Struct(Impairment(), 99)
        struct, plain = in_c.struct, plain_in_c.struct
        wanted = {"seed": 99}
        for _, expected in FIELDS.values():
            wanted.update(expected)
        for name, value in wanted.items():
            with self.subTest(field=name):
                self.assertEqual(getattr(struct, name), value)
                if name != "seed":
                    self.assertNotEqual(getattr(plain, name), value)
        left = {field[0] for field in struct._fields_} - set(wanted) - {"steps", "problem"}
        self.assertEqual(left, set())
        steps = (_lib.nkt_impair_step * 2).from_address(struct.steps)
        self.assertEqual([(step.at_ms, step.for_ms, bool(step.to)) for step in steps],
                         [(1000.0, 500.0, False), (2000.0, 250.0, True)])
        self.assertEqual(_lib.nkt_impairment.from_address(steps[1].to).loss, 0.5)

    def test_cut_at_once(self):
        for fields in ({"cut_bytes": 0, "cut_after": 5}, {"cut_bytes": 5, "cut_after": 0}, {}):
            struct = sim._Struct(Impairment(cut="silent", **fields), 1).struct
            self.assertEqual((struct.cut, struct.cut_bytes, struct.cut_ms), (1, 0, 0.0))

    def test_values(self):
        made = Impairment(**EVERYTHING)
        self.assertEqual(made, Impairment(**EVERYTHING))
        self.assertEqual(hash(made), hash(Impairment(**EVERYTHING)))
        self.assertNotEqual(made, made.replace(loss=0.25))
        self.assertNotEqual(made, "made")
        self.assertEqual(eval(repr(made)), made)
        self.assertEqual(repr(Impairment()), "Impairment()")
        for again in (pickle.loads(pickle.dumps(made)), copy.copy(made), copy.deepcopy(made)):
            self.assertEqual(again, made)
        for change in (lambda: setattr(made, "loss", 1), lambda: delattr(made, "loss")):
            self.assertRaises(AttributeError, change)
        self.assertRaises(TypeError, Impairment, 1)
        self.assertEqual(made.loss, 0.125)

    REFUSED = [
        (dict(latency=-1), "latency=-1: expected 0 to 3600 s"),
        (dict(latency=3601), "latency=3601: expected 0 to 3600 s"),
        (dict(latency=float("nan")), "latency=nan: expected 0 to 3600 s"),
        (dict(jitter=1), "jitter=1: expected at most latency"),
        (dict(jitter_shape="flat"), "jitter_shape='flat': expected \"uniform\" or \"normal\""),
        (dict(rate=0), "rate=0: expected more than 0, or None for none"),
        (dict(rate=-5), "rate=-5: expected 0 to 10000000000 bytes/s"),
        (dict(queue=5000), "queue=5000: nothing queues without a rate"),
        (dict(mtu=67), "mtu=67: expected 68 to 65535 bytes"),
        (dict(loss=1.5), "loss=1.5: expected a fraction, 0 to 1"),
        (dict(loss_burst=0.5), "loss_burst=0.5: expected 1 to 1000000 datagrams"),
        (dict(loss=0.5, burst_loss=0.25), "burst_loss=0.25: expected more than loss"),
        (dict(duplicate=-0.1), "duplicate=-0.1: expected a fraction"),
        (dict(reorder=2), "reorder=2: expected a fraction"),
        (dict(reorder_by=4000), "reorder_by=4000: expected 0 to 3600 s"),
        (dict(corrupt=2), "corrupt=2: expected a fraction"),
        (dict(stall=2), "stall=2: expected a fraction"),
        (dict(stall_for=0), "stall_for=0: expected more than 0"),
        (dict(piece_max=-1), "piece_max=-1: expected 1 to 4294967295 bytes"),
        (dict(cut="loud"), "cut='loud': expected None, \"silent\", \"reset\" or \"end\""),
        (dict(cut_bytes=5), "cut=None: cut_bytes and cut_after need to know how"),
        (dict(cut="end", cut_bytes=-1), "cut_bytes=-1: expected 0 or more bytes"),
        (dict(cut="end", cut_after=-1), "cut_after=-1: expected 0 to 3600 s"),
        (dict(accept_delay=-1), "accept_delay=-1: expected 0 to 3600 s"),
        (dict(schedule=[(1, 0, None)]), "schedule=[(1, 0, None)]: expected more than 0 s"),
        (dict(schedule=[(1, 2, None), (2, 1, None)]), "a step begins before the one in front"),
        (dict(schedule=[(1, 1, Impairment(cut="end"))]), "a step has no schedule, cut or "
                                                         "accept_delay of its own"),
        (dict(schedule=[(1, 1, None)] * 257), "expected 0 without steps, else 1 to 256"),
        (dict(repeat=5), "repeat=5: there are no steps to repeat"),
        (dict(schedule=[(1, 2, None)], repeat=2), "repeat=2: the schedule is longer"),
    ]

    def test_what_is_out_of_range_is_named(self):
        for fields, said in self.REFUSED:
            with self.subTest(fields=fields):
                with self.assertRaises(ValueError) as caught:
                    Impairment(**fields)
                self.assertIn(said, str(caught.exception))

    def test_what_is_of_another_kind_is_named(self):
        for fields in (dict(loss="1"), dict(loss=None), dict(rate=1.5), dict(overtake=1),
                       dict(latency=True), dict(schedule=[1]), dict(schedule=[(1, 2, 3)]),
                       dict(schedule=[("1", 2, None)]), dict(lag=1)):
            with self.subTest(fields=fields):
                with self.assertRaises(TypeError) as caught:
                    Impairment(**fields)
                self.assertRegex(str(caught.exception), "step|" + list(fields)[0])

    def test_profiles(self):
        self.assertEqual(list(sim.profiles),
                         ["dsl", "cable", "lte", "3g", "edge", "wifi-busy", "satellite-geo",
                          "satellite-leo", "transatlantic", "train"])
        for name, profile in sim.profiles.items():
            with self.subTest(profile=name):
                self.assertGreater(len(profile.source), 20)
                for way in (profile.sending, profile.receiving):
                    # There and back: C is given what it gave.
                    again = sim._Struct(way, 0)
                    self.assertEqual(sim._from_c(again.struct), way)
        # As its source has it: 1500/384 kbit/s, 50 ms there and back.
        dsl = sim.profiles["dsl"]
        self.assertEqual((dsl.sending.rate, dsl.receiving.rate), (48000, 187500))
        self.assertEqual((dsl.sending.latency, dsl.receiving.latency), (0.025, 0.025))
        self.assertEqual(sim.profiles["train"].sending.schedule, ((20.0, 3.0, None),))
        self.assertRaises(KeyError, lambda: sim.profiles["5g"])
        self.assertIn("lte", sim.profiles)


# --- One endpoint -----------------------------------------------------------------

class Datagrams(Both):
    COUNT = 400

    async def sent_and_got(self, namespace, receiving=False, **fields):
        """The numbers of the datagrams that arrive, in order, and what was counted."""
        a, b = await do(namespace.udp_pair)
        sim.impair(b if receiving else a, **fields)
        for number in range(self.COUNT):
            await do(a.send, number.to_bytes(2, "big") + b"." * 8)
        got = []
        try:
            while True:
                got += [bytes(data) for data, _ in await do(b.recv_many, timeout=0.2)]
        except TimeoutError:
            pass
        counted = sim.stats(b).received if receiving else sim.stats(a).sent
        await self.end(a, b)
        return got, counted

    def test_loss_is_the_seeds(self):
        for receiving in (False, True):
            lost = [number for number in range(self.COUNT)
                    if happens(0.3, 7, number, LOSS, not receiving)]
            self.assertEqual(len(lost), 110 if receiving else 125)

            async def test(namespace, receiving=receiving, lost=lost):
                got, counted = await self.sent_and_got(namespace, receiving, loss=0.3, seed=7)
                self.assertEqual([int.from_bytes(data[:2], "big") for data in got],
                                 [number for number in range(self.COUNT) if number not in lost])
                self.assertEqual((counted.seed, counted.sent, counted.lost, counted.delivered),
                                 (7, self.COUNT, len(lost), self.COUNT - len(lost)))
                self.assertEqual(counted.sent_bytes, 10 * self.COUNT)
                self.assertEqual(counted.delivered_bytes, 10 * (self.COUNT - len(lost)))
            self.both(test)

    def test_duplicates_and_broken_ones_are_the_seeds(self):
        wanted = []
        for number in range(self.COUNT):
            data = bytearray(number.to_bytes(2, "big") + b"." * 8)
            if happens(0.25, 11, number, CORRUPT):
                bit = drawn(11, number, WHERE) % 80
                data[bit // 8] ^= 1 << bit % 8
            wanted += [bytes(data)] * (2 if happens(0.125, 11, number, DUPLICATE) else 1)

        async def test(namespace):
            got, counted = await self.sent_and_got(namespace, duplicate=0.125, corrupt=0.25,
                                                   seed=11)
            self.assertEqual(got, wanted)
            self.assertEqual(counted.duplicated, len(wanted) - self.COUNT)
            self.assertEqual(counted.corrupted, sum(happens(0.25, 11, number, CORRUPT)
                                                    for number in range(self.COUNT)))
        self.both(test)

    def test_reordering_is_the_seeds(self):
        late = [number for number in range(self.COUNT) if happens(0.1, 5, number, REORDER)]

        async def test(namespace):
            got, counted = await self.sent_and_got(namespace, reorder=0.1, reorder_by=0.1,
                                                   seed=5)
            numbers = [int.from_bytes(data[:2], "big") for data in got]
            self.assertEqual(sorted(numbers), list(range(self.COUNT)))
            self.assertEqual([number for number in numbers if number not in late],
                             [number for number in range(self.COUNT) if number not in late])
            self.assertLessEqual(counted.reordered, len(late))
            self.assertGreater(counted.reordered, 0)
        self.both(test)

    def test_bursts(self):
        async def test(namespace):
            got, counted = await self.sent_and_got(namespace, loss=0.3, loss_burst=10, seed=3)
            numbers = [int.from_bytes(data[:2], "big") for data in got]
            runs = sum(1 for one, other in zip(numbers, numbers[1:]) if other > one + 1)
            self.assertEqual(counted.lost + len(got), self.COUNT)
            # Alone the same share of losses comes in more than 60 runs.
            self.assertLess(runs, 30)
            self.assertGreater(counted.lost, 40)
        self.both(test)

    def test_packets_over_the_mtu(self):
        async def test(namespace):
            a, b = await do(namespace.udp_pair)
            sim.impair(a, mtu=128)
            for size in (100, 101, 60, 1000):
                await do(a.send, b"x" * size)
            self.assertEqual([len((await do(b.recv, timeout=5)).data) for _ in range(2)],
                             [100, 60])
            self.assertEqual(sim.stats(a).sent.oversized, 2)
            await self.end(a, b)
        self.both(test)

    def test_a_full_queue_loses(self):
        async def test(namespace):
            a, b = await do(namespace.udp_pair)
            # 1,000 bytes and 28 of headers take 50 ms each, and two can wait.
            sim.impair(a, rate=20560, queue=3000)
            for _ in range(10):
                await do(a.send, b"x" * 1000)
            counted = sim.stats(a).sent
            self.assertGreater(counted.overflowed, 2)
            self.assertLessEqual(counted.queue_high, 3000)
            for _ in range(10 - counted.overflowed):
                await do(b.recv, timeout=5)
            await self.end(a, b)
        self.both(test)

    def test_what_comes_late_wakes_who_waits(self):
        async def test(namespace):
            for receiving in (False, True):
                for one, other in (await do(namespace.udp_pair), await self.sockets(namespace)):
                    sim.impair(other if receiving else one, latency=0.06)
                    to = None if one.local is None else other.local
                    began = time.monotonic()
                    await do(one.send, b"late", to)
                    self.assertEqual((await do(other.recv, timeout=5)).data, b"late")
                    self.assertGreaterEqual(time.monotonic() - began, 0.06)
                    await self.end(one, other)
        self.both(test)

    async def sockets(self, namespace):
        return namespace.udp("127.0.0.1:0"), namespace.udp("127.0.0.1:0")

    def test_many_at_once_come_at_their_times(self):
        async def test(namespace):
            a, b = await do(namespace.udp_pair)
            sim.impair(a, latency=0.03, jitter=0.03, overtake=True, seed=2)
            for number in range(50):
                await do(a.send, bytes([number]))
            got = [(await do(b.recv, timeout=5)).data[0] for _ in range(50)]
            self.assertEqual(sorted(got), list(range(50)))
            self.assertNotEqual(got, list(range(50)))
            self.assertEqual(sim.stats(a).sent.reordered,
                             sum(number < max(got[:at] or [0]) for at, number in enumerate(got)))
            await self.end(a, b)
        self.both(test)

    def test_what_is_under_way_when_it_closes_arrives(self):
        async def test(namespace):
            a, b = await do(namespace.udp_pair)
            sim.impair(a, latency=0.05)
            await do(a.send, b"posthumous")
            await do(a.close)
            self.assertEqual((await do(b.recv, timeout=5)).data, b"posthumous")
            await self.end(b)
        self.both(test)

    def test_held_datagrams(self):
        a, b = netkit.udp("127.0.0.1:0"), netkit.udp("127.0.0.1:0")
        with a, b:
            # Once many are asked for, the system may give several in one piece.
            a.send(b"x", b.local)
            b.recv_many()
            a.send_many([b"x" * 100] * 40, b.local)
            taken = [b.recv(timeout=5)]
            with self.assertRaisesRegex(OSError, "datagrams of recv_many") as caught:
                sim.impair(b, latency=0.001)
            self.assertEqual(caught.exception.errno, errno.EBUSY)
            while len(taken) < 40:
                taken += b.recv_many(timeout=5)
            sim.impair(b, latency=0.001)
            a.send(b"y", b.local)
            self.assertEqual(b.recv(timeout=5).data, b"y")


class Streams(Both):
    def test_what_comes_late_wakes_who_waits(self):
        async def test(namespace):
            for open_ends in (namespace.pair, lambda: self.tcp(namespace)):
                for receiving in (False, True):
                    a, b = await do(open_ends)
                    self.assertIs(sim.impair(b if receiving else a, latency=0.06),
                                  b if receiving else a)
                    for _ in range(2):
                        began = time.monotonic()
                        await do(a.write, b"late\n")
                        self.assertEqual(await do(b.readline, timeout=5), b"late\n")
                        self.assertGreaterEqual(time.monotonic() - began, 0.06)
                    await do(a.shutdown_write)
                    self.assertEqual(await do(b.read, timeout=5), b"")
                    await self.end(a, b)
        self.both(test)

    def test_every_byte_in_order(self):
        data = bytes(range(256)) * 4096         # 1 MiB
        wanted = hashlib.sha256(data).hexdigest()

        async def through(write, read):
            if inspect.iscoroutinefunction(write):
                writing = asyncio.ensure_future(write(data))
                got = await read(len(data), timeout=LIMIT_S)
                await writing
                return got
            thread = threading.Thread(target=write, args=(data,))
            thread.start()
            got = read(len(data), timeout=LIMIT_S)
            thread.join()
            return got

        async def test(namespace):
            for open_ends in (namespace.pair, lambda: self.tcp(namespace)):
                a, b = await do(open_ends)
                for end in (a, b):
                    sim.impair(end, piece_max=20000, stall=0.1, stall_for=0.001, loss=0.01,
                               latency=0.001, jitter=0.001, seed=7)
                for one, other in ((a, b), (b, a)):
                    got = await through(one.write, other.read)
                    self.assertEqual(hashlib.sha256(got).hexdigest(), wanted)
                found = sim.stats(a)
                self.assertEqual(found.sent.sent_bytes, len(data))
                self.assertEqual(found.received.delivered_bytes, len(data))
                self.assertGreater(found.sent.stalls + found.received.stalls, 0)
                await self.end(a, b)
        self.both(test)

    def test_timeouts_lose_nothing(self):
        async def test(namespace):
            a, b = await do(namespace.pair)
            sim.impair(a, latency=0.15)
            await do(a.write, b"late\n")
            with self.assertRaises(TimeoutError):
                await do(b.readline, timeout=0.02)
            sim.impair(b, latency=0.05)
            with self.assertRaises(TimeoutError):
                await do(b.readline, timeout=0.02)
            self.assertEqual(await do(b.readline, timeout=5), b"late\n")
            await self.end(a, b)
        self.both(test)

    def test_a_slow_path_makes_the_writer_wait(self):
        async def test(namespace):
            a, b = await do(self.tcp, namespace)
            sim.impair(a, rate=1000, queue=2000)
            with self.assertRaises(TimeoutError):
                await do(a.write, b"x" * 100000, timeout=0.05)
            self.assertLess(sim.stats(a).sent.sent_bytes, 10000)
            sim.restore(a)
            await self.end(a, b)
        self.both(test)

    def test_cuts(self):
        async def test(namespace):
            a, b = await do(self.tcp, namespace)
            sim.impair(b, receiving=Impairment(cut="end", cut_bytes=3))
            await do(a.write, b"12345")
            self.assertEqual(await do(b.read, timeout=5), b"123")
            await self.end(a, b)
            a, b = await do(self.tcp, namespace)
            sim.impair(b, cut="reset", cut_after=0.05)
            with self.assertRaises(ConnectionResetError):
                await do(b.read, timeout=5)
            await self.end(b)
            with self.assertRaises(ConnectionResetError):
                await do(a.read, timeout=5)
            await self.end(a)
            a, b = await do(namespace.pair)
            sim.impair(a, cut="silent", cut_bytes=4)
            await do(a.write, b"1234")
            self.assertEqual(await do(b.read_exact, 4, timeout=5), b"1234")
            with self.assertRaises(TimeoutError):
                await do(a.write, b"5", timeout=0.03)
            with self.assertRaises(TimeoutError):
                await do(b.read1, timeout=0.03)
            await self.end(a, b)
        self.both(test)

    def test_schedules(self):
        async def test(namespace):
            a, b = await do(namespace.pair)
            sim.impair(a, schedule=[(0, 0.15, None)])
            began = time.monotonic()
            await do(a.write, b"out of the tunnel\n")
            self.assertEqual(await do(b.readline, timeout=5), b"out of the tunnel\n")
            self.assertGreaterEqual(time.monotonic() - began, 0.14)
            await self.end(a, b)
        self.both(test)

    def test_restore(self):
        async def test(namespace):
            a, b = await do(namespace.pair)
            sim.impair(a, latency=60)
            await do(a.write, b"in an hour")
            sim.impair(a, cut="silent")
            with self.assertRaises(TimeoutError):
                await do(a.write, b"never", timeout=0.03)
            self.assertIs(sim.restore(a), a)
            await self.end(a, b)
            a, b = await do(namespace.udp_pair)
            sim.restore(sim.impair(a, loss=1))
            await do(a.send, b"found")
            self.assertEqual((await do(b.recv, timeout=5)).data, b"found")
            await self.end(a, b)
        self.both(test)

    def test_fields_count_before_the_profile(self):
        async def test(namespace):
            a, b = await do(namespace.udp_pair)
            sim.impair(a, "lte", loss=1, latency=0, jitter=0)
            await do(a.send, b"x")
            self.assertEqual(sim.stats(a).sent.lost, 1)
            sim.impair(a, "lte", sending=Impairment())
            await do(a.send, b"y")
            self.assertEqual((await do(b.recv, timeout=5)).data, b"y")
            await self.end(a, b)
        self.both(test)

    def test_seeds(self):
        async def test(namespace):
            a, b = await do(namespace.pair)
            sim.impair(a, loss=0.5)
            by_chance = sim.stats(a).sent.seed
            self.assertGreater(by_chance, 0)
            self.assertEqual(sim.stats(a).received.seed, by_chance)
            sim.impair(a, loss=0.5, seed=(1 << 64) - 1)
            self.assertEqual(sim.stats(a).sent.seed, (1 << 64) - 1)
            for seed, kind in ((0, ValueError), (-1, ValueError), (1 << 64, ValueError),
                               ("7", TypeError), (True, TypeError)):
                with self.assertRaisesRegex(kind, "seed"):
                    sim.impair(a, loss=0.5, seed=seed)
            await self.end(a, b)
        self.both(test)

    def test_detaching(self):
        async def test(namespace):
            a, b = await do(self.tcp, namespace)
            sim.impair(a, latency=0.01)
            with self.assertRaises(OSError) as caught:
                a.detach()
            self.assertEqual(caught.exception.errno, errno.EOPNOTSUPP)
            await do(a.write, b"still here\n")
            self.assertEqual(await do(b.readline, timeout=5), b"still here\n")
            await do(b.write, b"and here\n")
            self.assertEqual(await do(a.readline, timeout=5), b"and here\n")
            await self.end(a, b)
        self.both(test)

    def test_what_is_refused(self):
        async def test(namespace):
            a, b = await do(namespace.udp_pair)
            conn, other = await do(namespace.pair)
            with self.assertRaisesRegex(ValueError, "'5g': expected one of dsl, .*train$"):
                sim.impair(conn, "5g")
            with self.assertRaisesRegex(ValueError, "cut='reset': only streams"):
                sim.impair(a, cut="reset")
            with self.assertRaisesRegex(TypeError, "an impairment has no lag; it has latency, "):
                sim.impair(conn, lag=1)
            for arguments in ((), (5,), ("lte", )):
                with self.assertRaises(TypeError):
                    sim.impair(conn, *arguments, sending=3 if arguments else None)
            with self.assertRaisesRegex(TypeError, "is impaired, not <object"):
                sim.impair(object(), "lte")
            for endpoint in (a, conn):
                with self.assertRaisesRegex(ValueError, "never impaired"):
                    sim.stats(endpoint)
            await self.end(a, b, conn, other)
            for endpoint in (a, conn):
                with self.assertRaisesRegex(ValueError, "closed"):
                    sim.impair(endpoint, "lte")
        self.both(test)

    def test_listeners(self):
        async def test(namespace):
            listener = sim.impair(namespace.listen("127.0.0.1:0"), accept_delay=0.06,
                                  latency=0.03, seed=7)
            seeds = []
            for _ in range(2):
                near = await do(namespace.connect, listener.address)
                began = time.monotonic()
                far = await do(listener.accept, timeout=5)
                self.assertGreaterEqual(time.monotonic() - began, 0.04)
                began = time.monotonic()
                await do(far.write, b"late\n")
                self.assertEqual(await do(near.readline, timeout=5), b"late\n")
                self.assertGreaterEqual(time.monotonic() - began, 0.03)
                await do(near.write, b"late\n")
                self.assertEqual(await do(far.readline, timeout=5), b"late\n")
                seeds.append(sim.stats(far).sent.seed)
                await self.end(near, far)
            self.assertEqual(seeds, [mix(7 + number * 0x9e3779b97f4a7c15 & MASK) | 1
                                     for number in (1, 2)])
            with self.assertRaisesRegex(TypeError, "a listener has nothing to count"):
                sim.stats(listener)
            await self.end(sim.restore(listener))
        self.both(test)


class Objects:
    """What a user's class does: what is sent to it comes back."""

    def __init__(self):
        self.data = b""

    def recv(self, size):
        some, self.data = self.data[:size], self.data[size:]
        return some or None

    def send(self, data):
        self.data += data
        return len(data)


class AsyncObjects(Objects):
    closed = 0

    async def recv(self, size):
        while not self.data:
            await asyncio.sleep(0.005)
        return super().recv(size)

    async def send(self, data):
        await asyncio.sleep(0)
        return super().send(data)

    async def close(self):
        self.closed += 1


class Custom(Both):
    def test_objects(self):
        async def test(namespace):
            for kind in (Objects, AsyncObjects) if namespace is aio else (Objects,):
                below = kind()
                conn = sim.impair(namespace.Connection(below), latency=0.03, piece_max=5, seed=3)
                began = time.monotonic()
                await do(conn.write, b"there and back\n")
                if kind is Objects:
                    await self.meanwhile(namespace, conn)
                self.assertEqual(await do(conn.readline, timeout=5), b"there and back\n")
                self.assertGreaterEqual(time.monotonic() - began, 0.06)
                await self.end(conn)
                if kind is AsyncObjects:
                    await asyncio.sleep(0.02)
                    self.assertEqual(below.closed, 1)
        self.both(test)

    async def meanwhile(self, namespace, conn):
        """It says "not now" until it is told, from elsewhere."""
        def tell():
            for _ in range(10):
                time.sleep(0.01)
                conn.notify()
        thread = threading.Thread(target=tell)
        thread.start()
        if namespace is aio:
            await asyncio.get_running_loop().run_in_executor(None, thread.join)
        else:
            thread.join()


class WithoutPollerDescriptors(Both):
    """As on Windows, where a poller has no descriptor that a loop could watch."""

    def setUp(self):
        quick = _lib.quick
        patch = mock.patch.object(quick, "nkt_poller_fd", lambda poller: _lib.NO_FD)
        self.assertNotEqual(quick.nkt_poller_fd, None)
        patch.start()
        self.addCleanup(patch.stop)

    test_streams = Streams.test_what_comes_late_wakes_who_waits
    test_datagrams = Datagrams.test_what_comes_late_wakes_who_waits
    test_objects = Custom.test_objects
    sockets = Datagrams.sockets
    meanwhile = Custom.meanwhile


# --- Cancelling -------------------------------------------------------------------

class Cancelling(Both):
    def on_loops(self, test):
        for name, make in KINDS:
            with self.subTest(loop=name):
                loops.run(test(), make)

    def test_reading(self):
        async def test():
            for open_ends in (aio.pair, lambda: self.tcp(aio)):
                a, b = await do(open_ends)
                for end in (a, b):
                    sim.impair(end, latency=0.025, jitter=0.002, piece_max=30, stall=0.1,
                               stall_for=0.001, seed=9)
                lines = [b"line %d\n" % number for number in range(200)]
                writing = asyncio.ensure_future(a.writelines(lines))
                got, cancelled = [], 0
                while len(got) < len(lines):
                    reading = asyncio.ensure_future(b.readline(timeout=LIMIT_S))
                    await asyncio.sleep(0)
                    if cancelled < 300:
                        cancelled += reading.cancel()
                    try:
                        got.append(await reading)
                    except asyncio.CancelledError:
                        await asyncio.sleep(0.0005)
                await writing
                self.assertEqual(got, lines)
                self.assertGreater(cancelled, 3)
                await self.end(a, b)
        self.on_loops(test)

    def test_writing(self):
        async def test():
            a, b = aio.pair()
            sim.impair(a, latency=0.002, piece_max=1000, stall=0.2, stall_for=0.002, seed=9)
            sent = 0
            for number in range(30):
                writing = asyncio.ensure_future(a.write(bytes([number]) * 5000))
                await asyncio.sleep(0.001 * (number % 5))
                writing.cancel()
                try:
                    await writing
                except asyncio.CancelledError:
                    pass
            await a.flush(timeout=LIMIT_S)
            await a.shutdown_write()
            got = await b.read(timeout=LIMIT_S)
            # Each message is there whole or not at all, in order.
            while got:
                self.assertEqual(got[:5000], got[:1] * 5000)
                self.assertTrue(len(got) == 5000 or got[0] < got[5000])
                got = got[5000:]
                sent += 1
            self.assertGreater(sent, 5)
            await self.end(a, b)
        self.on_loops(test)

    def test_receiving(self):
        async def test():
            for impaired in (False, True):
                a, b = aio.udp_pair()
                if impaired:
                    sim.impair(a, latency=0.003, jitter=0.003, seed=9)
                for number in range(100):
                    await a.send(bytes([number]))
                got, until = [], time.monotonic() + LIMIT_S
                while len(got) < 100 and time.monotonic() < until:
                    receiving = asyncio.ensure_future(
                        b.recv(timeout=0 if len(got) % 40 > 20 else LIMIT_S))
                    await asyncio.sleep(0)
                    if len(got) % 40 <= 20:
                        receiving.cancel()
                    try:
                        got.append((await receiving).data[0])
                    except (asyncio.CancelledError, TimeoutError):
                        await asyncio.sleep(0.001)
                self.assertEqual(got, list(range(100)))
                await self.end(a, b)
        self.on_loops(test)

    def test_who_waits_when_it_is_impaired(self):
        async def test():
            for open_ends in (aio.pair, lambda: self.tcp(aio)):
                a, b = await do(open_ends)
                waiting = asyncio.ensure_future(b.readline())
                await asyncio.sleep(0.01)
                sim.impair(b, latency=0.03)
                await a.write(b"now\n")
                self.assertEqual(await asyncio.wait_for(waiting, 5), b"now\n")
                waiting = asyncio.ensure_future(b.readline())
                await asyncio.sleep(0.01)
                b.close()
                with self.assertRaises(OSError):
                    await waiting
                a.close()
        self.on_loops(test)

    def test_what_nobody_closed(self):
        async def test():
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                a, b = await self.tcp(aio)
                c, d = aio.pair()
                for end in (a, c):
                    sim.impair(end, latency=0.02)
                    await end.write(b"bye\n")
                del a, c, end
                gc.collect()
                self.assertEqual(await b.read(timeout=5), b"bye\n")
                self.assertEqual(await d.read(timeout=5), b"bye\n")
                await self.end(b, d)
            self.assertEqual([str(each.message)[:8] for each in caught], ["unclosed"] * 2)
        self.on_loops(test)

    def test_it_costs_nothing_to_wait(self):
        async def test():
            a, b = await self.tcp(aio)
            c, d = aio.pair()
            e, f = aio.udp_pair()
            for end in (a, b, c, d, e, f):
                sim.impair(end, latency=0.01, seed=1)
            await a.write(b"not read\n")        # ready, and nobody reads
            await c.write(b"not read\n")
            await e.send(b"not read")
            waiting = [asyncio.ensure_future(end.read1()) for end in (a, c)]
            await asyncio.sleep(0.1)
            before = time.process_time()
            await asyncio.sleep(0.5)
            self.assertLess(time.process_time() - before, 0.2)
            for task in waiting:
                task.cancel()
            await asyncio.wait(waiting)
            await self.end(a, b, c, d, e, f)
        self.on_loops(test)


# --- Everything that is opened ----------------------------------------------------

def lossy(endpoint):
    """Whether it loses everything, which is how the scopes below show themselves."""
    try:
        return sim.stats(endpoint).sent.seed > 0
    except ValueError:
        return False


class Scopes(Both):
    async def open_all(self, namespace):
        """One of everything that can be opened, in a fixed order."""
        listener = namespace.listen("127.0.0.1:0")
        near = await do(namespace.connect, listener.address)
        far = await do(listener.accept, timeout=5)
        pair = await do(namespace.pair)
        udp = namespace.udp("127.0.0.1:0")
        udps = await do(namespace.udp_pair)
        on_object = namespace.Connection(Objects())
        await self.end(listener)
        return [near, far, *pair, udp, *udps, on_object]

    def test_everything_and_again(self):
        # The listener is the first, and what it accepts follows from its seed.
        draw = [mix(7 + number * 0x9e3779b97f4a7c15 & MASK) | 1 for number in range(1, 9)]
        accepted = mix(draw[0] + 0x9e3779b97f4a7c15 & MASK) | 1
        wanted = [draw[1], accepted] + draw[2:]

        async def test(namespace):
            network = sim.impaired(latency=0.001, loss=0.1, seed=7)
            for _ in range(2):
                with network as entered:
                    self.assertIs(entered, network)
                    inside = await self.open_all(namespace)
                outside = await self.open_all(namespace)
                self.assertEqual([sim.stats(one).sent.seed for one in inside], wanted)
                self.assertEqual([lossy(one) for one in outside], [False] * len(outside))
                self.assertEqual(network.opened, 8)
                await self.end(*inside, *outside)
            self.assertEqual(repr(network), "<netkit.sim.impaired latency=0.001, loss=0.1, "
                                            "seed=7: 8 opened>")
        self.both(test)

    def test_unchanged_code(self):
        async def echo(namespace):
            a, b = await do(namespace.pair)
            await do(a.write, b"hello\n")
            said = await do(b.readline, timeout=5)
            await self.end(a, b)
            return said

        async def test(namespace):
            with sim.impaired("lte", seed=7, latency=0.03, jitter=0):
                began = time.monotonic()
                self.assertEqual(await echo(namespace), b"hello\n")
                # Both ends are on such a network: there and here.
                self.assertGreaterEqual(time.monotonic() - began, 0.06)
        self.both(test)

    def test_nested(self):
        async def test(namespace):
            with sim.impaired(latency=0.5, seed=1) as outer:
                with sim.impaired(loss=1, seed=2) as inner:
                    a, b = await do(namespace.udp_pair)
                c, d = await do(namespace.udp_pair)
            self.assertEqual((outer.opened, inner.opened), (2, 2))
            self.assertNotEqual(sim.stats(a).sent.seed, sim.stats(c).sent.seed)
            await do(a.send, b"x")
            self.assertEqual(sim.stats(a).sent.lost, 1)
            await self.end(a, b, c, d)
        self.both(test)

    def test_threads(self):
        opened = {}

        def open_in(name):
            opened[name] = netkit.udp_pair()
        for name, scope in (("inside", sim.impaired(loss=1)), ("after", None)):
            if scope is None:
                thread = threading.Thread(target=open_in, args=(name,))
                thread.start()
                thread.join()
            else:
                with scope:
                    thread = threading.Thread(target=open_in, args=(name,))
                    thread.start()
                    thread.join()
        # A thread that has entered one itself has that one.
        with sim.impaired(loss=1, seed=5):
            def own():
                with sim.impaired(latency=1, seed=6) as mine:
                    open_in("own")
                    opened["mine"] = mine.opened
            thread = threading.Thread(target=own)
            thread.start()
            thread.join()
        self.assertEqual(opened.pop("mine"), 2)
        self.assertEqual({name: lossy(ends[0]) for name, ends in opened.items()},
                         {"inside": True, "after": False, "own": True})
        for ends in opened.values():
            for end in ends:
                end.close()

    def test_server_in_a_thread(self):
        def talk(conn):
            for line in conn:
                conn.write(line)
        with sim.impaired(latency=0.02, seed=3) as network:
            with netkit.listen("127.0.0.1:0") as listener:
                thread = threading.Thread(target=netkit.serve, args=(talk, listener))
                thread.start()
                with netkit.connect(listener.address) as conn:
                    began = time.monotonic()
                    conn.write(b"hello\n")
                    self.assertEqual(conn.readline(timeout=5), b"hello\n")
                    # Two ends, each of which delays what it sends and what it receives.
                    self.assertGreaterEqual(time.monotonic() - began, 0.08)
                listener.close()
                thread.join()
        self.assertEqual(network.opened, 2)

    def test_tasks(self):
        async def test():
            opened = {}

            async def open_in(name, wait=0.0):
                await asyncio.sleep(wait)
                opened[name] = aio.udp_pair()
            before = asyncio.ensure_future(open_in("of before", 0.02))
            with sim.impaired(loss=1):
                inside = asyncio.ensure_future(open_in("of inside", 0.01))
                late = asyncio.ensure_future(open_in("of inside, late", 0.08))
                await asyncio.sleep(0.04)
            await asyncio.wait([before, inside, late])
            self.assertEqual({name: lossy(ends[0]) for name, ends in opened.items()},
                             {"of before": False, "of inside": True, "of inside, late": False})
            for ends in opened.values():
                await self.end(*ends)
        for name, make in KINDS:
            with self.subTest(loop=name):
                loops.run(test(), make)

    def test_decorator(self):
        seeds = []

        @sim.impaired(loss=0.5, seed=7)
        def blocking(add):
            a, b = netkit.udp_pair()
            with a, b:
                seeds.append(sim.stats(a).sent.seed + add)
            return "done"

        @sim.impaired(loss=0.5, seed=7)
        async def awaited(add):
            a, b = aio.udp_pair()
            async with a, b:
                seeds.append(sim.stats(a).sent.seed + add)
            return "done"
        self.assertTrue(inspect.iscoroutinefunction(awaited))
        self.assertEqual(blocking.__name__, "blocking")
        for _ in range(2):
            self.assertEqual(blocking(add=0), "done")
            self.assertEqual(loops.run(awaited(0)), "done")
        self.assertEqual(len(set(seeds)), 1)
        a, b = netkit.udp_pair()
        self.assertFalse(lossy(a))
        a.close()
        b.close()

    def test_an_exception_tells_the_seed(self):
        for network in (sim.impaired("lte"), sim.impaired(loss=0.5, seed=7)):
            with self.assertRaises(ZeroDivisionError) as caught:
                with network:
                    print(1 // 0)
            [note] = caught.exception.__notes__
            self.assertRegex(note, r"^netkit\.sim\.impaired\(('lte'|loss=0\.5), seed=%d\)"
                                   % network.seed)
            self.assertIn("seed=%d" % network.seed, repr(network))

    def test_what_is_wrong_is_told_at_once(self):
        self.assertRaisesRegex(ValueError, "loss=2", sim.impaired, loss=2)
        self.assertRaisesRegex(ValueError, "'5g'", sim.impaired, "5g")
        self.assertRaises(TypeError, sim.impaired)

        async def test(namespace):
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                with sim.impaired(cut="reset"):
                    with self.assertRaisesRegex(ValueError, "only streams"):
                        await do(namespace.udp)
        self.both(test)
        self.assertIs(_lib.Opened.hook, None)

    def test_importing(self):
        said, _ = nkt_python.python(
            "import sys, netkit\n"
            "print('netkit.sim' in sys.modules)\n"
            "print(netkit.sim.Impairment(loss=0.5))\n"
            "print('asyncio' in sys.modules, 'netkit.aio' in sys.modules)\n")
        self.assertEqual(said, "False\nImpairment(loss=0.5)\nFalse False\n")
        self.assertRaises(AttributeError, lambda: netkit.simulation)


# --- The scenario table on an impaired connection ---------------------------------

class ImpairedScene(scenes.Scene):
    seed = 0
    piece_max = 700

    async def open(self, **options):
        await super().open(**options)
        ImpairedScene.seed += 1
        sim.impair(self.a, piece_max=self.piece_max, stall=0.1, stall_for=0.001,
                   seed=ImpairedScene.seed)


# What is not the same on an impaired connection, by design.
NOT_IMPAIRED = {
    "detach and adopt": "a descriptor has no bad network around it; see test_detaching",
}
# Rows of megabytes, which would take long in small pieces.
BIG = {"read 3 MB", "8 MiB both ways at once", "a slow reader gets all in order",
       "a write times out, go on without loss", "a message of 1 MiB",
       "a line of a million bytes, allowed", "putting back more than the buffer holds"}


class Table(unittest.TestCase):
    async def run_row(self, namespace, face, name):
        scene = ImpairedScene(namespace, face)
        if name in BIG:
            scene.piece_max = 50000
        try:
            await scenes.ROWS[name](scene)
        finally:
            await scene.end()

    def run_rows(self, namespace, run, part):
        ran = 0
        for number, name in enumerate(scenes.ROWS):
            if name in NOT_IMPAIRED or not (nkt_python.EVERYTHING or number % 3 == part):
                continue
            for face in scenes.FACES:
                if face in scenes.NOT_ON[name]:
                    continue
                with self.subTest(row=name, face=face):
                    run(self.run_row(namespace, face, name))
                    ran += 1
        self.assertGreater(ran, len(scenes.ROWS))

    def test_netkit(self):
        self.run_rows(netkit, drive, 0)

    def test_aio(self):
        for part, (name, make) in enumerate(KINDS):
            with self.subTest(loop=name):
                self.run_rows(aio, lambda row, make=make: loops.run(row, make), 1 + part)

    def test_what_is_left_out_exists(self):
        self.assertEqual(sorted((BIG | set(NOT_IMPAIRED)) - set(scenes.ROWS)), [])
        for name, why in NOT_IMPAIRED.items():
            print("not impaired: %s: %s" % (name, why))


if __name__ == "__main__":
    sys.exit(nkt_python.main())
