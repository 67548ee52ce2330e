#!/usr/bin/env python3
"""The whole Python suite on every Python of this machine, and what mypy and pyright say of the
package.

The scripts of one Python run three at a time, for they mostly wait; one Python after the other.
`make test-all` runs the suite on its own Python as a step by itself, so that one is left out there.
"""

import concurrent.futures
import os
import re
import subprocess
import sys
import tempfile
import zipfile

HERE = os.path.dirname(os.path.abspath(__file__))
TESTS = os.path.dirname(HERE)
ROOT = os.path.dirname(TESTS)
sys.path[:0] = [TESTS, os.path.join(TESTS, "python")]

import nkt_python                                                       # noqa: E402
import pythons                                                          # noqa: E402
from nkt_programs import EVERYTHING, Failure, Skip, Suite, equal, need  # noqa: E402

LIMIT_S = 600
AT_ONCE = 3
CACHE = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "netkit")
CLOSING = re.compile(r"^(\d+) passed, 0 failed(?:, \d+ skipped)?$", re.M)
SKIPPED = re.compile(r"^skipped (\w+) ", re.M)
# What a Python does not have: exceptions that one thread raises in another. Else nothing is
# skipped.
NOT_ON = {("pypy", "test_signals.py"): ["test_fill", "test_iteration"]}


def scripts():
    """All but the one that goes through the Pythons itself."""
    folder = os.path.join(TESTS, "python")
    return [os.path.join(folder, name) for name in sorted(os.listdir(folder))
            if name.startswith("test_") and name != "test_packaging.py"]


def run_script(name, python, script):
    env = dict(os.environ)
    env.pop("PYTHONPATH", None)
    env.pop("NKT_TEST_UVLOOP", None)        # of who runs this, perhaps
    if python == "/usr/bin/python3":
        env["NKT_TEST_UVLOOP"] = "1"        # Debian's uvloop is for Debian's Python
    if os.path.basename(script) == "test_sim.py":
        env.pop("NKT_TEST_ALL", None)       # on every kind of loop with one Python is enough
    done = subprocess.run([python, script], cwd=ROOT, env=env, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=LIMIT_S,
                          check=False)
    text = done.stdout.decode("utf-8", "replace")
    closing = CLOSING.search(text)
    if done.returncode != 0 or closing is None or int(closing.group(1)) == 0:
        raise Failure(f"{os.path.basename(script)} ended with {done.returncode}:\n{text[-3000:]}")
    equal(sorted(SKIPPED.findall(text)),
          NOT_ON.get((name.split("-")[0], os.path.basename(script)), []), "what was skipped")


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
        run([sys.executable, "-m", "venv", "--without-pip", venv])
        site = run([os.path.join(venv, "bin", "python"), "-c",
                    "import sysconfig; print(sysconfig.get_path('purelib'))"]).strip()
        run([sys.executable, "-c", "import sys; sys.path.insert(0, '_build'); import backend; "
             "backend.build_wheel(sys.argv[1])", folder], cwd=os.path.join(ROOT, "python"),
            env=dict(os.environ, CFLAGS="-O0"))
        [wheel] = [name for name in os.listdir(folder) if name.endswith(".whl")]
        with zipfile.ZipFile(os.path.join(folder, wheel)) as archive:
            archive.extractall(site)
        env = dict(os.environ, VIRTUAL_ENV=venv,
                   PATH=os.path.join(venv, "bin") + os.pathsep + os.environ["PATH"])
        said = run([pyright, "--verifytypes", "netkit"], env=env, cwd=folder)
    if "Type completeness score: 100%" not in said:
        raise Failure(said[-3000:])


def main():
    suite = Suite("pythons")
    suite.run("mypy --strict", mypy_is_content)
    suite.run("pyright --verifytypes", pyright_knows_every_type)
    nkt_python.library()        # or each of the first would begin with building it
    for name, path in pythons.pythons():
        if EVERYTHING and os.path.realpath(path) == os.path.realpath(sys.executable):
            print(f"{name} is the Python of this run")
            continue
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            rows = [(f"{name}: {os.path.basename(script)}", script) for script in scripts()]
            begun = [(row, pool.submit(run_script, name, path, script)) for row, script in rows
                     if suite.only in row]
            for row, result in begun:
                suite.run(row, result.result)
    return suite.finish()


if __name__ == "__main__":
    sys.exit(main())
