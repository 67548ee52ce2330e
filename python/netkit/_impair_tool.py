"""The toolbox's bad network: a proxy that puts any program behind one."""

from __future__ import annotations

import threading
from time import monotonic

import netkit

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any, Dict, Optional

    from .__main__ import Output

QUIET_S = 120.0         # who has said nothing for so long over UDP has left
CLIENTS_MAX = 256       # over UDP, at a time

FIELDS = {"latency": float, "jitter": float, "rate": int, "mtu": int, "loss": float,
          "duplicate": float, "reorder": float, "corrupt": float, "stall": float}


class Network:
    """What the clients are on: each has a seed of its own, one more than the one before."""

    def __init__(self, options: argparse.Namespace, output: Output) -> None:
        self.output = output
        self.profile: Optional[str] = options.profile
        self.fields: Dict[str, Any] = {name: getattr(options, name) for name in FIELDS
                                       if getattr(options, name) is not None}
        if self.profile is None and not self.fields:
            self.profile = "lte"
        with netkit.udp_pair()[0] as probe:
            # What is wrong is told before anybody comes.
            netkit.sim.impair(probe, self.profile, seed=options.seed, **self.fields)
            self.seed: int = netkit.sim.stats(probe).sent.seed
        self.lock: threading.Lock = threading.Lock()

    def impair(self, endpoint: Any, name: str) -> None:
        with self.lock:
            seed, self.seed = self.seed, self.seed % netkit.sim.SEED_MAX + 1
        netkit.sim.impair(endpoint, self.profile, seed=seed, **self.fields)
        self.output.note("%s is here, seed %d" % (name, seed), "connected", peer=name, seed=seed)

    def left(self, endpoint: Any, name: str) -> None:
        found = netkit.sim.stats(endpoint)
        self.output.note(
            "%s has left: %d sent, %d lost; %d received, %d lost"
            % (name, found.sent.sent, found.sent.lost, found.received.sent, found.received.lost),
            "closed", peer=name, sent=found.sent._asdict(), received=found.received._asdict())


def forward(source: netkit.Connection, target: netkit.Connection) -> None:
    """Passes on what comes, and its end; an error of one side ends the other."""
    try:
        while True:
            data = source.read1()
            if not data:
                break
            target.write(data)
        target.shutdown_write()
    except (OSError, ValueError):
        source.interrupt()
        target.interrupt()


def streams(options: argparse.Namespace, network: Network) -> None:
    def talk(client: netkit.Connection) -> None:
        name = client.peer_name
        try:
            server = netkit.connect(options.target)
        except OSError as error:
            network.output.note("%s: %s" % (name, error.strerror), "failed", peer=name,
                                message=str(error))
            client.abort()
            return
        with server:
            network.impair(server, name)
            back = threading.Thread(target=forward, args=(server, client), daemon=True)
            back.start()
            forward(client, server)
            back.join()
            network.left(server, name)

    with netkit.listen(options.listen) as listener:
        network.output.note("listening on %s" % listener.name, "listening",
                            address=listener.name, port=listener.port)
        netkit.serve(talk, listener)


class Askers:
    """Who has sent datagrams: each has a socket to the target, and a thread for the answers."""

    def __init__(self, options: argparse.Namespace, network: Network, front: netkit.UDP) -> None:
        self.target: str = options.target
        self.network = network
        self.front = front
        self.known: Dict[Any, netkit.UDP] = {}
        self.heard: Dict[Any, float] = {}

    def of(self, asker: Any) -> Optional[netkit.UDP]:
        sock = self.known.get(asker)
        if sock is not None:
            self.heard[asker] = monotonic()
        elif len(self.known) < CLIENTS_MAX:
            sock = netkit.udp()
            sock.connect(self.target)
            self.network.impair(sock, str(asker))
            self.known[asker] = sock
            self.heard[asker] = monotonic()
            threading.Thread(target=self.answer, args=(asker, sock), daemon=True).start()
        return sock

    def answer(self, asker: Any, sock: netkit.UDP) -> None:
        with sock:
            while monotonic() - self.heard.get(asker, 0.0) < QUIET_S:
                try:
                    data, _ = sock.recv(timeout=QUIET_S)
                    self.front.send(data, asker)
                    self.heard[asker] = monotonic()
                except TimeoutError:
                    continue
                except ConnectionRefusedError:
                    continue            # nobody listens at the target: as it is with datagrams
                except (OSError, ValueError):
                    break
            self.known.pop(asker, None)
            self.heard.pop(asker, None)
            self.network.left(sock, str(asker))


def datagrams(options: argparse.Namespace, network: Network) -> None:
    with netkit.udp(options.listen) as front:
        network.output.note("listening on %s" % front.local, "listening",
                            address=str(front.local), port=front.port)
        askers = Askers(options, network, front)
        for data, asker in front:
            sock = askers.of(asker)
            try:
                if sock is not None:
                    sock.send(data)
            except (OSError, ValueError):
                pass                    # it is lost, as datagrams are


def impair(options: argparse.Namespace, output: Output) -> int:
    """Passes on what comes for LISTEN to TARGET and back, over a bad network, until Ctrl-C."""
    if options.list:
        for name, profile in netkit.sim.profiles.items():
            output.say("%-14s %s" % (name, profile.source), "profile", name=name,
                       source=profile.source)
        return 0
    if options.target is None:
        raise ValueError("where from and where to? LISTEN and TARGET, or --list")
    (datagrams if options.udp else streams)(options, Network(options, output))
    return 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("listen", nargs="?", help="[host]:port to listen on")
    parser.add_argument("target", nargs="?", help="host:port of the program behind")
    parser.add_argument("--profile", metavar="NAME", help="lte without any other option")
    parser.add_argument("--list", action="store_true", help="the profiles, and their sources")
    parser.add_argument("--seed", type=int, metavar="N",
                        help="of the first client; the next has one more")
    parser.add_argument("--udp", action="store_true", help="datagrams, not TCP")
    said = {"latency": "seconds, one way", "jitter": "seconds", "rate": "bytes/s",
            "mtu": "bytes"}
    for name, kind in FIELDS.items():
        parser.add_argument("--" + name, type=kind, metavar="X",
                            help=said.get(name, "fraction, 0 to 1"))
