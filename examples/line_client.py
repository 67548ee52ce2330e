"""Sends lines to a server and prints what it answers, line by line.

    python3 examples/line_client.py localhost:6379 PING "SET greeting hello"

prints "+PONG" and "+OK". In a checkout: make shared, and PYTHONPATH=python.
"""

import sys

import netkit


def main(target, *lines):
    try:
        conn = netkit.connect(target, timeout=5)
    except OSError as error:
        sys.exit(f"cannot connect: {error.strerror}")   # tells of each address that was tried
    with conn:
        conn.timeout = 10
        conn.writelines(line.encode() + b"\r\n" for line in lines)
        conn.shutdown_write()
        for line in conn.lines():
            print(line)


if __name__ == "__main__":
    main(*sys.argv[1:])
