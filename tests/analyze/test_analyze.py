#!/usr/bin/env python3
"""What four programs find in netkit.h and the examples without running them.

    tests/analyze/test_analyze.py [TOOL ...]    gcc-analyzer, clang-analyzer, clang-tidy, cppcheck

Each must be silent, but for what EXCUSED lists: a tool's name for the finding, the function it is
in ("*" for any), and why it is none. An entry that excuses nothing is a failure. What clang-tidy
does not look for at all, and why, stands in .clang-tidy.
"""

import glob
import os
import re
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(os.path.abspath(os.path.join(ROOT, os.environ.get("BUILD") or "build")),
                     "analyze")

EXCUSED = {
    "gcc-analyzer": [
        ("-Wanalyzer-malloc-leak", "*",
         "keeps no account of what nkti_resize gives and takes: of `<unknown>`, in any function"),
    ],
    "clang-analyzer": [],
    "clang-tidy": [],
    "cppcheck": [
        ("duplicateCondition", "*",
         "overlooks that the first condition's statement sets what the second one asks, and knows"
         " no plain rows of conditions"),
        ("redundantContinue", "*", "an empty loop says so with a word"),
        ("constParameter", "*", "a handle is not const because this function does not change it"),
        ("duplicateConditionalAssign", "*",
         "reading is cheaper than dirtying what nobody needs"),
        ("variableScope", "*", "declarations stand where they are read best"),
        ("constVariable", "*", "small rows of numbers need no const"),
        ("unreadVariable", "*",
         "set to something before a loop whose condition the compilers cannot see through"),
    ],
}


def examples():
    """(file, flags) of those whose libraries are here."""
    for path in sorted(glob.glob(os.path.join(ROOT, "examples", "*.c"))):
        with open(path, encoding="utf-8") as file:
            text = file.read()
        library = re.search(r"^//     flags=.*--libs (\S+?)\)", text, re.M)
        flags = []
        if library:
            done = subprocess.run(["pkg-config", "--cflags", library.group(1)],
                                  stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            if done.returncode != 0:
                continue
            flags = done.stdout.decode().split()
        yield path, flags


def whole():
    os.makedirs(BUILD, exist_ok=True)
    path = os.path.join(BUILD, "netkit.c")
    with open(path, "w") as file:
        file.write('#define NETKIT_IMPLEMENTATION\n#include "netkit.h"\n')
    return path


def commands(tool):
    """The commands of a tool."""
    base = ["-std=c99", "-I" + ROOT]
    if tool == "gcc-analyzer":
        yield ["gcc"] + base + ["-O2", "-fanalyzer", "-fdiagnostics-path-format=none",
                                "-fdiagnostics-plain-output", "-c", whole(), "-o", os.devnull]
    if tool == "clang-analyzer":
        yield ["clang", "--analyze", "--analyzer-output", "text"] + base + [
            "-Xclang", "-analyzer-opt-analyze-headers", whole()]
        # The library is looked at above; an example's own file here.
        for path, flags in examples():
            yield ["clang", "--analyze", "--analyzer-output", "text"] + base + flags + [path]
    if tool == "clang-tidy":
        yield ["clang-tidy", "--quiet", whole(), "--"] + base
        for path, flags in examples():
            yield ["clang-tidy", "--quiet", "--header-filter=^$", path, "--"] + base + flags
    if tool == "cppcheck":
        yield ["cppcheck", "-q", "--std=c99", "--enable=warning,style,performance,portability",
               "--template=gcc", "-DNETKIT_IMPLEMENTATION", "-D__linux__", "-D__x86_64__",
               "-D__GNUC__=12", "-D_GNU_SOURCE", "-DCLOCK_MONOTONIC=1",
               "-DS_ISSOCK(m)=(((m)&0170000)==0140000)", "-I" + ROOT, whole()]


def function_at(lines, number):
    for at in range(min(number, len(lines)) - 1, -1, -1):
        found = re.match(r"[A-Za-z][^;=]*?\b(\w+)\(", lines[at])
        if found:
            return found.group(1)
    return ""


def findings(output):
    """(id, function, text) of every finding about a file of ours."""
    sources = {}
    for line in output.split("\n"):
        found = re.match(r"(\S+?):(\d+):\d+: (?:warning|error): (.*) \[(\S+?)\]$", line)
        if not found or not os.path.abspath(found.group(1)).startswith(ROOT + os.sep):
            continue
        path = found.group(1)
        if path not in sources:
            with open(path, encoding="utf-8") as file:
                sources[path] = file.read().split("\n")
        yield (found.group(4), function_at(sources[path], int(found.group(2))), line)


def check(tool):
    """Gives the complaints of one tool."""
    used, complaints = set(), []
    for command in commands(tool):
        done = subprocess.run(command, cwd=BUILD, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT)
        output = done.stdout.decode("utf-8", "replace")
        if " error: " in output or (done.returncode != 0 and not output):
            complaints.append("%s\n%s" % (" ".join(command), output[-2000:]))
        for name, function, text in findings(output):
            excuses = [entry for entry in EXCUSED[tool]
                       if entry[0] == name and entry[1] in ("*", function)]
            used.update(excuses)
            if not excuses:
                complaints.append("%s (in %s)" % (text, function))
    complaints += ["%s in %s needs no excuse any more" % entry[:2]
                   for entry in EXCUSED[tool] if entry not in used]
    return sorted(set(complaints))


def main():
    tools = sys.argv[1:] or list(EXCUSED)
    passed = failed = skipped = 0
    whole()
    for tool in tools:
        program = {"gcc-analyzer": "gcc", "clang-analyzer": "clang"}.get(tool, tool)
        if not shutil.which(program):
            print("skipped %s: there is no %s" % (tool, program))
            skipped += 1
            continue
        complaints = check(tool)
        for complaint in complaints:
            print("FAILED %s: %s" % (tool, complaint))
        if not complaints:
            print("ok     %s" % tool)
        passed += not complaints
        failed += bool(complaints)
    print("%d passed, %d failed%s" % (passed, failed, ", %d skipped" % skipped if skipped else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
