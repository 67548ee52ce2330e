#!/usr/bin/env python3
"""How netkit.h compiles: every compiler and standard, every warning an error."""

import sys

from compiling import ALL, IMPLEMENT, MINGW, MINGW_CXX, compile_text, cxx, finish, test
from nkt_programs import CC, need
from nkt_warnings import BASIC, CLANG_C, CLANG_CXX, GCC_BOTH, GCC_C


def standard_tests():
    rows = []
    for compiler, package, warnings in (("gcc", "gcc", GCC_C), ("clang", "clang", CLANG_C)):
        for standard in ("c99", "c11", "c17"):
            rows.append((compiler, package, standard, warnings))
    for compiler, package, warnings in (("g++", "g++", GCC_BOTH), ("clang++", "clang", CLANG_CXX)):
        for standard in ("c++11", "c++14", "c++17", "c++20"):
            rows.append((compiler, package, standard, warnings))
    rows.append((MINGW, "mingw-w64", "c99", GCC_C))
    rows.append((MINGW_CXX, "mingw-w64", "c++11", GCC_BOTH))
    for compiler, package, standard, warnings in rows:
        def both_halves(compiler=compiler, package=package, standard=standard,
                        warnings=warnings):
            need(compiler, package)
            flags = ["-std=" + standard] + warnings
            compile_text(compiler, flags, '#include "netkit.h"\n')
            # Some warnings come only from the optimizer, which does not know of standards: it
            # sees the oldest and the newest of each compiler.
            middle = standard in ("c11", "c++14", "c++17")
            compile_text(compiler, flags + ["-O0" if middle else "-O2"], IMPLEMENT)
        test("%s -std=%s, every warning an error" % (compiler, standard), True)(both_halves)


standard_tests()


@test("clang for Windows, every warning an error", True)
def _():
    # The nearest to MSVC's /W4 that can be had without its headers.
    need(MINGW, "mingw-w64")
    need("clang", "clang")
    windows = ["--target=x86_64-w64-mingw32"]
    compile_text("clang", windows + ["-std=c99"] + CLANG_C, IMPLEMENT)
    compile_text("clang++", windows + ["-std=c++11"] + CLANG_CXX, IMPLEMENT)


@test("the C compiler, C99, warnings as errors")
def _():
    compile_text(CC, ["-std=c99"] + BASIC, '#include "netkit.h"\n')
    compile_text(CC, ["-std=c99", "-O2" if ALL else "-O0"] + BASIC, IMPLEMENT)


@test("the C++ compiler, C++11, warnings as errors")
def _():
    compile_text(cxx(), ["-std=c++11"] + BASIC, '#include "netkit.h"\n')
    compile_text(cxx(), ["-std=c++11"] + BASIC, IMPLEMENT)


@test("GNU dialects, which have macros called linux and unix", True)
def _():
    need("gcc", "gcc")
    need("g++", "g++")
    for compiler, standard in (("gcc", "gnu99"), ("gcc", "gnu17"), ("g++", "gnu++17")):
        compile_text(compiler, ["-std=" + standard, "-fsyntax-only"] + BASIC, IMPLEMENT)


@test("32 bits, every warning an error", True)
def _():
    need("gcc", "gcc-12-multilib")
    flags = ["-m32", "-idirafter", "/usr/include/x86_64-linux-gnu", "-O2"]
    compile_text("gcc", flags + ["-std=c99"] + GCC_C, IMPLEMENT)
    compile_text("g++", flags + ["-std=c++11"] + GCC_BOTH, IMPLEMENT)


@test("char is signed and unsigned, -Os and -O3", True)
def _():
    for compiler, package, warnings in (("gcc", "gcc", GCC_C), ("clang", "clang", CLANG_C)):
        need(compiler, package)
        # What a char is, is for the front end, and how far is optimized for the other one: two
        # that cover both do.
        for flags in (["-Os", "-fsigned-char"], ["-O3", "-funsigned-char"]):
            compile_text(compiler, ["-std=c99"] + flags + warnings, IMPLEMENT)


if __name__ == "__main__":
    sys.exit(finish())
