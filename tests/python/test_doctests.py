#!/usr/bin/env python3
"""The examples in the docstrings of both namespaces give what they say."""

import doctest
import inspect
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
        self.run_examples(netkit, 170)

    def test_aio(self):
        self.run_examples(aio, 140)

    def test_sim(self):
        self.run_examples(netkit.sim, 35)

    # What `io` asks of a file: there is nothing to show; and what every exception and tuple has.
    PLAIN = {"readable", "writable", "seekable", "isatty"}.union(dir(BaseException), dir(tuple))

    def test_everything_has_one(self):
        seen = 0
        for namespace in (netkit, aio, netkit.sim):
            for name in namespace.__all__:
                public = getattr(namespace, name)
                if not inspect.isclass(public) and not inspect.isfunction(public):
                    continue
                self.has_one(public)
                seen += 1
                for member in dir(public) if inspect.isclass(public) else ():
                    function = getattr(public, member)
                    if member[0] == "_" or member in self.PLAIN or \
                            not (inspect.isfunction(function) or inspect.ismethod(function)):
                        continue
                    self.has_one(function)
                    seen += 1
        self.assertGreater(seen, 120)

    def has_one(self, public):
        self.assertIn(">>>", public.__doc__ or "",
                      "%s.%s" % (public.__module__, public.__qualname__))


if __name__ == "__main__":
    sys.exit(nkt_python.main())
