"""The toolbox: python -m netkit connect, listen, send, discover, impair, resolve, version."""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading

import netkit

from . import _datagram_tools, _impair_tool, _lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Optional, Set

OK = 0
FAILED = 1              # the network, or the other side
USAGE = 2               # the command line, or an address that is none
INTERRUPTED = 130       # Ctrl-C, as shells say it

EXAMPLES = {
    "connect": """\
  python -m netkit connect localhost:6379            talk to a server, line by line
  printf 'PING\\r\\n' | python -m netkit connect localhost:6379
""",
    "listen": """\
  python -m netkit listen :7777                      say every line back
  python -m netkit listen chat localhost:7777        say every line to all others
  python -m netkit listen --udp :5005                print the datagrams that come
  python -m netkit listen --udp --join 239.1.2.3 :5005   those of a group, too
""",
    "send": """\
  python -m netkit send localhost:7777 hello         send a line
  python -m netkit send --udp localhost:5005 hello   send a datagram
""",
    "discover": """\
  python -m netkit discover                          who else is on the local networks
  python -m netkit discover --name kitchen --time 60     be found by this name, for a minute
""",
    "impair": """\
  python -m netkit impair :7778 localhost:7777 --profile train --seed 7
                                                     a server, as its clients on a train see it
  python -m netkit impair :5006 localhost:5005 --udp --loss 0.1 --latency 0.08
  python -m netkit impair --list                     the profiles
""",
    "resolve": """\
  python -m netkit resolve example.org               addresses, the best first
  python -m netkit resolve -4 example.org            those of IPv4 alone
  python -m netkit --json resolve example.org        the same for programs
""",
    "version": """\
  python -m netkit version                           the version, and which library is used
"""}

EPILOG = "examples:\n%s\n%s" % ("".join(EXAMPLES.values()), """\
exit status: 0 well, 1 the network or the other side failed, 2 bad arguments, 130 Ctrl-C
""")


class Output:
    """Text for people on standard output, or a JSON object a line for programs."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.lock: threading.Lock = threading.Lock()

    def say(self, shown: Optional[str], event: str, **facts: Any) -> None:
        """`shown` is for people, None to show nothing; the rest is for programs."""
        with self.lock:
            if self.as_json:
                made: Dict[str, Any] = {"event": event}
                made.update(facts)
                print(json.dumps(made), flush=True)
            elif shown is not None:
                print(shown, flush=True)

    def note(self, shown: str, event: str, **facts: Any) -> None:
        """What is not the result: to standard error, for people."""
        if self.as_json:
            self.say(None, event, **facts)
        else:
            print(shown, file=sys.stderr, flush=True)

    def fail(self, error: Exception) -> int:
        """Tells why it failed, and gives the exit status."""
        said = getattr(error, "strerror", None) or str(error)
        facts: Dict[str, Any] = {"error": type(error).__name__, "message": said,
                                 "errno": getattr(error, "errno", None)}
        if isinstance(error, netkit.ConnectError):
            facts["attempts"] = [
                {"address": str(attempt.address), "start": attempt.start, "end": attempt.end,
                 "error": None if attempt.error is None else attempt.error.strerror}
                for attempt in error.attempts]
        self.note("netkit: %s" % said, "failed", **facts)
        return USAGE if isinstance(error, ValueError) else FAILED


def text_of(line: bytes) -> str:
    """A line for people, without its end."""
    if line.endswith(b"\n"):
        line = line[:-2] if line.endswith(b"\r\n") else line[:-1]
    return line.decode("utf-8", "backslashreplace")


def connect(options: argparse.Namespace, output: Output) -> int:
    """Standard input goes to the server, its lines to standard output."""
    with netkit.connect(options.address, timeout=options.timeout,
                        default_port=options.port) as conn:
        output.note("connected to %s" % conn.peer_name, "connected", peer=conn.peer_name,
                    attempts=len(conn.attempts))
        conn.timeout = options.idle

        def forward() -> None:
            # Not sys.stdin: its lock would be held when the interpreter ends.
            try:
                while True:
                    data = os.read(0, 65536)
                    if not data:
                        break
                    conn.write(data.replace(b"\n", b"\r\n") if options.crlf else data)
                conn.shutdown_write()
            except (OSError, ValueError):
                pass            # the reading side tells of it

        threading.Thread(target=forward, daemon=True).start()
        for line in conn:
            text = text_of(line)
            output.say(text, "line", text=text)
    output.note("closed by the other side", "closed")
    return OK


class Chat:
    """Whoever is there, and what they hear."""

    def __init__(self, output: Output) -> None:
        self.output = output
        self.lock: threading.Lock = threading.Lock()
        self.members: Set[netkit.Connection] = set()

    def say(self, data: bytes, but: netkit.Connection) -> None:
        with self.lock:
            members = [member for member in self.members if member is not but]
        for member in members:
            try:
                member.write(data, timeout=5)
            except OSError:
                member.interrupt()      # who does not listen for so long has left

    def talk(self, conn: netkit.Connection) -> None:
        name = conn.peer_name
        with self.lock:
            self.members.add(conn)
        self.output.note("%s is here" % name, "connected", peer=name)
        try:
            for line in conn.lines(errors="replace"):
                self.output.say("%s: %s" % (name, line), "line", peer=name, text=line)
                self.say(("%s: %s\n" % (name, line)).encode(), conn)
        finally:
            with self.lock:
                self.members.discard(conn)
            self.output.note("%s has left" % name, "closed", peer=name)


def listen(options: argparse.Namespace, output: Output) -> int:
    """An echo or a chat, until Ctrl-C."""
    if options.udp:
        return _datagram_tools.listen(options, output)
    # "listen :7777" is an echo, too.
    what, address = options.what or "echo", options.address
    if what not in ("echo", "chat"):
        if address is not None:
            raise ValueError("%r is neither echo nor chat" % what)
        what, address = "echo", what
    chat = Chat(output)

    def echo(conn: netkit.Connection) -> None:
        name = conn.peer_name
        output.note("%s is here" % name, "connected", peer=name)
        try:
            for line in conn:
                conn.write(line)
                text = text_of(line)
                output.say("%s: %s" % (name, text), "line", peer=name, text=text)
        finally:
            output.note("%s has left" % name, "closed", peer=name)

    with netkit.listen(address or ":7777") as listener:
        output.note("listening on %s" % listener.name, "listening", address=listener.name,
                    port=listener.port)
        netkit.serve(echo if what == "echo" else chat.talk, listener,
                     max_clients=options.max_clients)
    return OK


def resolve(options: argparse.Namespace, output: Output) -> int:
    """The addresses of a name, in the order in which they should be tried."""
    for address in netkit.resolve(options.host, family=options.family, timeout=options.timeout):
        output.say(str(address.ip), "address", address=str(address.ip),
                   version=address.ip.version, kind=address.ip.kind)
    return OK


def version(options: argparse.Namespace, output: Output) -> int:
    """The version, and which library is used."""
    path = _lib.library_path()
    output.say("netkit %s, %s" % (netkit.__version__, path), "version",
               version=netkit.__version__, library=path, python=sys.version.split()[0],
               platform=sys.platform)
    return OK


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    # Taken before and after the command.
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", default=argparse.SUPPRESS,
                        help="a JSON object a line, for programs")
    parser = argparse.ArgumentParser(
        prog="python -m netkit", description="Networking from the command line.",
        epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter, parents=[common])
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)

    def add(name: str, said: str, function: Any) -> argparse.ArgumentParser:
        made = commands.add_parser(name, parents=[common], help=said,
                                   description=function.__doc__,
                                   epilog="examples:\n" + EXAMPLES[name],
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
        made.set_defaults(run=function)
        return made

    one = add("connect", "talk to a server, line by line", connect)
    one.add_argument("address", help="host:port, [v6]:port or unix:/path")
    one.add_argument("--port", type=int, help="where the address has none")
    one.add_argument("--timeout", type=float, default=30.0, metavar="S",
                     help="seconds for the connecting (30)")
    one.add_argument("--idle", type=float, metavar="S",
                     help="end after so many seconds without a line")
    one.add_argument("--crlf", action="store_true", help="send CRLF for every line end")

    one = add("listen", "an echo or a chat", listen)
    one.add_argument("what", nargs="?", help="echo (the default, but with --udp) or chat")
    one.add_argument("address", nargs="?", help="[host]:port or unix:/path (:7777)")
    one.add_argument("--max-clients", type=int, metavar="N", help="serve so many at a time")
    one.add_argument("--udp", action="store_true",
                     help="print datagrams; they are said back if echo is asked for")
    one.add_argument("--join", action="append", metavar="GROUP",
                     help="with --udp: a multicast group to join; may be repeated")
    one.add_argument("--interface", metavar="NAME",
                     help="with --join: on this one, by name or address; on every one without")

    one = add("send", "send a text or lines", _datagram_tools.send)
    one.add_argument("address", help="host:port, a group or 255.255.255.255 with --udp")
    one.add_argument("text", nargs="*", help="what to send; standard input without, line by line")
    one.add_argument("--udp", action="store_true", help="as datagrams, not over TCP")
    one.add_argument("--interface", metavar="NAME", help="with --udp: only through this one")
    one.add_argument("--timeout", type=float, default=30.0, metavar="S",
                     help="seconds for the connecting (30)")

    one = add("discover", "who else is on the networks", _datagram_tools.discover)
    one.add_argument("--name", help="what to be found as (the host's name and a number)")
    one.add_argument("--time", type=float, default=3.0, metavar="S", help="how long (3)")
    one.add_argument("--group", default=_datagram_tools.GROUP,
                     help="the multicast group (%s)" % _datagram_tools.GROUP)
    one.add_argument("--port", type=int, default=_datagram_tools.PORT,
                     help="the port (%d)" % _datagram_tools.PORT)
    one.add_argument("--interface", metavar="NAME", help="on this one alone, without broadcast")

    one = add("impair", "put a program behind a bad network", _impair_tool.impair)
    _impair_tool.add_arguments(one)

    one = add("resolve", "the addresses of a host name", resolve)
    one.add_argument("host")
    family = one.add_mutually_exclusive_group()
    family.add_argument("-4", dest="family", action="store_const", const=4, help="IPv4 alone")
    family.add_argument("-6", dest="family", action="store_const", const=6, help="IPv6 alone")
    one.add_argument("--timeout", type=float, default=30.0, metavar="S",
                     help="seconds for all of it (30)")

    add("version", "the version and the library", version)
    return parser


def main(arguments: Optional[List[str]] = None) -> int:
    """Runs a command; gives the exit status."""
    options = make_parser().parse_args(arguments)
    output = Output(getattr(options, "json", False))
    try:
        status: int = options.run(options, output)
        return status
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError as error:
        if error.filename is None and not hasattr(error, "code"):
            # Nobody reads our output any more: netkit's own errors have a code.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            return FAILED
        return output.fail(error)
    except (OSError, ValueError) as error:
        return output.fail(error)


if __name__ == "__main__":
    sys.exit(main())
