#!/usr/bin/env python3
"""Lets clang's libFuzzer at every target of this folder.

    tests/fuzz/test_fuzz.py [SECONDS [TARGET ...]]     30 seconds each

Two at a time, under the address and undefined-behaviour sanitizers, all with one implementation
of netkit. It begins with the corpus,
corpus/TARGET/, with what earlier runs have found, BUILD/fuzz/corpus/TARGET/, and where
NKT_TEST_DATA names a folder of third-party vectors with the texts in those. An input that fails
is kept in BUILD/fuzz/crashes/; run it again with

    BUILD/fuzz/TARGET BUILD/fuzz/crashes/FILE
"""

import concurrent.futures
import fcntl
import glob
import json
import os
import re
import shutil
import subprocess
import sys
import threading

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import run                                                              # noqa: E402

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
HERE = os.path.join(ROOT, "tests", "fuzz")
BUILD = os.path.join(os.path.abspath(os.path.join(ROOT, os.environ.get("BUILD") or "build")),
                     "fuzz")
FLAGS = ("-std=c99 -O2 -g -DFUZZ_LIBFUZZER -fsanitize=fuzzer,address,undefined"
         " -fno-sanitize-recover=all").split()
JOBS = 2
LONGEST = 1024
LOCK = threading.Lock()

# Which columns of which vectors are texts for which targets: (file, column, kind of text).
SEEDS = {
    "ip": [("ip_literals/ip_literals.tsv", 0, "json"), ("ip_literals/ip_zone.tsv", 0, "json"),
           ("ip_literals/ip_bytes_nonutf8.tsv", 0, "hex"), ("rfc5952/rfc5952.tsv", 1, "plain")],
    "addr": [("sockaddr/sockaddr.tsv", 0, "json")],
    "net": [("ip_cidr/cidr.tsv", 0, "json")],
    "target": [("sockaddr/sockaddr.tsv", 0, "json"), ("whatwg_host/whatwg_host.tsv", 1, "json")],
    "host": [("idna/toascii.tsv", 0, "json")],
    "read": [("linereader/lines.tsv", 0, "json")],
}
# What stands before the text in an input of these targets.
HEADS = {"target": b"\0", "read": b"\0\xff\4\2\7\13\3"}


def targets():
    return sorted(os.path.basename(path)[5:-2] for path in glob.glob(HERE + "/fuzz_*.c"))


def text_of(cell, kind):
    if kind == "hex":
        return bytes.fromhex(cell) if re.fullmatch(r"(?:[0-9a-f]{2})*", cell) else b""
    if kind == "json":
        try:
            cell = json.loads(cell)
        except ValueError:
            return b""
    return cell.encode("utf-8", "surrogatepass") if isinstance(cell, str) else b""


def extra_seeds(target):
    """Writes the vectors' texts as inputs. Gives the folder, or None if there are none."""
    data = os.environ.get("NKT_TEST_DATA")
    texts = set()
    for name, column, kind in SEEDS.get(target, []) if data else []:
        path = os.path.join(data, name)
        if not os.path.exists(path):
            continue
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                cells = line.rstrip("\n").split("\t")
                if not line.startswith("#") and column < len(cells):
                    texts.add(text_of(cells[column], kind))
    folder = os.path.join(BUILD, "seeds", target)
    shutil.rmtree(folder, ignore_errors=True)
    if not texts:
        return None
    os.makedirs(folder)
    for number, text in enumerate(sorted(texts)):
        with open(os.path.join(folder, "%05d" % number), "wb") as file:
            file.write(HEADS.get(target, b"") + text[:LONGEST])
    return folder


def build(target):
    """Gives the program, and the compiler's complaint or ""."""
    program, source = os.path.join(BUILD, target), os.path.join(HERE, "fuzz_%s.c" % target)
    folder = os.path.join(BUILD, "netkit")
    built = os.path.join(folder, "netkit.o")
    os.makedirs(folder, exist_ok=True)
    # Another process may want it at the same time.
    with LOCK, open(os.path.join(folder, "lock"), "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        whole = run.split(folder, [run.WINDOW])
        complaint = run.compile_to(built, ["clang"] + FLAGS + ["-c", whole], [whole])
    if not complaint:
        paths = ["-I" + path for path in (folder, ROOT, os.path.join(ROOT, "tests"))]
        complaint = run.compile_to(program, ["clang"] + FLAGS + paths + [source, built, "-pthread"],
                                   [source])
    return program, complaint


def fuzz(target, seconds):
    """Gives (report, whether it is well)."""
    program, complaint = build(target)
    if complaint:
        return "%s does not build\n%s" % (target, complaint), False
    found = os.path.join(BUILD, "corpus", target)
    crashes = os.path.join(BUILD, "crashes")
    for folder in (found, crashes):
        os.makedirs(folder, exist_ok=True)
    folders = [found, os.path.join(HERE, "corpus", target), extra_seeds(target)]
    command = [program, "-max_total_time=%d" % seconds, "-max_len=%d" % LONGEST, "-timeout=20",
               "-print_final_stats=1", "-verbosity=0",
               "-artifact_prefix=%s/%s-" % (crashes, target)] + [path for path in folders if path]
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    output = done.stdout.decode("utf-8", "replace")
    runs = re.search(r"number_of_executed_units:\s*(\d+)", output)
    count = int(runs.group(1)) if runs else 0
    report = "%-10s %9d executions in %d s, %d inputs kept" % (
        target, count, seconds, len(os.listdir(found)))
    if done.returncode != 0 or count == 0:
        tail = "\n".join(line for line in output.split("\n") if line.strip())[-4000:]
        return "%s\nended with status %d; see %s\n%s" % (report, done.returncode, crashes,
                                                          tail), False
    return report, True


def main():
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    chosen = sys.argv[2:] or targets()
    if not shutil.which("clang"):
        print("there is no clang; install clang and libclang-rt-dev")
        print("0 passed, 0 failed, 1 skipped")
        return 0
    passed = failed = 0
    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        for report, well in pool.map(lambda target: fuzz(target, seconds), chosen):
            print(report if well else "FAILED " + report)
            sys.stdout.flush()
            passed += well
            failed += not well
    print("%d passed, %d failed" % (passed, failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
