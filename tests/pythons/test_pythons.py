#!/usr/bin/env python3
"""The whole Python suite on every Python of this machine, and what mypy says of the package."""

import os
import re
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
TESTS = os.path.dirname(HERE)
ROOT = os.path.dirname(TESTS)
sys.path[:0] = [TESTS, os.path.join(TESTS, "python")]

import pythons                                                          # noqa: E402
from nkt_programs import Failure, Suite, need                           # noqa: E402

LIMIT_S = 600
CLOSING = re.compile(r"^(\d+) passed, 0 failed(?:, (\d+) skipped)?$", re.M)


def scripts():
    """All but the one that goes through the Pythons itself."""
    folder = os.path.join(TESTS, "python")
    return [os.path.join(folder, name) for name in sorted(os.listdir(folder))
            if name.startswith("test_") and name != "test_packaging.py"]


def run_script(python, script):
    env = dict(os.environ)
    env.pop("PYTHONPATH", None)
    if python == "/usr/bin/python3":
        env["NKT_TEST_UVLOOP"] = "1"        # Debian's uvloop is for Debian's Python
    done = subprocess.run([python, script], cwd=ROOT, env=env, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=LIMIT_S,
                          check=False)
    text = done.stdout.decode("utf-8", "replace")
    closing = CLOSING.search(text)
    if done.returncode != 0 or closing is None or int(closing.group(1)) == 0:
        raise Failure(f"{os.path.basename(script)} ended with {done.returncode}:\n{text[-3000:]}")


def mypy_is_content():
    done = subprocess.run([need("mypy", "mypy"), "--strict", "--cache-dir", os.devnull, "netkit"],
                          cwd=os.path.join(ROOT, "python"), stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=LIMIT_S, check=False)
    if done.returncode != 0:
        raise Failure(done.stdout.decode()[-3000:])


def main():
    suite = Suite("pythons")
    suite.run("mypy --strict", mypy_is_content)
    for name, path in pythons.pythons():
        for script in scripts():
            suite.run(f"{name}: {os.path.basename(script)}", run_script, path, script)
    return suite.finish()


if __name__ == "__main__":
    sys.exit(main())
