"""The Pythons of this machine: every CPython from 3.9 up, and PyPy."""

import glob
import os
import shutil
import subprocess
import sys

OLDEST = (3, 9)
NEWEST = 19         # minor versions that are looked for on PATH


def candidates():
    names = ["python3.%d" % minor for minor in range(OLDEST[1], NEWEST + 1)]
    paths = [sys.executable]
    paths += [shutil.which(name) for name in names + ["python3", "pypy3"]]
    for folder in ("~/.pyenv/versions/*/bin", "/usr/bin", "/usr/local/bin", "/opt/python*/bin"):
        paths += sorted(glob.glob(os.path.join(os.path.expanduser(folder), "python3")))
        paths += sorted(glob.glob(os.path.join(os.path.expanduser(folder), "python3.*[0-9]")))
    return [path for path in paths if path]


def version_of(path):
    """("cpython", (3, 11, 2)) or None for what does not run."""
    code = "import sys; print(sys.implementation.name, *sys.version_info[:3])"
    out = subprocess.run([path, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                         check=False)
    words = out.stdout.decode().split()
    return (words[0], tuple(map(int, words[1:]))) if out.returncode == 0 and words else None


def everything():
    """(name, path) of each, one of a version: [("cpython-3.9.18", "/..."), ...]."""
    found, seen = {}, set()
    for path in candidates():
        real = os.path.realpath(path)
        if real in seen:
            continue
        seen.add(real)
        version = version_of(path)
        if version is not None:
            found.setdefault(version, path)
    return [("%s-%d.%d.%d" % ((name,) + version), path, version >= OLDEST)
            for (name, version), path in sorted(found.items())]


def pythons():
    """Those that netkit is for."""
    return [(name, path) for name, path, fits in everything() if fits]


def older():
    """Those that it is not for."""
    return [(name, path) for name, path, fits in everything() if not fits]


if __name__ == "__main__":
    for name, path in pythons():
        print(name, path)
