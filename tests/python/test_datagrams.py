#!/usr/bin/env python3
"""Runs the datagram scenario table in Python's namespaces, on every face."""

import asyncio
import gc
import os
import re
import sys
import unittest
import warnings

import nkt_python

nkt_python.use_netkit()

import datagram_scenes as scenes                                        # noqa: E402
import loops                                                            # noqa: E402
import netkit                                                           # noqa: E402
from netkit import aio                                                  # noqa: E402


def drive(coroutine):
    """Runs a coroutine that never waits in Python."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    coroutine.close()
    raise AssertionError("a blocking call gave something to wait for")


async def run_row(namespace, face, function):
    scene = scenes.Scene(namespace, face)
    try:
        await scene.begin()
        await function(scene)
    finally:
        await scene.end()


class Table(unittest.TestCase):
    def run_rows(self, namespace, run):
        ran = dict.fromkeys(scenes.FACES, 0)
        rows = dict(scenes.ROWS)
        rows.update(scenes.MORE)
        for name, function in rows.items():
            for face in scenes.FACES:
                if face in scenes.NOT_ON.get(name, ()):
                    continue
                with self.subTest(row=name, face=face):
                    run(run_row(namespace, face, function))
                    ran[face] += 1
        self.assertGreaterEqual(ran["udp"], 34)
        self.assertGreaterEqual(ran["connected"], 24)
        self.assertGreaterEqual(ran["pair"], 25)

    def test_netkit(self):
        self.run_rows(netkit, drive)

    def test_aio(self):
        for name, make in loops.LOOPS.items():
            with self.subTest(loop=name):
                self.run_rows(aio, lambda row, make=make: loops.run(row, make))

    def test_same_table_as_in_c(self):
        path = os.path.join(nkt_python.ROOT, "tests", "scenario", "udp_table.h")
        with open(path, encoding="ascii") as file:
            table = re.search(r"static const row rows\[\] = \{(.*?)\n\};", file.read(), re.S)
        in_c = re.findall(r'\{"((?:[^"\\]|\\.)*)", row_', table.group(1))
        here = set(scenes.ROWS) | set(scenes.NOT_HERE)
        self.assertGreater(len(in_c), 24)
        self.assertEqual(sorted(set(in_c) - here), [], "in C and not here")
        self.assertEqual(sorted(here - set(in_c)), [], "here and not in C")
        for name, why in sorted(scenes.NOT_HERE.items()):
            print("not in Python: %s: %s" % (name, why))


class Endings(unittest.TestCase):
    def test_unclosed(self):
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            netkit.udp("127.0.0.1:0")
            gc.collect()
        self.assertEqual([one.category for one in seen], [ResourceWarning])

    def test_unclosed_in_a_loop(self):
        for make in (asyncio.SelectorEventLoop, loops.NoReaders):
            loop = make()
            before = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0

            async def lose():
                sock = aio.udp("127.0.0.1:0")
                with self.assertRaises(TimeoutError):
                    await sock.recv(timeout=0.01)
            with warnings.catch_warnings(record=True) as seen:
                warnings.simplefilter("always")
                loop.run_until_complete(lose())
                gc.collect()
                loop.run_until_complete(asyncio.sleep(0.02))
            self.assertEqual([one.category for one in seen], [ResourceWarning])
            if before and make is not loops.NoReaders:
                self.assertEqual(len(os.listdir("/proc/self/fd")), before)
            loop.close()

    def test_cancel_takes_nothing(self):
        async def run():
            a, b = aio.udp("127.0.0.1:0"), aio.udp("127.0.0.1:0")
            async with a, b:
                for call in (b.recv, b.recv_many):
                    task = asyncio.ensure_future(call())
                    await asyncio.sleep(0.01)
                    task.cancel()
                    with self.assertRaises(asyncio.CancelledError):
                        await task
                    # Cancelled when what it waits for is there already.
                    task = asyncio.ensure_future(call())
                    await asyncio.sleep(0)
                    await a.send(b"kept", b.local)
                    task.cancel()
                    with self.assertRaises(asyncio.CancelledError):
                        await task
                    self.assertEqual((await b.recv(timeout=5)).data, b"kept")
        asyncio.run(run())

    def test_many_wait_at_once(self):
        async def run():
            a, b = aio.udp("127.0.0.1:0"), aio.udp("127.0.0.1:0")
            async with a, b:
                waiting = [asyncio.ensure_future(b.recv(timeout=10)) for _ in range(50)]
                await asyncio.sleep(0)
                for i in range(50):
                    await a.send(b"%d" % i, b.local)
                got = await asyncio.gather(*waiting)
                self.assertEqual(sorted(int(one.data) for one in got), list(range(50)))
        asyncio.run(run())

    def test_after_fork(self):
        out, _ = nkt_python.python("""
import netkit, os, sys
sock = netkit.udp("127.0.0.1:0")
child = os.fork()
if child == 0:
    try:
        sock.recv(timeout=1)
    except RuntimeError as error:
        print(error)
    sock.close()
    sys.stdout.flush()
    os._exit(0)
os.waitpid(child, 0)
with netkit.udp() as other:
    other.send(b"x", sock.local)
print(sock.recv(timeout=5).data)
sock.close()
""")
        self.assertEqual(out, "the datagram socket belongs to the parent process; open one here\n"
                              "b'x'\n")


if __name__ == "__main__":
    sys.exit(nkt_python.main())
