#!/usr/bin/env python3
"""How netkit.h is used: several files, neighbours, switches, symbols, libraries."""

import os
import re
import shutil
import subprocess
import sys

from compiling import (ALL, BORDER, IMPLEMENT, MAIN, MINGW, MINGW_CXX, WORK, compile_text, cxx,
                       define, expect, finish, program, read, run, switches, symbols, test,
                       version, write)
from nkt_programs import CC, ROOT, Failure, Skip, need
from nkt_warnings import BASIC


# --- Several files, two languages ----------------------------------------------

USER_C = """
#include "netkit.h"
const char *from_c(void);
const char *from_c(void) { return nkt_version(); }
"""

USER_CXX = r"""
#include "netkit.h"
#include <cstdio>
#include <cstring>
extern "C" const char *from_c(void);
int main() {
    nkt_ip a, b;
    nkt_conn *one = nullptr, *two = nullptr;
    nkt_str line;
    if (nkt_ip_parse("2001:db8::1", &a) != NKT_OK) return 1;
    if (nkt_ip_parse("2001:DB8:0::1", &b) != NKT_OK || !nkt_ip_equal(&a, &b)) return 2;
    if (nkt_conn_pair(nullptr, nullptr, &one, &two) != NKT_OK) return 3;
    if (nkt_conn_write_str(one, "over the border\n") != NKT_OK) return 4;
    if (nkt_conn_read_line(two, &line) != NKT_OK) return 5;
    if (line.len != 15 || std::memcmp(line.ptr, "over the border", 15) != 0) return 6;
    nkt_conn_close(one);
    nkt_conn_close(two);
    if (std::strcmp(from_c(), nkt_version()) != 0) return 7;
    std::printf("netkit %s\n", from_c());
}
"""


@test("one C file implements, a C and a C++ file use it")
def _():
    compiler = cxx()
    objects = [compile_text(CC, ["-std=c99"] + BASIC, IMPLEMENT, "implement"),
               compile_text(CC, ["-std=c99"] + BASIC, USER_C, "user_c"),
               compile_text(compiler, ["-std=c++11"] + BASIC, USER_CXX, "user_cxx")]
    expect(program(compiler, objects) == "netkit %s\n" % version(), "it printed something else")


@test("one C++ file implements, a C and a C++ file use it", True)
def _():
    compiler = cxx()
    objects = [compile_text(compiler, ["-std=c++11"] + BASIC, IMPLEMENT, "implement"),
               compile_text(CC, ["-std=c99"] + BASIC, USER_C, "user_c"),
               compile_text(compiler, ["-std=c++11"] + BASIC, USER_CXX, "user_cxx")]
    expect(program(compiler, objects) == "netkit %s\n" % version(), "it printed something else")


@test("declarations before the implementation in one file", True)
def _():
    text = '#define _GNU_SOURCE\n#include "netkit.h"\n' + IMPLEMENT + '#include "netkit.h"\n' + MAIN
    expect(program(CC, [compile_text(CC, ["-std=c99"] + BASIC, text)]) ==
           "netkit %s\n" % version(), "it printed something else")

@test("the kqueue code over the shim calls kevent and no epoll", True)
def _():
    need("nm", "binutils")
    flags = ["-DNKTI_KQUEUE_SHIM", "-I" + os.path.join(ROOT, "tests", "compile", "kqueue")]
    wanted = symbols(["-u"], compile_text(CC, ["-std=c99", "-O2"] + flags + BASIC, IMPLEMENT))
    expect("kevent" in wanted and "kqueue" in wanted, "it calls no kevent")
    expect(not [name for name in wanted if name.startswith("epoll")], "it calls epoll")
    # The shim itself, so that its mistakes are not taken for netkit's.
    source = os.path.join(ROOT, "tests", "compile", "kqueue", "kqueue.c")
    run(CC + ["-std=c99", "-O2"] + BASIC + ["-c", source, "-o", "kqueue.o"])


# --- Neighbours -----------------------------------------------------------------

# What raylib.h and its users have: types, functions and colours of these names.
RAYLIB = r"""
#define RLAPI extern
#ifndef PI
    #define PI 3.14159265358979323846f
#endif
#define DEG2RAD (PI/180.0f)
#define CLITERAL(type) (type)
#define LIGHTGRAY CLITERAL(Color){ 200, 200, 200, 255 }
#define RED CLITERAL(Color){ 230, 41, 55, 255 }
#define BLANK CLITERAL(Color){ 0, 0, 0, 0 }
typedef struct Color { unsigned char r, g, b, a; } Color;
typedef struct Vector2 { float x, y; } Vector2;
typedef struct Rectangle { float x, y, width, height; } Rectangle;
typedef struct Image { void *data; int width, height, mipmaps, format; } Image;
typedef struct Font { int baseSize; } Font;
typedef struct Matrix { float m0; } Matrix;
typedef struct Wave { void *data; } Wave;
typedef struct Sound { void *data; } Sound;
typedef struct Ray { float x; } Ray;
typedef struct Camera { float x; } Camera;
typedef enum { LOG_ALL = 0, LOG_TRACE, LOG_DEBUG, LOG_INFO, LOG_ERROR, LOG_NONE } TraceLogLevel;
typedef enum { KEY_NULL = 0, KEY_DELETE = 261, KEY_UP = 265 } KeyboardKey;
typedef void (*TraceLogCallback)(int level, const char *text);
RLAPI void InitWindow(int width, int height, const char *title);
RLAPI void CloseWindow(void);
RLAPI void ShowCursor(void);
RLAPI void HideCursor(void);
RLAPI double GetTime(void);
RLAPI void WaitTime(double seconds);
RLAPI void DrawText(const char *text, int x, int y, int size, Color color);
RLAPI Image LoadImage(const char *file);
RLAPI void PlaySound(Sound sound);
RLAPI unsigned char *LoadFileData(const char *file, int *size);
RLAPI void TraceLog(int level, const char *text, ...);
"""

# What windows.h and others put into every file as macros.
WINDOWS_NAMES = r"""
#define near
#define far
#define NEAR
#define FAR
#define IN
#define OUT
#define OPTIONAL
#define CONST const
#define interface struct
#define small char
#define hyper long long
#define cdecl
#define pascal
#define ERROR 0
#define NO_ERROR 0L
#define DELETE (0x00010000L)
#define TRUE 1
#define FALSE 0
#define BOOL int
#define VOID void
#define min(a, b) (((a) < (b)) ? (a) : (b))
#define max(a, b) (((a) > (b)) ? (a) : (b))
#define GetMessage GetMessageA
#define SendMessage SendMessageA
#define CreateEvent CreateEventA
#define PostMessage PostMessageA
#define GetObject GetObjectA
typedef unsigned long DWORD;
typedef unsigned char BYTE;
typedef unsigned short WORD;
typedef struct RECT { long left, top, right, bottom; } RECT;
"""

# And X11's, which are shorter still.
X11_NAMES = r"""
#define Bool int
#define Status int
#define True 1
#define False 0
#define None 0L
#define Success 0
#define Always 2
#define KeyPress 2
#define CurrentTime 0L
"""


@test("declarations beside names like raylib's, windows.h's and X11's", True)
def _():
    include = '#include "netkit.h"\n'
    for names in (RAYLIB, WINDOWS_NAMES, X11_NAMES):
        compile_text(CC, ["-std=c99"] + BASIC, names + include)
        compile_text(CC, ["-std=c99"] + BASIC, include + names)
    compiler = cxx()
    for names in (RAYLIB, WINDOWS_NAMES, X11_NAMES):
        compile_text(compiler, ["-std=c++11"] + BASIC, names + include)
        compile_text(compiler, ["-std=c++11"] + BASIC, include + names)


@test("the implementation after names like raylib's and X11's, on POSIX", True)
def _():
    feature = "#define _GNU_SOURCE\n"
    red = "Color red(void);\nColor red(void) { return RED; }\n"
    compile_text(CC, ["-std=c99"] + BASIC, feature + RAYLIB + IMPLEMENT + red)
    compile_text(CC, ["-std=c99"] + BASIC, feature + X11_NAMES + IMPLEMENT)


@test("the implementation uses no name that windows.h may have made a macro")
def _():
    # rpcndr.h: `small` is char. minwindef.h: near, far, ... The macros come after the system's
    # headers here, as they do where windows.h was included first.
    # min and max matter only before a parenthesis.
    macros = [line.split()[1] for line in WINDOWS_NAMES.splitlines() if line.startswith("#define")]
    implementation = read("netkit.h").split(BORDER)[1]
    code = re.sub(r"//[^\n]*|/\*.*?\*/|\"(?:\\\\.|[^\"\\\\\n])*\"", " ", implementation, flags=re.S)
    theirs = ("TRUE", "FALSE", "BOOL", "VOID")      # used in @sys, and meant
    used = [name for name in macros if name not in theirs and
            re.search(r"\b%s" % (name.split("(")[0] + (r"\(" if "(" in name else r"\b")), code)]
    expect(not used, "it uses %s" % " ".join(used))


@test("raylib's names beside the declarations, mingw", True)
def _():
    need(MINGW, "mingw-w64")
    compile_text(MINGW, ["-std=c99"] + BASIC, RAYLIB + '#include "netkit.h"\n')
    compile_text(MINGW, ["-std=c99"] + BASIC, '#include "netkit.h"\n' + RAYLIB)


@test("windows.h before and after", True)
def _():
    need(MINGW, "mingw-w64")
    windows = "#include <windows.h>\n"
    lean = "#define WIN32_LEAN_AND_MEAN\n" + windows
    for compiler, standard in ((MINGW, "c99"), (MINGW_CXX, "c++11")):
        # Names meet, or do not, before code is made.
        flags = ["-std=" + standard, "-fsyntax-only"] + BASIC
        compile_text(compiler, flags, windows + '#include "netkit.h"\n')
        compile_text(compiler, flags, '#include "netkit.h"\n' + windows)
        compile_text(compiler, flags, IMPLEMENT + windows)
        compile_text(compiler, flags, lean + IMPLEMENT)
        compile_text(compiler, flags, "#include <winsock2.h>\n" + windows + IMPLEMENT)
        compile_text(compiler, flags, "#define UNICODE\n#define _UNICODE\n" + IMPLEMENT + windows)


# --- What the declarations drag in ----------------------------------------------

@test("the declarations include stdbool.h, stddef.h and stdint.h and nothing else")
def _():
    declarations = read("netkit.h").split(BORDER)[0]
    named = re.findall(r"^\s*#\s*include\s+(\S+)", declarations.split("*/", 1)[1], re.M)
    expect(sorted(named) == ["<stdbool.h>", "<stddef.h>", "<stdint.h>"],
           "they include %s" % " ".join(named))
    # What the three bring with them is theirs; measured, because libraries differ.
    three = "#include <stdbool.h>\n#include <stddef.h>\n#include <stdint.h>\n"
    compilers = [CC] + ([[MINGW]] if ALL and shutil.which(MINGW) else [])
    for compiler in compilers:
        theirs = headers_of(compiler, three)
        ours = headers_of(compiler, '#include "netkit.h"\n')
        more = sorted(path for path in ours - theirs if not path.endswith("netkit.h"))
        expect(not more, "%s also reads %s" % (" ".join(compiler), " ".join(more)))


def headers_of(compiler, text):
    source = write("headers.c", text)
    rule = run(compiler + ["-std=c99", "-M", "-I" + ROOT, source]).replace("\\\n", " ")
    return set(rule.split(":", 1)[1].split()) - {source}


# --- Switches -------------------------------------------------------------------

@test("every switch of the manual, alone and with the implementation", True)
def _():
    for name in switches():
        flags = ["-std=c99", "-fsyntax-only", define(name)] + BASIC
        try:
            # A static function has to be there, so this one has no declarations alone.
            if name != "NETKIT_STATIC":
                compile_text(CC, flags, '#include "netkit.h"\n')
            compile_text(CC, flags, IMPLEMENT)
        except Failure as error:
            raise Failure("with %s: %s" % (name, error))


@test("every switch of the manual, in C++ and on Windows", True)
def _():
    for compiler, standard, package in (("g++", "c++11", "g++"), ("clang", "c99", "clang"),
                                        (MINGW, "c99", "mingw-w64")):
        need(compiler, package)
        for name in switches():
            try:
                flags = ["-std=" + standard, "-fsyntax-only", define(name)] + BASIC
                compile_text(compiler, flags, IMPLEMENT)
            except Failure as error:
                raise Failure("%s with %s: %s" % (compiler, name, error))


@test("all that can be left out, left out", True)
def _():
    flags = [define(name) for name in switches() if name.startswith("NETKIT_NO_")]
    expect(len(flags) >= 5, "there is not much to leave out: %r" % flags)
    compile_text(CC, ["-std=c99"] + flags + BASIC, '#include "netkit.h"\n')
    objects = [compile_text(CC, ["-std=c99"] + flags + BASIC, IMPLEMENT + MAIN)]
    expect(program(CC, objects) == "netkit %s\n" % version(), "it printed something else")


@test("NETKIT_NO_THREADS needs no thread library", True)
def _():
    need("nm", "binutils")
    target = compile_text(CC, ["-std=c99", "-DNETKIT_NO_THREADS"] + BASIC, IMPLEMENT)
    wanted = [name for name in symbols(["-u"], target) if "pthread" in name]
    expect(not wanted, "it still wants %s" % " ".join(wanted))


@test("NETKIT_ASSERT is used, and may be anything", True)
def _():
    text = ("#include <stdio.h>\n"
            "#define NETKIT_ASSERT(x) ((x) ? (void)0 : (void)puts(\"caught\"))\n")
    text += IMPLEMENT + MAIN
    expect(program(CC, [compile_text(CC, ["-std=c99", "-D_GNU_SOURCE"] + BASIC, text)]) ==
           "netkit %s\n" % version(), "it printed something else")
    uses = re.findall(r"\bNETKIT_ASSERT\(", read("netkit.h").split(BORDER)[1])
    expect(len(uses) >= 2, "nothing uses NETKIT_ASSERT")


# --- Symbols --------------------------------------------------------------------
def declared():
    declarations = read("netkit.h").split(BORDER)[0]
    return sorted(set(re.findall(r"^NKT_API [^(;]*?\b(nkt_\w+)\(", declarations, re.M)))


@test("only nkt_ symbols leave an object, and every declared function does")
def _():
    need("nm", "binutils")
    for compiler, standard in [(CC, "c99")] + ([([cxx()], "c++11")] if ALL else []):
        out = symbols(["-g", "--defined-only"],
                      compile_text(compiler, ["-std=" + standard], IMPLEMENT))
        expect(out == declared(), "declared and not there: %s; there and not declared: %s" % (
            sorted(set(declared()) - set(out)), sorted(set(out) - set(declared()))))


@test("NETKIT_STATIC leaves no symbol and no warning", True)
def _():
    need("nm", "binutils")
    target = compile_text(CC, ["-std=c99", "-DNETKIT_STATIC", "-O1"] + BASIC, IMPLEMENT + MAIN)
    out = symbols(["-g", "--defined-only"], target)
    expect(out == ["main"], "these leave: %s" % " ".join(out))
    expect(program(CC, [target]) == "netkit %s\n" % version(), "it printed something else")


@test("NETKIT_SHARED makes a library that exports the declared functions only", True)
def _():
    need("nm", "binutils")
    library = os.path.join(WORK, "libnetkit.so")
    flags = ["-std=c99", "-Os", "-fPIC", "-fvisibility=hidden", "-DNETKIT_SHARED"]
    compiled = compile_text(CC, flags + BASIC, IMPLEMENT)
    run(CC + ["-shared", compiled, "-o", library, "-pthread"])
    out = symbols(["-D", "-g", "--defined-only"], library)
    out = [name for name in out if name not in ("_init", "_fini", "__bss_start", "_edata", "_end")]
    expect(out == declared(), "declared and not exported: %s; exported and not declared: %s" % (
        sorted(set(declared()) - set(out)), sorted(set(out) - set(declared()))))
    user = compile_text(CC, ["-std=c99", "-DNETKIT_SHARED"] + BASIC,
                        '#include "netkit.h"\n' + MAIN, "user")
    out = program(CC, [user], ["-L" + WORK, "-lnetkit", "-Wl,-rpath," + WORK])
    expect(out == "netkit %s\n" % version(), "it printed something else")


@test("NETKIT_SHARED makes a DLL, and a program uses it", True)
def _():
    need(MINGW, "mingw-w64")
    need("wine", "wine64")
    flags = ["-std=c99", "-DNETKIT_SHARED"] + BASIC
    compiled = compile_text(MINGW, flags, IMPLEMENT)
    run([MINGW, "-shared", compiled, "-o", "netkit.dll", "-Wl,--out-implib,libnetkit.dll.a",
         "-lws2_32", "-liphlpapi"])
    user = compile_text(MINGW, flags, '#include "netkit.h"\n' + MAIN, "user")
    run([MINGW, user, "libnetkit.dll.a", "-o", "user.exe"])
    env = dict(os.environ, WINEDEBUG="-all", WINEPREFIX=os.path.join(WORK, "wine"),
               WINEDLLOVERRIDES="mscoree,mshtml=")
    try:
        # Into files: Wine's services would keep a pipe open.
        with open(os.path.join(WORK, "dll.txt"), "w+b") as out:
            subprocess.run(["wine", "wineboot", "-i"], cwd=WORK, env=env, timeout=120,
                           stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL)
            subprocess.run(["wine", os.path.join(WORK, "user.exe")], cwd=WORK, env=env, timeout=60,
                           stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.DEVNULL)
            out.seek(0)
            said = out.read().decode("utf-8", "replace").strip()
    finally:
        subprocess.run(["wineserver", "-k"], env=env, timeout=30)
    expect(said == "netkit %s" % version(), "it printed %r" % said)


# --- Editors and pairs ----------------------------------------------------------

@test("the editor hook opens the implementation", True)
def _():
    # The feature-test macro is for who compiles; editors use a GNU dialect or tell it.
    source = write("hook.c", '#include "netkit.h"\n')
    plain = run(CC + ["-std=gnu99", "-D_GNU_SOURCE", "-E", "-P", "-I" + ROOT, source])
    expect("nkti_" not in plain, "the implementation is there without being asked for")
    for hook in ("__INTELLISENSE__", "__CLANGD__"):
        flags = ["-std=gnu99", "-D_GNU_SOURCE", "-D" + hook]
        opened = run(CC + flags + ["-E", "-P", "-I" + ROOT, source])
        expect("nkti_" in opened, "%s does not open it" % hook)
        compile_text(CC, flags + BASIC, '#include "netkit.h"\n')


@test("make split gives a pair that works")
def _():
    need("make", "make")
    folder = os.path.join(WORK, "pair")
    run(["make", "-s", "-C", ROOT, "split", "BUILD=" + folder])
    split = os.path.join(folder, "split")
    with open(os.path.join(split, "netkit.h"), encoding="utf-8") as file:
        header = file.read()
    expect(BORDER not in header, "the header has the implementation in it")
    expect('AS IS' in header, "the header has no licence in it")
    flags = ["-std=c99", "-I" + split] + BASIC
    implement = os.path.join(WORK, "pair_netkit.o")
    user_source = write("pair_user.c", '#include "netkit.h"\n' + MAIN)
    user = os.path.join(WORK, "pair_user.o")
    run(CC + flags + ["-c", os.path.join(split, "netkit.c"), "-o", implement])
    run(CC + flags + ["-c", user_source, "-o", user])
    expect(program(CC, [implement, user]) == "netkit %s\n" % version(), "it printed something else")


@test("make shared builds and prints the size", True)
def _():
    need("make", "make")
    out = run(["make", "-s", "-C", ROOT, "shared", "BUILD=" + os.path.join(WORK, "so"),
               "CC=" + " ".join(CC)])
    size = int(out.split()[0])
    expect(20000 < size < 400000, "the library has %d bytes" % size)


# The program's is what the Makefile promises. The shared object's is what it was last, and a page,
# for a file grows by pages: more than is promised. Lower it with the code.
MOST = {"netkit as a shared object": 83896 + 4096, "netkit in a small program": 40960}


@test("make sizes: nothing has grown", everything=True)
def _():
    need("make", "make")
    macros = run(CC + ["-dM", "-E", "-x", "c", os.devnull])
    if "__x86_64__" not in macros or "__clang__" in macros or "__linux__" not in macros:
        raise Skip("the figures are those of gcc for x86-64 Linux")
    out = run(["make", "-s", "-C", ROOT, "sizes", "BUILD=" + os.path.join(WORK, "sizes"),
               "CC=" + " ".join(CC), "CFLAGS="])
    sizes = {what: int(size) for size, what, _ in (line.split("\t") for line in out.splitlines())}
    for what, most in MOST.items():
        expect(sizes[what] > 10000, "%s has only %d bytes" % (what, sizes[what]))
        expect(sizes[what] <= most, "%s has %d bytes, at most %d" % (what, sizes[what], most))


if __name__ == "__main__":
    sys.exit(finish())
