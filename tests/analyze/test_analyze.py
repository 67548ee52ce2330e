#!/usr/bin/env python3
"""What four programs find in netkit.h and the examples without running them.

    tests/analyze/test_analyze.py [TOOL ...]    gcc-analyzer, clang-analyzer, clang-tidy, cppcheck

Each must be silent, but for what EXCUSED lists: a tool's name for the finding, the function it is
in, and why it is none. An entry that excuses nothing is a failure, but for those with True at their
end, which come and go with what else stands in the file; so is a tool that could not read a file.
What clang-tidy does not look for at all, and why, stands in .clang-tidy.

The implementation is looked at by itself, and an example together with the declarations only: one
after the other in minutes, where both together, two dozen times, would be an hour.
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
        ("-Wanalyzer-double-free", "nkti_resize",
         "gcc takes the NULL that stands for no block yet for a block that realloc has freed",
         True),
        ("-Wanalyzer-malloc-leak", "nkti_wait_begin",
         "the waiter stays in *place until nkti_wait_end gives it back; gcc forgets that place"
         " when the environment is unlocked"),
        ("-Wanalyzer-malloc-leak", "nkti_input_move",
         "gcc thinks that a block which was just made can be the one the connection has already"),
        ("-Wanalyzer-malloc-leak", "is_due",
         "what is to be sent hangs on its guest until deliver; gcc loses sight of the guest"),
        ("-Wanalyzer-malloc-leak", "nkti_udp_pair_send",
         "the packet hangs in its queue, written there by the pointer to where the next one goes",
         True),
        ("-Wanalyzer-malloc-leak", "nkti_path_end",
         "the item hangs in the path's heap, whose array gcc loses sight of", True),
        ("-Wanalyzer-malloc-leak", "nkti_path_stream_hold",
         "the item hangs in the path's heap, whose array gcc loses sight of", True),
    ],
    "clang-analyzer": [
        ("core.UndefinedBinaryOperatorResult", "nkti_udp_from_name",
         "recvfrom has written as much of the name as the length says that it gave"),
        ("core.UndefinedBinaryOperatorResult", "nkti_service_known",
         "clang takes the first NUL of a text for its end; here the names stand one behind the"
         " other, and the last is followed by two"),
        ("core.UndefinedBinaryOperatorResult", "nkti_udp_iface_find",
         "what nkt_ip_parse refuses is not looked at; clang does not follow the error through"
         " nkti_cursor_result"),
    ],
    "clang-tidy": [],
    "cppcheck": [
        ("clarifyCondition", "nkti_ip4_read_right",
         "conditions joined by & and | are computed without a branch each, every one of them in"
         " parentheses"),
        ("duplicateCondition", "nkti_os_thread_start",
         "the second one stands behind #endif, for the other branch of the #if as well"),
        ("duplicateConditionalAssign", "nkti_read_done",
         "reading it is cheaper than dirtying its line of the cache for every line that is read"),
        ("redundantContinue", "nkti_os_wake_drain",
         "it is the body of a loop whose condition does the work: an empty one would look like a"
         " slip"),
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


def prepare():
    """Makes the folder "all" with the implementation's file, and "declared" with a header that
    ends where the implementation begins."""
    with open(os.path.join(ROOT, "netkit.h"), encoding="utf-8") as file:
        declared = file.read().split("\n//#### IMPLEMENTATION ####")[0] + "\n"
    for name, text in [("all/netkit.c", '#define NETKIT_IMPLEMENTATION\n#include "netkit.h"\n'),
                       ("declared/netkit.h", declared)]:
        path = os.path.join(BUILD, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)


def commands(tool):
    """The commands of a tool, the implementation's first."""
    whole = os.path.join(BUILD, "all", "netkit.c")
    files = [(whole, ["-std=c99", "-I" + ROOT])]
    files += [(path, ["-std=c99", "-I" + os.path.join(BUILD, "declared")] + flags)
              for path, flags in examples()]
    for path, flags in files:
        if tool == "gcc-analyzer":
            yield ["gcc"] + flags + ["-O2", "-fanalyzer", "-fdiagnostics-path-format=none",
                                     "-fdiagnostics-plain-output", "-c", path, "-o", os.devnull]
        if tool == "clang-analyzer":
            # A bound on the states that are looked at from each function: by default it is
            # 225,000, and the whole takes many times as long.
            yield ["clang", "--analyze", "--analyzer-output", "text", "-Xclang",
                   "-analyzer-opt-analyze-headers", "-Xclang", "-analyzer-config", "-Xclang",
                   "max-nodes=20000"] + flags + [path]
        if tool == "clang-tidy":
            yield ["clang-tidy", "--quiet", path, "--"] + flags
        if tool == "cppcheck":
            # It reads no headers of the system's, and is told what matters of them.
            yield ["cppcheck", "-q", "--std=c99", "--template=gcc",
                   "--enable=warning,style,performance,portability", "-D__linux__",
                   "-D__x86_64__", "-D__GNUC__=12", "-D_GNU_SOURCE", "-DCLOCK_MONOTONIC=1",
                   "-DS_ISSOCK(m)=(((m)&0170000)==0140000)"] + (
                       ["-DNETKIT_IMPLEMENTATION"] if path == whole else []) + flags[1:] + [path]


def function_at(lines, number):
    for at in range(min(number, len(lines)) - 1, -1, -1):
        found = re.match(r"[A-Za-z][^;=]*?\b(\w+)\(", lines[at])
        if found:
            return found.group(1)
    return ""


def findings(output):
    """(id, function, text) of every finding about a file of ours."""
    sources, told = {}, ""
    for line in output.split("\n"):
        # gcc's word for it, which is better: it tells into what a function was inlined.
        context = re.search(r"(?:In function|inlined from) '(\w+)", line)
        if context:
            told = context.group(1)
        found = re.match(r"(\S+?):(\d+):\d+: (?:warning|error): (.*) \[(\S+?)\]$", line)
        if not found or not os.path.abspath(found.group(1)).startswith(ROOT + os.sep):
            continue
        path = found.group(1)
        if path not in sources:
            with open(path, encoding="utf-8") as file:
                sources[path] = file.read().split("\n")
        yield (found.group(4), told or function_at(sources[path], int(found.group(2))), line)


def check(tool):
    """Gives the complaints of one tool."""
    used, complaints = set(), []
    for command in commands(tool):
        done = subprocess.run(command, cwd=BUILD, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, env=dict(os.environ, LC_ALL="C"))
        output = done.stdout.decode("utf-8", "replace")
        if " error: " in output or done.returncode != 0:
            complaints.append("%s\n%s" % (" ".join(command), output[-2000:]))
        for name, function, text in findings(output):
            excuses = [entry for entry in EXCUSED[tool] if entry[:2] == (name, function)]
            used.update(excuses)
            if not excuses:
                complaints.append("%s (in %s)" % (text, function))
    complaints += ["%s in %s needs no excuse any more" % entry[:2]
                   for entry in EXCUSED[tool] if entry not in used and entry[3:] != (True,)]
    return sorted(set(complaints))


def main():
    tools = sys.argv[1:] or list(EXCUSED)
    passed = failed = skipped = 0
    prepare()
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
