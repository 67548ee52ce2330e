#!/usr/bin/env python3
"""How much of netkit.h the tests run, line by line and branch by branch.

    tests/coverage/test_coverage.py             builds and runs everything, then judges
    tests/coverage/test_coverage.py --report    judges what the last run left behind
    tests/coverage/test_coverage.py --list      prints the branches not taken, too
    tests/coverage/test_coverage.py --worth     what each program reaches that no other does

The C programs are built by gcc with --coverage, netkit.h alone counting, in several ways, VARIANTS
below, because each compiles lines that the others leave out; what any of them ran counts. Demanded
are all lines of netkit.h and LEAST_BRANCHES of its branches. A branch is a way that a condition can
go: each operand of && and || has two. Code of other systems is not compiled here and not counted.

exceptions, beside this file, lists what cannot be reached, each with its reason:

    # why it cannot be reached
    function: text of the line
    function: *

by function and text, so that it stays true when lines move. The star stands for the whole
function. An entry that nothing needs is a failure, so that the list does not outlive its reasons.
Its end says of what kinds the branches are that nothing takes.

Left behind are BUILD/coverage/lines.txt, netkit.h with a count before every line, and
BUILD/coverage/branches.txt, every line with a branch that was not taken.
"""

import argparse
import collections
import concurrent.futures
import glob
import gzip
import json
import os
import shutil
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import run  # noqa: E402

LEAST_BRANCHES = 95.0
FOLDER = os.path.join(run.BUILD, "coverage")
HEADER = os.path.join(os.path.realpath(run.ROOT), "netkit.h")
EXCEPTIONS = os.path.join(run.ROOT, "tests", "coverage", "exceptions")
# Its counts would be wrong where threads meet, were they not atomic. What is not netkit.h would
# only be slower for being counted.
FLAGS = ("-std=c99 -O0 -D_GNU_SOURCE --coverage -fprofile-abs-path -fprofile-update=atomic"
         " -fprofile-filter-files=netkit[.]h$"
         " -DSCENE_LIMIT_MS=100000 -include tests/coverage/dump.h")
JOBS = 2

# Left out is what --worth has shown to reach nothing of its own; a new program is in. Each of the
# others is for a part of netkit.h that "default" does not compile.
VARIANTS = [
    run.Config("default", "gcc", FLAGS, suites="unit scenario fuzz", slow=8,
               unlike=r"/fuzz_(addr|host|ip|net|sockaddr)\.c|/test_impair_(bulk|seeds)\.c"),
    run.Config("no-simd", "gcc", FLAGS + " -DNETKIT_NO_SIMD", suites="unit", slow=8,
               match=r"/test_stream_bounds\.c"),
    run.Config("no-threads", "gcc", FLAGS + " -DNETKIT_NO_THREADS", suites="unit", slow=8,
               match=r"/test_(env|impair_edges)\.c"),
    run.Config("kqueue", "gcc", FLAGS + " -DNKTI_KQUEUE_SHIM -Itests/compile/kqueue",
               suites="unit", slow=8, libs="tests/compile/kqueue/kqueue.c -pthread",
               match=r"/test_(poller|fork_posix)\.c"),
]


# --- Building and running -----------------------------------------------------

def header_stamp():
    return run.stamp_of([], [])


def folder_of(variant, source):
    return os.path.join(FOLDER, variant.name,
                        os.path.relpath(source, os.path.join(run.ROOT, "tests"))[:-2])


def compile_to(folder, target, command, sources):
    """Compiles into a folder of its own, where something has changed. Gives "" or the compiler's
    complaint."""
    # Notes and data are named after the target, so it cannot be made beside and moved.
    stamp = run.stamp_of(command, sources)
    if run.is_fresh(target, stamp):
        return ""
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    status, output = run.execute(command, 300)
    if status != 0:
        return " ".join(command) + "\n" + output
    with open(target + ".stamp", "w", encoding="ascii") as file:
        file.write(stamp)
    return ""


def implementation(variant):
    """As run.implementation, and built alike: gives a complaint or "", the object, a folder."""
    folder = os.path.join(FOLDER, variant.name, "netkit")
    target = os.path.join(folder, "object", "netkit.o")
    with run.building["coverage-" + variant.name]:
        source = run.split(folder, [run.WINDOW])
        command = variant.cc + variant.flags + ["-c", source, "-o", target]
        return compile_to(os.path.dirname(target), target, command, [source]), target, folder


def build(variant, source):
    """Gives (program, "") or (None, the compiler's complaint)."""
    folder = folder_of(variant, source)
    target = os.path.join(folder, "program")
    sources = [source] + run.companions(source)
    own = [os.path.join(run.ROOT, word) for word in variant.libs if word.endswith(".c")]
    paths = ["-I" + run.ROOT, "-I" + os.path.join(run.ROOT, "tests")]
    objects = []
    if not run.is_inside(sources):
        complaint, built, declared = implementation(variant)
        if complaint:
            return None, complaint
        paths.insert(0, "-I" + declared)
        objects = [built]
    command = (variant.cc + variant.flags + paths + sources + objects + variant.libs
               + ["-o", target])
    complaint = compile_to(folder, target, command, sources + own)
    notes = os.path.join(folder, "netkit.gcno")
    if objects and not complaint and not os.path.lexists(notes):
        os.symlink(objects[0][:-2] + ".gcno", notes)
    return (None, complaint) if complaint else (target, "")


def run_one(variant, source):
    name = os.path.relpath(source, os.path.join(run.ROOT, "tests"))
    result = run.Result("coverage-" + variant.name, name)
    begin, stamp = time.monotonic(), header_stamp()
    target, complaint = build(variant, source)
    if complaint:
        result.fail("does not build")
        result.output = complaint
    else:
        folder = os.path.dirname(target)
        for old in glob.glob(os.path.join(glob.escape(folder), "*.gcda")):
            os.remove(old)
        # The data of each program by itself, also of what it shares with others.
        env = dict(run.environment(), GCOV_PREFIX=folder, GCOV_PREFIX_STRIP="99")
        env.pop("NKT_TEST_ALL", None)       # the long way of a program reaches nothing more
        limit_s = run.PROGRAM_LIMIT_S * variant.slow
        status, output = run.execute([target], limit_s, env)
        run.read_closing(result, status, output, limit_s)
        with open(os.path.join(folder, "header"), "w", encoding="ascii") as file:
            file.write(stamp)
    result.seconds = time.monotonic() - begin
    return result


def jobs_of(words):
    return [(variant, source) for variant in VARIANTS
            for source in run.programs_of(variant, words or [""])]


def run_all(words):
    results = []
    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        futures = [pool.submit(run_one, *job) for job in jobs_of(words)]
        for future in concurrent.futures.as_completed(futures):
            results.append(future.result())
            run.say(results[-1])
    return results


# --- Counting -----------------------------------------------------------------

class Line:
    def __init__(self, function):
        self.function = function
        self.count = 0
        self.branches = {}          # how many there are -> how often each was taken

    def add(self, count, branches):
        self.count += count
        if not branches:
            return
        # Variants that compile a line differently have different branches.
        sums = self.branches.setdefault(len(branches), [0] * len(branches))
        for at, taken in enumerate(branches):
            sums[at] += taken

    def best(self):
        """How many branches the variant has that did best."""
        if not self.branches:
            return 0
        return min(self.branches, key=lambda many: (self.branches[many].count(0), -many))

    def missed(self):
        """(branches, those not taken) of the variant that did best."""
        many = self.best()
        return many, self.branches[many].count(0) if many else 0


def counts_of(variant, source):
    """(number, function, count, branches) of the lines of netkit.h that one program has left."""
    found = []
    folder = folder_of(variant, source)
    stamp = os.path.join(folder, "header")
    if not os.path.exists(stamp):
        return found
    with open(stamp, encoding="ascii") as file:
        if file.read() != header_stamp():
            return found
    for data in sorted(glob.glob(os.path.join(glob.escape(folder), "*.gcda"))):
        out = subprocess.run(["gcov", "--json-format", "--stdout", "--branch-probabilities", data],
                             cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             check=True).stdout
        if out[:2] == b"\x1f\x8b":
            out = gzip.decompress(out)
        for file in json.loads(out.decode())["files"]:
            if os.path.realpath(os.path.join(folder, file["file"])) == HEADER:
                found += [(row["line_number"], row["function_name"], row["count"],
                           [branch["count"] for branch in row["branches"]])
                          for row in file["lines"] if row.get("function_name")]
    return found


def collect():
    """What each program of this netkit.h has left: "variant: program" -> its counts."""
    jobs = jobs_of([])
    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        counts = list(pool.map(lambda job: counts_of(*job), jobs))
    return {variant.name + ": " + os.path.relpath(source, os.path.join(run.ROOT, "tests")): count
            for (variant, source), count in zip(jobs, counts)}


def add_up(programs):
    """Line number -> Line."""
    lines = {}
    for counts in programs.values():
        for number, function, count, branches in counts:
            lines.setdefault(number, Line(function)).add(count, branches)
    return lines


def reached(lines, counts):
    """The lines that were run, (line,), and the branches that were taken, (line, which)."""
    found = set()
    for number, _, count, branches in counts:
        if count:
            found.add((number,))
        if len(branches) == lines[number].best():
            found.update((number, at) for at, taken in enumerate(branches) if taken)
    return found


def print_worth(programs):
    """What would be missing without each program; what nothing would miss comes first."""
    lines = add_up(programs)
    sets = {name: reached(lines, counts) for name, counts in programs.items()}
    times = collections.Counter(one for each in sets.values() for one in each)
    print("%7s %9s" % ("lines", "branches"))
    worth = {name: [one for one in each if times[one] == 1] for name, each in sets.items()}
    for name in sorted(worth, key=lambda name: len(worth[name])):
        run_lines = sum(1 for one in worth[name] if len(one) == 1)
        print("%7d %9d  %s" % (run_lines, len(worth[name]) - run_lines, name))


def read_exceptions():
    """(function, text) -> reason."""
    entries = {}
    reason, after_entry = [], False
    if not os.path.exists(EXCEPTIONS):
        return entries
    with open(EXCEPTIONS, encoding="utf-8") as file:
        for number, text in enumerate(file, 1):
            text = text.strip()
            if text.startswith("#"):
                reason = ([] if after_entry else reason) + [text[1:].strip()]
                after_entry = False
            elif text:
                function, _, code = text.partition(": ")
                if not code or not reason:
                    sys.exit("exceptions:%d: not a function, a text and a reason" % number)
                entries[(function, code)] = " ".join(reason)
                after_entry = True
            else:
                reason, after_entry = [], False
    return entries


def judge(lines, everything):
    """Prints what is missing and the sums. Gives the complaints."""
    with open(HEADER, encoding="utf-8") as file:
        source = file.read().split("\n")
    exceptions, used = read_exceptions(), set()
    counted = collections.Counter()
    complaints, unreached, half = [], [], []
    for number in sorted(lines):
        line, text = lines[number], source[number - 1].strip()
        total, missed = line.missed()
        # An assertion that fails ends the program.
        if "NETKIT_ASSERT" in text:
            total = missed = 0
        keys = [key for key in ((line.function, text), (line.function, "*")) if key in exceptions]
        if keys and (line.count == 0 or missed > 0):
            used.update(keys)
            counted["excepted lines"] += line.count == 0
            counted["excepted branches"] += missed
            counted["lines"] += line.count > 0
            counted["run"] += line.count > 0
            counted["branches"] += total - missed
            counted["taken"] += total - missed
            continue
        counted["lines"] += 1
        counted["run"] += line.count > 0
        counted["branches"] += total
        counted["taken"] += total - missed
        where = "netkit.h:%d: %s: %s" % (number, line.function, text)
        if line.count == 0:
            unreached.append(where)
        elif missed:
            half.append("%s  (%d of %d)" % (where, total - missed, total))
    write_listing(source, lines)
    with open(os.path.join(FOLDER, "branches.txt"), "w", encoding="utf-8") as file:
        file.writelines(where + "\n" for where in half)
    if everything:
        print("Branches that were not taken:")
        print("\n".join(half))
    for where in unreached:
        complaints.append("never run: " + where)
    for key in sorted(set(exceptions) - used):
        complaints.append("exceptions: %s: %s needs no exception" % key)
    if not counted["lines"]:
        return ["nothing was counted"]
    share = 100.0 * counted["taken"] / max(1, counted["branches"])
    print("lines     %5d of %5d run, %.2f %%; %d excepted" % (
        counted["run"], counted["lines"], 100.0 * counted["run"] / counted["lines"],
        counted["excepted lines"]))
    print("branches  %5d of %5d taken, %.2f %%; %d excepted" % (
        counted["taken"], counted["branches"], share, counted["excepted branches"]))
    if share < LEAST_BRANCHES:
        complaints.append("%.2f %% of the branches were taken, and not %g" % (share,
                                                                           LEAST_BRANCHES))
        complaints += ["not all ways: " + where for where in half]
    return complaints


def write_listing(source, lines):
    with open(os.path.join(FOLDER, "lines.txt"), "w", encoding="utf-8") as file:
        for number, text in enumerate(source, 1):
            mark = ""
            if number in lines:
                total, missed = lines[number].missed()
                mark = "%d" % lines[number].count if lines[number].count else "#####"
                mark += " %d/%d" % (total - missed, total) if missed else ""
            file.write("%18s %5d: %s\n" % (mark, number, text))


def main():
    parser = argparse.ArgumentParser(description="How much of netkit.h the tests run.")
    parser.add_argument("words", nargs="*", help="run only what has this in its name")
    parser.add_argument("--report", action="store_true", help="run nothing")
    parser.add_argument("--list", action="store_true", help="list the branches not taken")
    parser.add_argument("--worth", action="store_true", help="list what each program adds")
    options = parser.parse_args()
    if not shutil.which("gcc") or not shutil.which("gcov"):
        print("there is no gcc with its gcov; install gcc")
        print("0 passed, 0 failed, 1 skipped")
        return 0
    results = [] if options.report or options.worth else run_all(options.words)
    os.makedirs(FOLDER, exist_ok=True)
    programs = collect()
    if options.worth:
        print_worth(programs)
    complaints = ["nothing of this netkit.h from " + name
                  for name, counts in sorted(programs.items()) if not counts]
    complaints += judge(add_up(programs), options.list)
    for complaint in complaints:
        print("FAILED " + complaint)
    failed = sum(1 for result in results if result.failed) + (1 if complaints else 0)
    print("%d passed, %d failed" % (len(results) + 1 - failed, failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
