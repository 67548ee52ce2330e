#!/usr/bin/env python3
"""Runs the scenario table in Python's namespaces, on every face; netkit.aio on the first kind of
loop, and with NKT_TEST_ALL=1 on every kind."""

import os
import re
import sys
import unittest

import nkt_python

nkt_python.use_netkit()

import loops                                                            # noqa: E402
import netkit                                                           # noqa: E402
import scenes                                                           # noqa: E402
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
        await function(scene)
    finally:
        await scene.end()


class Table(unittest.TestCase):
    def run_rows(self, namespace, run):
        ran = 0
        for name, function in scenes.ROWS.items():
            for face in scenes.FACES:
                if face in scenes.NOT_ON[name]:
                    continue
                with self.subTest(row=name, face=face):
                    run(run_row(namespace, face, function))
                    ran += 1
        self.assertGreater(ran, 3 * len(scenes.ROWS) - 40)

    def test_netkit(self):
        self.run_rows(netkit, drive)

    def test_aio(self):
        kinds = list(loops.LOOPS.items())
        for name, make in kinds if nkt_python.EVERYTHING else kinds[:1]:
            with self.subTest(loop=name):
                self.run_rows(aio, lambda row, make=make: loops.run(row, make))

    def test_same_table_as_in_c(self):
        path = os.path.join(nkt_python.ROOT, "tests", "scenario", "table.h")
        with open(path, encoding="ascii") as file:
            table = re.search(r"static const row rows\[\] = \{(.*?)\n\};", file.read(), re.S)
        in_c = re.findall(r'\{"((?:[^"\\]|\\.)*)", row_', table.group(1))
        here = set(scenes.ROWS) | set(scenes.NOT_HERE)
        self.assertGreater(len(in_c), 90)
        self.assertEqual(sorted(set(in_c) - here), [], "in C and not here")
        self.assertEqual(sorted(here - set(in_c)), [], "here and not in C")
        self.assertEqual(sorted(set(scenes.ROWS) & set(scenes.NOT_HERE)), [])
        for name, why in sorted(scenes.NOT_HERE.items()):
            print("not in Python: %s: %s" % (name, why))
        for name, faces in sorted(scenes.NOT_ON.items()):
            for face in faces:
                print("not on %s: %s" % (face, name))


if __name__ == "__main__":
    sys.exit(nkt_python.main())
