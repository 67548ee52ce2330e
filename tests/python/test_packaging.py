#!/usr/bin/env python3
"""Installing the package: wheel, sdist, editable, without network, and what is said on failure.

`make test` calls the backend as pip would; with NKT_TEST_ALL=1 pip does, in a network namespace
with nothing in it where there is unshare: everything that pip can do in an environment as users
make them, and installing with the pip of every Python on the machine.
"""

import base64
import csv
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [HERE, os.path.dirname(HERE)]

import nkt_python                                                       # noqa: E402
import pythons                                                          # noqa: E402
from nkt_programs import Failure, Skip, Suite, equal, need              # noqa: E402

EVERYTHING = os.environ.get("NKT_TEST_ALL") == "1"
LIMIT_S = 300

# What an installed package has to do: load, move bytes, know itself.
TRY_IT = """
import os, sys, netkit
a, b = netkit.pair()
with a, b:
    a.write(b"over and out\\n")
    assert b.readline() == b"over and out\\n"
header = open(os.path.join(netkit.get_include(), "netkit.h")).read()
assert '#define NKT_VERSION "%s"' % netkit.__version__ in header
print(os.path.dirname(netkit.__file__))
"""


def run(command, env=None, cwd=None, want=0):
    """The output of a command that ends as it should."""
    try:
        done = subprocess.run(command, env=env, cwd=cwd, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=LIMIT_S,
                              check=False)
    except subprocess.TimeoutExpired:
        raise Failure(f"{command} did not end within {LIMIT_S} s") from None
    text = done.stdout.decode("utf-8", "replace")
    if (done.returncode == 0) != (want == 0):
        raise Failure(f"{' '.join(command)} ended with {done.returncode}:\n{text[-3000:]}")
    return text


def contains(text, part):
    if part not in text:
        raise Failure(f"{part!r} is not in {text[-3000:]}")


def copy_tree(folder):
    """A checkout with what is needed, and nothing that was built in the real one."""
    tree = os.path.join(folder, "checkout")
    leave = shutil.ignore_patterns("__pycache__", "_netkit.*", "*.egg-info")
    shutil.copytree(os.path.join(ROOT, "python"), os.path.join(tree, "python"), ignore=leave)
    for name in ("netkit.h", "LICENSE"):
        shutil.copy(os.path.join(ROOT, name), tree)
    return tree


def clean_env(**more):
    env = {key: value for key, value in os.environ.items()
           if not key.startswith(("NETKIT_", "PYTHON", "PIP_", "CC", "CFLAGS", "LDFLAGS"))}
    if not EVERYTHING:
        env["CFLAGS"] = "-O0"       # what is built several times
    env.update(PIP_NO_INDEX="1", PIP_DISABLE_PIP_VERSION_CHECK="1", PYTHONDONTWRITEBYTECODE="1",
               PIP_ROOT_USER_ACTION="ignore", **more)
    return env


def backend(tree, hook, target, **more):
    """Calls a hook as pip does, in a process of its own; gives what it returned."""
    code = ("import sys; sys.path.insert(0, '_build'); import backend; "
            "print('made', getattr(backend, sys.argv[1])(sys.argv[2]))")
    os.makedirs(target, exist_ok=True)
    out = run([sys.executable, "-c", code, hook, target], clean_env(**more),
              os.path.join(tree, "python"))
    return os.path.join(target, out.rstrip().rsplit("made ", 1)[1])


def listing(tree):
    found = []
    for folder, _, names in os.walk(tree):
        found += [os.path.join(folder, name) for name in names]
    return sorted(found)


# --- Without pip ----------------------------------------------------------------

def wheel_is_right(folder):
    tree = copy_tree(folder)
    before = listing(tree)
    path = backend(tree, "build_wheel", os.path.join(folder, "wheels"), CFLAGS="-O0")
    equal(listing(tree), before, "what is in the tree afterwards")
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        record = [name for name in names if name.endswith(".dist-info/RECORD")][0]
        rows = list(csv.reader(io.StringIO(archive.read(record).decode())))
        equal(sorted(row[0] for row in rows), sorted(names), "the names in RECORD")
        for name, digest, size in rows:
            data = archive.read(name)
            if name != record:
                sha = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=")
                equal(digest, "sha256=" + sha.decode(), "the digest of " + name)
                equal(int(size), len(data), "the size of " + name)
        for name in ("netkit/__init__.py", "netkit/py.typed", "netkit/include/netkit.h",
                     "netkit/aio/__init__.py"):
            equal(name in names, True, name + " in the wheel")
        wheel = archive.read(record.replace("RECORD", "WHEEL")).decode()
        contains(wheel, "Root-Is-Purelib: false\n")
        contains(wheel, "Tag: %s\n" % os.path.basename(path)[:-4].split("-", 2)[2])
        archive.extractall(os.path.join(folder, "site"))
    out = run([sys.executable, "-c", TRY_IT], clean_env(PYTHONPATH=os.path.join(folder, "site")),
              folder)
    equal(os.path.realpath(out.strip()), os.path.realpath(os.path.join(folder, "site", "netkit")),
          "where it was imported from")


def metadata_is_that_of_pyproject(folder):
    try:
        import tomllib
    except ImportError:
        raise Skip("this Python has no tomllib; use 3.11 or later") from None
    from email.parser import Parser
    tree = copy_tree(folder)
    path = backend(tree, "prepare_metadata_for_build_wheel", os.path.join(folder, "info"))
    with open(os.path.join(tree, "python", "pyproject.toml"), "rb") as file:
        about = tomllib.load(file)["project"]
    with open(os.path.join(path, "METADATA"), encoding="utf-8") as file:
        said = Parser().parse(file)
    with open(os.path.join(tree, "netkit.h"), encoding="ascii") as file:
        version = file.readline().split()[3].lstrip("v")
    for key, want in (("Name", about["name"]), ("Version", version),
                      ("Summary", about["description"]), ("License", about["license"]),
                      ("Keywords", ",".join(about["keywords"])),
                      ("Requires-Python", about["requires-python"])):
        equal(said[key], want, key)
    equal(said.get_all("Classifier"), about["classifiers"], "the classifiers")
    with open(os.path.join(path, "entry_points.txt"), encoding="utf-8") as file:
        lines = file.read().split("\n")
    equal(lines[1:-1], [" = ".join(item) for item in about["scripts"].items()], "the scripts")


def sdist_has_the_header(folder):
    tree = copy_tree(folder)
    first = backend(tree, "build_sdist", os.path.join(folder, "first"))
    with tarfile.open(first) as archive:
        names = archive.getnames()
        top = os.path.basename(first)[:-len(".tar.gz")]
        for name in ("netkit.h", "LICENSE", "PKG-INFO", "pyproject.toml", "_build/backend.py",
                     "netkit/__init__.py", "netkit/py.typed"):
            equal(f"{top}/{name}" in names, True, name + " in the sdist")
    second = backend(tree, "build_sdist", os.path.join(folder, "second"))
    with open(first, "rb") as one, open(second, "rb") as other:
        equal(one.read() == other.read(), True, "that it is the same each time")


def same_wheel_each_time(folder):
    wheels = []
    for place in ("here", "there"):
        tree = copy_tree(os.path.join(folder, place))
        path = backend(tree, "build_wheel", os.path.join(folder, place, "out"), CFLAGS="-O0")
        with open(path, "rb") as file:
            wheels.append(file.read())
    equal(wheels[0] == wheels[1], True, "that two places make the same wheel")


def a_checkout_is_enough(folder):
    """PYTHONPATH and what `make shared` builds, without installing anything."""
    tree = copy_tree(os.path.realpath(folder))
    package = os.path.join(tree, "python")
    there = os.path.join(tree, "build", "libnetkit.so")
    env = clean_env(PYTHONPATH=package)
    said = run([sys.executable, "-c", TRY_IT], env, folder, want=1)
    contains(said, "there is no " + there)
    contains(said, "run `make shared` in a checkout")
    os.makedirs(os.path.dirname(there))
    shutil.copy(nkt_python.library(), there)
    out = run([sys.executable, "-c", TRY_IT], env, folder)
    equal(out.strip(), os.path.join(package, "netkit"), "where it was imported from")
    out = run([sys.executable, "-m", "netkit", "version"], env, folder)
    contains(out, ", %s\n" % there)


def no_compiler_is_said(folder):
    tree = copy_tree(folder)
    code = "import sys; sys.path.insert(0, '_build'); import backend; backend.build_wheel('.')"
    command = [sys.executable, "-c", code]
    os.makedirs(os.path.join(folder, "empty"))
    said = run(command, clean_env(PATH=os.path.join(folder, "empty")),
               os.path.join(tree, "python"), want=1)
    contains(said, "by a C compiler, and there is none: no cc, gcc, clang on PATH")
    contains(said, "apt install gcc")
    equal("Traceback" in said, False, "that there is a traceback")
    said = run(command, clean_env(CC="/no/such/cc -O3"), os.path.join(tree, "python"), want=1)
    contains(said, "CC says '/no/such/cc -O3', which there is not")
    said = run(command, clean_env(CFLAGS="-fno-such-thing"), os.path.join(tree, "python"),
               want=1)
    contains(said, "netkit.h was not compiled. The command was")
    contains(said, "-fno-such-thing")
    equal("Traceback" in said, False, "that there is a traceback")


def windows_wheel(folder):
    compiler = need("x86_64-w64-mingw32-gcc", "gcc-mingw-w64-x86-64")
    tree = copy_tree(folder)
    path = backend(tree, "build_wheel", os.path.join(folder, "wheels"), CC=compiler,
                   CFLAGS="-O0", NETKIT_WHEEL_PLATFORM="win_amd64")
    equal(path.endswith("-py3-none-win_amd64.whl"), True, path)
    with zipfile.ZipFile(path) as archive:
        equal(archive.read("netkit/_netkit.dll")[:2], b"MZ", "what the library begins with")
        equal("netkit/_netkit.so" in archive.namelist(), False, "that there is a .so")


# --- With pip, in every Python --------------------------------------------------

BUNDLED = """
import ensurepip, glob, os
for folder in (os.path.join(os.path.dirname(ensurepip.__file__), "_bundled"),
               "/usr/share/python-wheels"):
    for path in glob.glob(os.path.join(folder, "pip-*.whl")):
        print(path)
"""


def bundled_pip(name, python):
    """The folder of the pip that a Python brings, unpacked once: making an environment with it
    takes longer than all that is done there."""
    wheel = run([python, "-c", BUNDLED], clean_env()).split("\n")[0]
    if not wheel:
        raise Skip(f"{name} brings no pip: apt-get install python3-venv pypy3-venv")
    where = os.path.join(nkt_python.BUILD, "tests", "python", os.path.basename(wheel)[:-4])
    if not os.path.exists(where):
        os.makedirs(os.path.dirname(where), exist_ok=True)
        with tempfile.TemporaryDirectory(dir=os.path.dirname(where)) as fresh:
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(os.path.join(fresh, "pip"))
            os.rename(os.path.join(fresh, "pip"), where)
    return os.path.join(where, "pip")


class Place:
    """A fresh environment of one Python, a checkout that cannot be written, and no network. With
    a `name` it has no pip of its own."""

    def __init__(self, folder, python, name=""):
        self.folder = folder
        self.tree = copy_tree(folder)
        self.log = os.path.join(folder, "compilations")
        self.wrapper = os.path.join(folder, "logged cc")
        with open(self.wrapper, "w", encoding="utf-8") as file:
            file.write('#!/bin/sh\necho "$@" >> "$LOG"\nexec cc "$@"\n')
        os.chmod(self.wrapper, 0o755)
        self.venv = os.path.join(folder, "venv")
        run([python, "-m", "venv"] + ["--without-pip"] * bool(name) + [self.venv], clean_env())
        self.python = os.path.join(self.venv, "bin", "python")
        self.pip_words = [bundled_pip(name, python)] if name else ["-m", "pip"]

    def pip(self, *words, writable=False, want=0, **more):
        env = clean_env(CC=f"'{self.wrapper}'", LOG=self.log, CFLAGS="-O0 -DASKED_FOR=1",
                        LDFLAGS="-Wl,-z,now", HOME=os.path.join(self.folder, "home"))
        if self.pip_words[0] != "-m":
            del env["PYTHONDONTWRITEBYTECODE"]
            env["PYTHONPYCACHEPREFIX"] = os.path.join(nkt_python.BUILD, "pycache")
        env.update(more)
        script = 'cd "$0" && exec "$@"'
        command = ["sh", "-c", script, self.folder, self.python] + self.pip_words + list(words)
        if works(["unshare", "-rnm", "true"]):
            if not writable:
                command[2] = ('mount --bind "$TREE" "$TREE" && '
                              'mount -o remount,bind,ro "$TREE" && ') + script
            env["TREE"] = self.tree
            command = ["unshare", "-rnm"] + command
        before = listing(self.tree)
        out = run(command, env, self.folder, want)
        if not writable:
            equal(listing(self.tree), before, "what is in the tree afterwards")
        return out

    def compilations(self):
        try:
            with open(self.log, encoding="utf-8") as file:
                return file.read().splitlines()
        except FileNotFoundError:
            return []
        finally:
            open(self.log, "w", encoding="utf-8").close()

    def try_it(self, where):
        env = clean_env()
        out = run([self.python, "-c", TRY_IT], env, self.folder)
        equal(os.path.realpath(out.strip()).startswith(os.path.realpath(where) + os.sep), True,
              f"that {out.strip()} is inside {where}")
        said = run([os.path.join(self.venv, "bin", "netkit"), "version"], env, self.folder)
        contains(said, run([self.python, "-c", "import netkit; print(netkit.__version__)"], env,
                           self.folder).strip())

    def remove(self):
        self.pip("uninstall", "-y", "netkit", writable=True)
        said = run([self.python, "-c", "import netkit"], clean_env(), self.folder, want=1)
        contains(said, "No module named")


def works(command):
    return shutil.which(command[0]) is not None and \
        subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode == 0


def install_source(place, *words):
    place.pip("install", *words, os.path.join(place.tree, "python"))
    calls = place.compilations()
    equal(len(calls), 1, "how often it was compiled")
    for word in ("-DASKED_FOR=1", "-Wl,-z,now"):
        contains(calls[0], word)
    place.try_it(place.venv)


def install_everywhere(folder, name, python):
    install_source(Place(folder, python, name), "--no-compile")


def all_ways(folder):
    place = Place(folder, sys.executable)
    source = os.path.join(place.tree, "python")

    install_source(place)
    place.remove()

    place.pip("wheel", "-w", os.path.join(folder, "wheels"), source)
    [wheel] = os.listdir(os.path.join(folder, "wheels"))
    equal(wheel.split("-")[2:4], ["py3", "none"], "the wheel's tag")
    place.compilations()
    place.pip("install", os.path.join(folder, "wheels", wheel), CC="false", PATH="/usr/bin:/bin")
    place.try_it(place.venv)
    place.remove()

    sdist = backend(place.tree, "build_sdist", os.path.join(folder, "sdist"))
    place.pip("install", sdist)
    equal(len(place.compilations()), 1, "how often it was compiled")
    place.try_it(place.venv)
    place.remove()

    place.pip("install", "-e", source, writable=True)
    place.try_it(place.tree)
    place.remove()

    os.makedirs(os.path.join(folder, "empty"))
    said = place.pip("install", source, CC="/no/such/cc", want=1)
    contains(said, "by a C compiler, and CC says '/no/such/cc', which there is not")


def too_old_is_refused(folder, name, python):
    place = Place(folder, python, name)
    said = place.pip("install", os.path.join(place.tree, "python"), want=1)
    contains(said, "requires a different Python")


def in_folder(function, *args):
    def row():
        with tempfile.TemporaryDirectory(prefix="netkit packaging ") as folder:
            function(folder, *args)
    return row


def main():
    suite = Suite("packaging")
    for name, function in (("a wheel", wheel_is_right),
                           ("its metadata", metadata_is_that_of_pyproject),
                           ("an sdist", sdist_has_the_header),
                           ("a checkout", a_checkout_is_enough),
                           ("no compiler", no_compiler_is_said)):
        suite.run(name, in_folder(function))
    if EVERYTHING:
        suite.run("the same wheel each time", in_folder(same_wheel_each_time))
        suite.run("a wheel for Windows", in_folder(windows_wheel))
        suite.run("all ways", in_folder(all_ways))
        for name, path in pythons.pythons():
            suite.run("pip with " + name, in_folder(install_everywhere, name, path))
        for name, path in pythons.older()[-1:]:
            suite.run("refused by " + name, in_folder(too_old_is_refused, name, path))
    return suite.finish()


if __name__ == "__main__":
    sys.exit(main())
