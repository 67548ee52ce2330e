"""Builds the package: PEP 517 and PEP 660 with the standard library and a C compiler.

One compilation makes netkit/_netkit.so (.dylib, .dll) of netkit.h, which is beside this tree in
a checkout and inside it in an sdist. The result goes into a wheel for every Python 3 of the
platform: ctypes loads the library, so there is no ABI of Python's in it.

Environment:
    CC, CFLAGS, LDFLAGS      the compiler (default: the first of cc, gcc, clang) and more flags
    NETKIT_WHEEL_PLATFORM    the platform tag, for cross-compiling: win_amd64, manylinux_2_17_x86_64
    SOURCE_DATE_EPOCH        the date of the files in archives (default: 1980-01-01)
"""

import ast
import base64
import gzip
import hashlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
import zipfile

TREE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PACKAGE = os.path.join(TREE, "netkit")
COMPILERS = ("cc", "gcc", "clang")

NO_COMPILER = """
netkit is made of one C file, netkit.h, by a C compiler, and %s.
Install one and try again:
    Debian, Ubuntu    apt install gcc libc6-dev
    Fedora            dnf install gcc
    Alpine            apk add gcc musl-dev
    macOS             xcode-select --install
    Windows           winget install BrechtSanders.WinLibs.POSIX.UCRT
or say which it is: CC=/path/to/compiler pip install ...
"""


def get_requires_for_build_wheel(config_settings=None):
    return []


def get_requires_for_build_sdist(config_settings=None):
    return []


def get_requires_for_build_editable(config_settings=None):
    return []


# --- What is known of the project ---------------------------------------------

def project():
    """The tables [project] and [project.scripts] of pyproject.toml, as one dictionary each."""
    tables, table = {}, {}
    with open(os.path.join(TREE, "pyproject.toml"), encoding="utf-8") as file:
        for line in file:
            if line.startswith("["):
                table = tables.setdefault(line.strip()[1:-1], {})
            elif " = " in line and not line.startswith("#"):
                key, value = line.split(" = ", 1)
                value = value.strip()
                table[key] = value == "true" if value in ("true", "false") else \
                    ast.literal_eval(value)
    return tables["project"], tables["project.scripts"]


def beside(name):
    """A file that an sdist has inside and a checkout has one folder up."""
    for folder in (TREE, os.path.dirname(TREE)):
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            return path
    raise SystemExit("there is no %s in %s or in the folder above; is this a checkout or an "
                     "sdist of netkit?" % (name, TREE))


def read(path):
    with open(path, "rb") as file:
        return file.read()


def version():
    """That of the header, so that the two cannot differ."""
    match = re.search(rb'^#define NKT_VERSION "([^"]+)"', read(beside("netkit.h")), re.M)
    if match is None:
        raise SystemExit("%s does not define NKT_VERSION" % beside("netkit.h"))
    return match.group(1).decode()


def metadata():
    about, _ = project()
    lines = ["Metadata-Version: 2.1", "Name: " + about["name"], "Version: " + version(),
             "Summary: " + about["description"], "License: " + about["license"],
             "Keywords: " + ",".join(about["keywords"]),
             "Requires-Python: " + about["requires-python"]]
    lines += ["Classifier: " + classifier for classifier in about["classifiers"]]
    return ("\n".join(lines) + "\n").encode()


def platform_tag():
    chosen = os.environ.get("NETKIT_WHEEL_PLATFORM")
    if chosen:
        return chosen
    tag = re.sub(r"[-. ]", "_", sysconfig.get_platform())
    # A 32-bit Python on a 64-bit kernel is told that kernel's name.
    if sys.maxsize < 2 ** 32:
        tag = {"linux_x86_64": "linux_i686", "linux_aarch64": "linux_armv7l"}.get(tag, tag)
    return tag


def wheel_tag():
    return "py3-none-" + platform_tag()


def library_name(platform):
    if platform.startswith("win"):
        return "_netkit.dll"
    return "_netkit.dylib" if platform.startswith("macosx") else "_netkit.so"


# --- Compiling ------------------------------------------------------------------

def compiler():
    asked = os.environ.get("CC")
    if asked:
        words = shlex.split(asked, posix=os.name != "nt")
        if not shutil.which(words[0]):
            raise SystemExit(NO_COMPILER % ("CC says %r, which there is not" % asked))
        return words
    for name in COMPILERS:
        if shutil.which(name):
            return [name]
    raise SystemExit(NO_COMPILER % ("there is none: no %s on PATH" % ", ".join(COMPILERS)))


def compile_library(platform):
    """The bytes of the shared library. Nothing is written into the tree."""
    command = compiler() + ["-std=c99", "-O2"] + shlex.split(os.environ.get("CFLAGS", ""))
    command += ["-fvisibility=hidden", "-DNETKIT_SHARED", "-shared"]
    libraries = ["-pthread"]
    if platform.startswith("win"):
        libraries = ["-lws2_32", "-liphlpapi", "-static-libgcc"]
    elif platform.startswith("macosx"):
        command += ["-Wl,-install_name,@rpath/_netkit.dylib"]
        if platform.endswith("universal2"):
            command += ["-arch", "arm64", "-arch", "x86_64"]
    else:
        command += ["-fPIC", "-s"]
    name = library_name(platform)
    with tempfile.TemporaryDirectory(prefix="netkit-") as folder:
        # A copy, so that the path in assertions is the same wherever it is built.
        shutil.copyfile(beside("netkit.h"), os.path.join(folder, "netkit.h"))
        with open(os.path.join(folder, "netkit.c"), "w", encoding="ascii") as file:
            file.write('#define NETKIT_IMPLEMENTATION\n#include "netkit.h"\n')
        command += ["netkit.c", "-o", name]
        command += shlex.split(os.environ.get("LDFLAGS", "")) + libraries
        done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, check=False)
        if done.returncode != 0:
            raise SystemExit("netkit.h was not compiled. The command was\n    %s\nand it said\n%s"
                             % (" ".join(map(shlex.quote, command)),
                                done.stdout.decode("utf-8", "replace")))
        return read(os.path.join(folder, name))


# --- What goes into an archive ----------------------------------------------------

def sources():
    """The package's files, by their names in archives."""
    found = []
    for folder, folders, names in os.walk(PACKAGE):
        folders[:] = sorted(set(folders) - {"__pycache__", "include"})
        for name in sorted(names):
            if name.endswith((".py", ".pyi")) or name == "py.typed":
                path = os.path.join(folder, name)
                found.append((os.path.relpath(path, TREE).replace(os.sep, "/"), path))
    return found


def date():
    return max(int(os.environ.get("SOURCE_DATE_EPOCH") or 0), 315532800)


def information():
    """The files of a wheel's .dist-info but RECORD: (name, bytes)."""
    _, scripts = project()
    wheel = ("Wheel-Version: 1.0\nGenerator: netkit backend\nRoot-Is-Purelib: false\n"
             "Tag: %s\n" % wheel_tag())
    points = "[console_scripts]\n" + "".join("%s = %s\n" % item for item in scripts.items())
    return [("METADATA", metadata()), ("WHEEL", wheel.encode()),
            ("entry_points.txt", points.encode()), ("LICENSE", read(beside("LICENSE")))]


def write_wheel(folder, files):
    """Writes the wheel of (name, bytes) and its .dist-info; gives its name."""
    stem = "netkit-" + version()
    files = files + [(stem + ".dist-info/" + name, data) for name, data in information()]
    record = ""
    for name, data in files:
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        record += "%s,sha256=%s,%d\n" % (name, digest, len(data))
    record_name = stem + ".dist-info/RECORD"
    files = files + [(record_name, (record + record_name + ",,\n").encode())]
    name = "%s-%s.whl" % (stem, wheel_tag())
    with zipfile.ZipFile(os.path.join(folder, name), "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in files:
            entry = zipfile.ZipInfo(path, time.gmtime(date())[:6])
            entry.compress_type = zipfile.ZIP_DEFLATED
            mode = 0o755 if path.endswith((".so", ".dylib", ".dll")) else 0o644
            entry.external_attr = (0o100000 | mode) << 16
            archive.writestr(entry, data)
    return name


def write_information(folder):
    name = "netkit-%s.dist-info" % version()
    os.makedirs(os.path.join(folder, name))
    for path, data in information():
        with open(os.path.join(folder, name, path), "wb") as file:
            file.write(data)
    return name


# --- The hooks --------------------------------------------------------------------

# Without the two that prepare metadata pip would compile twice.
def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    return write_information(metadata_directory)


def prepare_metadata_for_build_editable(metadata_directory, config_settings=None):
    return write_information(metadata_directory)


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    platform = platform_tag()
    files = [(name, read(path)) for name, path in sources()]
    files.append(("netkit/include/netkit.h", read(beside("netkit.h"))))
    files.append(("netkit/" + library_name(platform), compile_library(platform)))
    return write_wheel(wheel_directory, files)


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    """The package stays where it is, with the library beside it."""
    platform = platform_tag()
    library = compile_library(platform)
    target = os.path.join(PACKAGE, library_name(platform))
    try:
        # Beside it and moved: a process may have the old one loaded.
        with open(target + ".new", "wb") as file:
            file.write(library)
        os.chmod(target + ".new", 0o755)
        os.replace(target + ".new", target)
    except OSError as error:
        raise SystemExit("an editable installation puts the library beside the package, and "
                         "%s cannot be written: %s" % (target, error.strerror)) from None
    return write_wheel(wheel_directory, [("__editable__.netkit.pth", (TREE + "\n").encode())])


def build_sdist(sdist_directory, config_settings=None):
    stem = "netkit-" + version()
    files = [("PKG-INFO", metadata())]
    files += [(name, read(path)) for name, path in sources()]
    for path in (os.path.join(TREE, "pyproject.toml"), beside("netkit.h"), beside("LICENSE")):
        files.append((os.path.basename(path), read(path)))
    files.append(("_build/backend.py", read(os.path.abspath(__file__))))
    name = stem + ".tar.gz"
    with open(os.path.join(sdist_directory, name), "wb") as file, \
            gzip.GzipFile("", "wb", fileobj=file, mtime=date()) as packed, \
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path, data in sorted(files):
            entry = tarfile.TarInfo(stem + "/" + path)
            entry.size, entry.mtime, entry.mode = len(data), date(), 0o644
            archive.addfile(entry, io.BytesIO(data))
    return name
