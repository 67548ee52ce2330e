"""What the Python tests share: the library they use, and how they end.

    import nkt_python
    nkt_python.use_netkit()
    ...
    if __name__ == "__main__":
        nkt_python.main()

use_netkit() builds the shared library of this checkout, if it is not there, and puts the package
on the path. NETKIT_LIBRARY, where it is set, is taken as it is.
"""

import fcntl
import hashlib
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
BUILD = os.path.abspath(os.path.join(ROOT, os.environ.get("BUILD") or "build"))
EVERYTHING = os.environ.get("NKT_TEST_ALL") == "1"


def built(header, code=b'#define NETKIT_IMPLEMENTATION\n#include "netkit.h"\n', optimize="-O0"):
    """The path of a shared library of C code that includes a netkit.h with this text; built with
    CC, CFLAGS and LDFLAGS as they are now, and once, however many Pythons ask for it."""
    command = (shlex.split(os.environ.get("CC") or "cc") + ["-std=c99", optimize]
               + shlex.split(os.environ.get("CFLAGS") or "")
               + ["-fPIC", "-fvisibility=hidden", "-DNETKIT_SHARED", "-I", ".", "-x", "c", "-",
                  "-shared"] + shlex.split(os.environ.get("LDFLAGS") or "") + ["-pthread"])
    stamp = hashlib.sha256(header + code + repr(command).encode()).hexdigest()[:16]
    folder = os.path.join(BUILD, "tests", "python")
    path = os.path.join(folder, "libnetkit-%s.so" % stamp)
    os.makedirs(folder, exist_ok=True)
    # Several tests begin at the same time, and one of them builds it.
    with open(path + ".lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(path):
            with tempfile.TemporaryDirectory(dir=folder) as place:
                with open(os.path.join(place, "netkit.h"), "wb") as file:
                    file.write(header)
                subprocess.run(command + ["-o", "fresh.so"], check=True, input=code, cwd=place)
                os.replace(os.path.join(place, "fresh.so"), path)
    return path


def library(optimize="-O2" if EVERYTHING else "-O1"):
    """The path of the shared library of this checkout."""
    with open(os.path.join(ROOT, "netkit.h"), "rb") as file:
        return built(file.read(), optimize=optimize)


def use_netkit():
    """Makes `import netkit` give the package of this checkout."""
    if not os.environ.get("NETKIT_LIBRARY"):
        os.environ["NETKIT_LIBRARY"] = library()
    package = os.path.join(ROOT, "python")
    sys.path[:0] = [package]
    paths = [package] + [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep)
                         if path]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)


def interruptible():
    """Of a child, before it begins: a shell's background jobs ignore SIGINT, and pass that on."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def python(code, *arguments, want=0, env=None, timeout=60):
    """What a Python program of its own prints, and what it says; it ends with status `want`."""
    done = subprocess.run([sys.executable, "-c", code] + list(arguments), stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout,
                          env=env, check=False, preexec_fn=interruptible)
    out, err = done.stdout.decode(), done.stderr.decode()
    if done.returncode != want:
        raise AssertionError("ended with %d:\n%s\n%s" % (done.returncode, out, err))
    return out, err


class _Result(unittest.TextTestResult):
    """Counts subtests as tests of their own."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.parts = 0

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        self.parts += 1


def main():
    """Runs the tests of the calling file and ends with the line that tests/run.py reads."""
    suite = unittest.defaultTestLoader.loadTestsFromModule(sys.modules["__main__"])
    runner = unittest.TextTestRunner(stream=sys.stdout, resultclass=_Result, verbosity=1)
    result = runner.run(suite)
    failed = len(result.failures) + len(result.errors) + len(result.unexpectedSuccesses)
    skipped = len(result.skipped)
    for test, why in result.skipped:
        print("skipped %s: %s" % (test, why))
    passed = max(0, result.testsRun + result.parts - failed - skipped)
    more = ", %d skipped" % skipped if skipped else ""
    print("%d passed, %d failed%s" % (passed, failed, more))
    sys.exit(1 if failed or passed + failed + skipped == 0 else 0)
