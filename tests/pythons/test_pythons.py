#!/usr/bin/env python3
"""The whole Python suite on every Python of this machine, and what mypy says of the package."""

import os
import re
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
TESTS = os.path.dirname(HERE)
ROOT = os.path.dirname(TESTS)
sys.path[:0] = [TESTS, os.path.join(TESTS, "python")]

import pythons                                                          # noqa: E402
from nkt_programs import Failure, Skip, Suite, need                     # noqa: E402

LIMIT_S = 600
CACHE = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "netkit")
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


def run(command, **more):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=LIMIT_S, check=False, **more)
    text = done.stdout.decode("utf-8", "replace")
    if done.returncode != 0:
        raise Failure(f"{' '.join(command)}:\n{text[-3000:]}")
    return text


def mypy_is_content():
    run([need("mypy", "mypy"), "--strict", "--cache-dir", os.devnull, "netkit"],
        cwd=os.path.join(ROOT, "python"))


def pyright_knows_every_type():
    """Of the package as it is installed, which is what users' tools see."""
    pyright = os.path.join(CACHE, "node_modules", ".bin", "pyright")
    if not os.path.exists(pyright):
        raise Skip(f"pyright is not in {CACHE}: npm install --prefix {CACHE} pyright")
    with tempfile.TemporaryDirectory() as folder:
        venv = os.path.join(folder, "venv")
        run([sys.executable, "-m", "venv", venv])
        run([os.path.join(venv, "bin", "pip"), "install", "--no-index",
             os.path.join(ROOT, "python")])
        env = dict(os.environ, VIRTUAL_ENV=venv,
                   PATH=os.path.join(venv, "bin") + os.pathsep + os.environ["PATH"])
        said = run([pyright, "--verifytypes", "netkit"], env=env, cwd=folder)
    if "Type completeness score: 100%" not in said:
        raise Failure(said[-3000:])


def main():
    suite = Suite("pythons")
    suite.run("mypy --strict", mypy_is_content)
    suite.run("pyright --verifytypes", pyright_knows_every_type)
    for name, path in pythons.pythons():
        for script in scripts():
            suite.run(f"{name}: {os.path.basename(script)}", run_script, path, script)
    return suite.finish()


if __name__ == "__main__":
    sys.exit(main())
