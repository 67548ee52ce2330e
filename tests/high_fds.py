#!/usr/bin/env python3
"""Runs a program with every descriptor below 5,000 taken: a select() anywhere would show.

    tests/high_fds.py PROGRAM [ARGUMENT ...]
"""

import os
import resource
import sys

FIRST = 5000


def main():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < FIRST + 1000:
        print(f"{FIRST + 1000} descriptors are needed and {hard} allowed; raise ulimit -Hn")
        return 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (FIRST + 1000, hard))
    taken = os.open("/dev/null", os.O_RDONLY)
    while taken < FIRST - 1:
        taken = os.dup(taken)
        os.set_inheritable(taken, True)
    os.set_inheritable(3, True)
    os.execv(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
