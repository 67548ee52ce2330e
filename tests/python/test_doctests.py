#!/usr/bin/env python3
"""The examples in the docstrings of both namespaces give what they say."""

import doctest
import sys
import unittest

import nkt_python

nkt_python.use_netkit()

import netkit                                                           # noqa: E402
from netkit import aio                                                  # noqa: E402


class Examples(unittest.TestCase):
    def run_examples(self, namespace, at_least):
        # module=False: a public name says that it is of the package, whichever file it is in.
        finder = doctest.DocTestFinder(exclude_empty=True)
        runner = doctest.DocTestRunner(verbose=False)
        for test in finder.find(namespace, namespace.__name__, module=False,
                                globs={"netkit": netkit, "aio": aio}):
            if not test.examples:
                continue
            said = []
            with self.subTest(of=test.name):
                result = runner.run(test, out=said.append)
                self.assertEqual(result.failed, 0, "".join(said))
        self.assertGreater(runner.tries, at_least)

    def test_netkit(self):
        self.run_examples(netkit, 100)

    def test_aio(self):
        self.run_examples(aio, 20)


if __name__ == "__main__":
    sys.exit(nkt_python.main())
