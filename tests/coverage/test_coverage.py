#!/usr/bin/env python3
"""How much of netkit.h the tests run, line by line and branch by branch.

    tests/coverage/test_coverage.py             builds and runs everything, then judges
    tests/coverage/test_coverage.py --report    judges what the last run left behind
    tests/coverage/test_coverage.py --list      every branch that was not taken, too

The C programs are built by gcc with --coverage in several ways, VARIANTS below, because each
compiles lines that the others leave out; what any of them ran counts. Demanded are all lines of
netkit.h and LEAST_BRANCHES of its branches. A branch is a way that a condition can go: each
operand of && and || has two. Code of other systems is not compiled here and not counted.

exceptions, beside this file, lists what cannot be reached, each with its reason:

    # why it cannot be reached
    function: text of the line
    function: *

by function and text, so that it stays true when lines move. The star stands for the whole
function. An entry that nothing needs is a failure, so that the list does not outlive its reasons.

The result is written to BUILD/coverage.txt: netkit.h with a count before every line.
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
EXCEPTIONS = os.path.join(run.ROOT, "tests", "coverage", "exceptions")
FLAGS = ("-std=c99 -O0 -g -D_GNU_SOURCE --coverage -fprofile-abs-path -fprofile-update=atomic"
         " -DSCENE_LIMIT_MS=100000 -include tests/coverage/dump.h")

VARIANTS = [
    run.Config("default", "gcc", FLAGS, suites="unit scenario data fuzz", slow=8),
    run.Config("poll", "gcc", FLAGS + " -DNETKIT_USE_POLL", suites="unit", slow=8),
    run.Config("no-simd", "gcc", FLAGS + " -DNETKIT_NO_SIMD", suites="unit", slow=8,
               match=r"/test_(stream_bounds|transport)\.c"),
    run.Config("no-threads", "gcc", FLAGS + " -DNETKIT_NO_THREADS", suites="unit", slow=8,
               unlike=r"_threads"),
    run.Config("kqueue", "gcc", FLAGS + " -DNKTI_KQUEUE_SHIM -Itests/compile/kqueue",
               suites="unit scenario", slow=8, libs="tests/compile/kqueue/kqueue.c -pthread",
               match=r"scenario/scenario|/test_(poller|refusals|watches_posix|fork_posix|udp)\.c"),
]


# --- Building and running -----------------------------------------------------

def folder_of(variant, source):
    return os.path.join(FOLDER, variant.name,
                        os.path.relpath(source, os.path.join(run.ROOT, "tests"))[:-2])


def build(variant, source):
    """Gives (program, "") or (None, the compiler's complaint)."""
    folder = folder_of(variant, source)
    sources = [source] + run.companions(source)
    target = os.path.join(folder, "program")
    command = (variant.cc + variant.flags
               + ["-I" + run.ROOT, "-I" + os.path.join(run.ROOT, "tests")]
               + sources + variant.libs + ["-o", target])
    stamp = run.stamp_of(command, sources)
    stamp_path = os.path.join(folder, "stamp")
    if os.path.exists(stamp_path):
        with open(stamp_path) as file:
            if file.read() == stamp:
                return target, ""
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    # Notes and data are named after the target.
    status, output = run.execute(command, 300)
    if status != 0:
        return None, " ".join(command) + "\n" + output
    with open(stamp_path, "w") as file:
        file.write(stamp)
    return target, ""


def run_one(variant, source):
    name = os.path.relpath(source, os.path.join(run.ROOT, "tests"))
    result = run.Result("coverage-" + variant.name, name)
    begin = time.monotonic()
    target, complaint = build(variant, source)
    if complaint:
        result.fail("does not build")
        result.output = complaint
    else:
        for old in glob.glob(os.path.join(glob.escape(os.path.dirname(target)), "*.gcda")):
            os.remove(old)
        limit_s = run.PROGRAM_LIMIT_S * variant.slow
        status, output = run.execute([target], limit_s, run.environment())
        run.read_closing(result, status, output, limit_s)
    result.seconds = time.monotonic() - begin
    return result


def run_all(words):
    jobs = [(variant, source) for variant in VARIANTS
            for source in run.programs_of(variant, words or [""])]
    results = []
    with concurrent.futures.ThreadPoolExecutor(run.JOBS) as pool:
        futures = [pool.submit(run_one, *job) for job in jobs]
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

    def missed(self):
        """(branches, those not taken) of the variant that did best."""
        best = (0, 0)
        if self.branches:
            best = min(((len(sums), sums.count(0)) for sums in self.branches.values()),
                       key=lambda pair: (pair[1], -pair[0]))
        return best


def collect():
    """Line number -> Line, of netkit.h, from all that the programs have left."""
    lines = {}
    header = os.path.join(run.ROOT, "netkit.h")
    found = sorted(glob.glob(os.path.join(glob.escape(FOLDER), "*", "*", "*", "*.gcda")))
    for data in found:
        out = subprocess.run(["gcov", "--json-format", "--stdout", "--branch-probabilities", data],
                             cwd=os.path.dirname(data), stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, check=True).stdout
        if out[:2] == b"\x1f\x8b":
            out = gzip.decompress(out)
        for file in json.loads(out.decode())["files"]:
            if os.path.realpath(os.path.join(os.path.dirname(data), file["file"])) != header:
                continue
            for row in file["lines"]:
                if not row.get("function_name"):
                    continue
                line = lines.setdefault(row["line_number"], Line(row["function_name"]))
                line.add(row["count"], [branch["count"] for branch in row["branches"]])
    return lines


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


def judge(everything):
    """Prints what is missing and the sums. Gives the complaints."""
    with open(os.path.join(run.ROOT, "netkit.h"), encoding="utf-8") as file:
        source = file.read().split("\n")
    lines, exceptions, used = collect(), read_exceptions(), set()
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
    with open(os.path.join(run.BUILD, "coverage.txt"), "w", encoding="utf-8") as file:
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
    options = parser.parse_args()
    if not shutil.which("gcc") or not shutil.which("gcov"):
        print("there is no gcc with its gcov; install gcc")
        print("0 passed, 0 failed, 1 skipped")
        return 0
    results = [] if options.report else run_all(options.words)
    complaints = judge(options.list)
    for complaint in complaints:
        print("FAILED " + complaint)
    failed = sum(1 for result in results if result.failed) + (1 if complaints else 0)
    print("%d passed, %d failed" % (len(results) + 1 - failed, failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
