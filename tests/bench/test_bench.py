#!/usr/bin/env python3
"""That `make bench` works: every row of its table is there and has a figure.

What the figures are is not looked at: a machine that runs tests is busy.
"""

import csv
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import bench
from nkt_programs import Failure, Skip, Suite, equal, need

SIZES = ("netkit as a shared object", "netkit with datagrams", "netkit in a small program",
         "raw calls in the same program")


def table():
    """build/bench.tsv after a quick run, by (workload, implementation, unit)."""
    done = subprocess.run([sys.executable, bench.__file__, "--quick"], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        raise Failure(f"bench.py --quick ended with {done.returncode}:\n{done.stdout}")
    with open(os.path.join(bench.BUILD, "bench.tsv"), encoding="ascii") as file:
        rows = list(csv.reader(file, delimiter="\t"))
    equal(rows[0], ["workload", "implementation", "median", "min", "max", "unit",
                    "ratio to raw"], "the heading")
    return {(row[0], row[1], row[5]): row for row in rows[1:]}


def check_row(rows, workload, row, unit):
    found = rows.get((workload.name, row, unit))
    if found is None:
        refused = rows.get((workload.name, row, ""))
        if refused is not None:
            raise Skip(f"{row}: {refused[2]}")
        raise Failure(f"no row: {workload.name}, {row}, {unit}")
    median, low, high = (float(text) for text in found[2:5])
    if not 0 < low <= median <= high:
        raise Failure(f"{median} is not from {low} to {high}")
    if "raw" in workload.who:
        ratio = float(found[6])
        if row == "raw":
            equal(ratio, 1.0, "raw's ratio to itself")
        elif ratio <= 0:
            raise Failure(f"the ratio is {ratio}")


def check_calls(mode, most):
    """The system calls of 1,000 exchanges, both sides, and of nothing else."""
    strace = need("strace", "strace")
    log = os.path.join(bench.BUILD, "bench.strace")
    done = subprocess.run([strace, "-f", "-c", "-o", log, os.path.join(bench.BUILD, "bench_netkit"),
                           "echo", "1", "1000", mode], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False)
    if "not permitted" in done.stdout:
        raise Skip("tracing is not permitted here")
    equal(done.returncode, 0, done.stdout)
    calls = {}
    with open(log, encoding="ascii") as file:
        for words in map(str.split, file):
            if len(words) >= 5 and words[3].isdigit():
                calls[words[-1]] = int(words[3])
    calls.pop("total")
    asked = {name: calls.pop(name, 0) for name in most}
    for name, count in most.items():
        if not 2000 * (count > 0) <= asked[name] <= 2000 * count + 40:
            raise Failure(f"{name}: {asked[name]} calls, not {count} for each side of an exchange")
    # What starting and ending the two processes takes.
    if sum(calls.values()) > 300:
        raise Failure(f"more calls than there should be: {calls}")


def check_size(rows, what):
    if not any(row[0] == what and int(row[2]) > 1000 for row in rows.values()):
        raise Failure(f"no size of {what}")


def main():
    suite = Suite("bench")
    rows = {}
    suite.run("bench.py --quick", lambda: rows.update(table()))
    for workload in bench.WORKLOADS:
        for row, _, _ in workload.rows(True):
            units = [workload.unit]
            if workload.unit != "bytes":
                units.append(workload.unit + " of CPU")
            for unit in units:
                suite.run(f"{workload.name}, {row}, {unit}", check_row, rows, workload, row, unit)
    suite.run("system calls, blocking", check_calls, "block", {"sendto": 1, "recvfrom": 1})
    suite.run("system calls, poller", check_calls, "poll",
              {"sendto": 1, "recvfrom": 1, "epoll_wait": 1})
    for what in SIZES:
        suite.run(what, check_size, rows, what)
    return suite.finish()


if __name__ == "__main__":
    sys.exit(main())
