"""What the scripts of this folder share: compiling a text, linking it, running it.

Without NKT_TEST_ALL=1 only what CC and a C++ compiler can show in some seconds is run.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from nkt_programs import CC, ROOT, Failure, Skip, Suite

BUILD = os.path.abspath(os.path.join(ROOT, os.environ.get("BUILD") or "build"))
os.makedirs(BUILD, exist_ok=True)
WORK = tempfile.mkdtemp(prefix="compile-", dir=BUILD)
ALL = os.environ.get("NKT_TEST_ALL") == "1"
MINGW = "x86_64-w64-mingw32-gcc"
MINGW_CXX = "x86_64-w64-mingw32-g++"
BORDER = "//#### IMPLEMENTATION ####"

IMPLEMENT = '#define NETKIT_IMPLEMENTATION\n#include "netkit.h"\n'

# Uses some of everything, opens sockets, and ends with a word of its own.
MAIN = r"""
#include <stdio.h>
int main(void) {
    nkt_ip ip;
    nkt_listener *listener = NULL;
    if (nkt_ip_parse("192.0.2.1", &ip) != NKT_OK || ip.bytes[0] != 192) return 1;
    if (nkt_listen("127.0.0.1:0", NULL, &listener) != NKT_OK) return 2;
    nkt_listener_close(listener);
    printf("netkit %s\n", nkt_version());
    return 0;
}
"""

TESTS = []


def test(name, everything=False):
    """Marks a test; with `everything` it belongs to test-all only."""
    def mark(function):
        TESTS.append((name, everything, function))
        return function
    return mark


def finish():
    """Runs what is marked, for a script's main."""
    try:
        suite = Suite("compile")
        for name, everything, function in TESTS:
            if ALL or not everything:
                suite.run(name, function)
        return suite.finish()
    finally:
        shutil.rmtree(WORK, ignore_errors=True)


def expect(condition, message):
    if not condition:
        raise Failure(message)


def run(command, env=None):
    """Runs a command that has to succeed; gives its standard output."""
    done = subprocess.run(command, cwd=WORK, env=env, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=180)
    if done.returncode != 0:
        raise Failure("%s\nended with status %d\n%s%s" % (
            " ".join(command), done.returncode, done.stdout.decode("utf-8", "replace"),
            done.stderr.decode("utf-8", "replace")))
    return done.stdout.decode("utf-8", "replace").replace("\r\n", "\n")


def write(name, text):
    path = os.path.join(WORK, name)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        return file.read()


def compile_text(compiler, flags, text, name="unit"):
    """Compiles a text, gives the object."""
    compiler = compiler if isinstance(compiler, list) else [compiler]
    is_cxx = compiler[0].endswith("++")
    source = write(name + (".cc" if is_cxx else ".c"), text)
    target = os.path.join(WORK, name + ".o")
    makes = [] if "-fsyntax-only" in flags else ["-c", "-o", target]
    run(compiler + flags + ["-I" + ROOT, source] + makes)
    return target


def program(linker, objects, flags=(), name="program"):
    """Links objects, runs the program, gives what it printed."""
    linker = linker if isinstance(linker, list) else [linker]
    target = os.path.join(WORK, name)
    run(linker + list(objects) + list(flags) + ["-o", target, "-pthread"])
    return run([target])


def version():
    return re.search(r'#define NKT_VERSION "([^"]+)"', read("netkit.h")).group(1)


def cxx():
    for name in (os.environ.get("CXX"), "c++", "g++", "clang++"):
        if name and shutil.which(name):
            return name
    raise Skip("there is no C++ compiler; install g++ or clang")


def switches():
    """The switches of the manual's section 5, ready for the command line."""
    manual = read("netkit.h").split("*/")[0]
    section = manual[manual.index("\n5. COMPILE-TIME OPTIONS"):manual.index("\n6. ")]
    names = re.findall(r"^   (NETKIT_\w+(?:\(x\))?)", section, re.M)
    expect(len(names) >= 8, "the manual's section 5 lists only %r" % names)
    return [name for name in names if name != "NETKIT_IMPLEMENTATION"]


def define(name):
    return "-D" + (name + "=((void)(x))" if name.endswith("(x)") else name)


def symbols(flags, path):
    lines = run(["nm"] + flags + [path]).splitlines()
    return sorted(line.split()[-1].split("@")[0] for line in lines if line.split())
