"""Finds netkit's shared library, loads it, and says in ctypes what netkit.h says in C.

`quick` has the functions that never wait: they are called with the interpreter's lock held, which
costs less. `slow` has the same functions for calls that may wait, and lets other threads run.
Prototypes are made when a function is first asked for, because most programs need few.
"""

from __future__ import annotations

import ctypes
import os
import sys
from ctypes import (c_bool, c_char, c_char_p, c_double, c_int, c_int32, c_int64, c_size_t,
                    c_ssize_t, c_uint8, c_uint16, c_uint32, c_uint64, c_void_p)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Optional, Tuple, Type

VERSION = "0.1.0"

# --- Numbers of netkit.h --------------------------------------------------------

OK = 0
EAGAIN = -1
EOF = -2
EINVAL = -3
EADDR = -4
EPORT = -5
ENAME = -6
EAMBIGUOUS = -7
ENOMEM = -8
ENOSPACE = -9
ETIMEDOUT = -10
ECANCELED = -11
EINTR = -12
ETOOLONG = -13
ETRUNCATED = -14
EPROTO = -15
EREFUSED = -16
ERESET = -17
EPIPE = -18
EABORTED = -19
ENETUNREACH = -20
EHOSTUNREACH = -21
EADDRINUSE = -22
EADDRNOTAVAIL = -23
ENOTCONN = -24
EMFILE = -25
EACCES = -26
EUNSUPPORTED = -27
EBUSY = -28
ENOTFOUND = -29
ELOOKUP = -30
ENODEV = -31
EMSGSIZE = -32
ENOTSOCK = -33
EFORKED = -34
ENETDOWN = -35
EOS = -36
EGROUP = -37
EFAMILY = -38
EVIRTUAL = -39
EDEADLK = -40

READ = 1
WRITE = 2
CONNECTED = 4
DONE = 8

IPV4 = 4
IPV6 = 6

OPT_READ_TIMEOUT_MS = 1
OPT_WRITE_TIMEOUT_MS = 2
OPT_LINE_MAX = 3
OPT_MESSAGE_MAX = 4
OPT_QUEUE_MAX = 5
OPT_KEEPALIVE_S = 6
OPT_SEND_BUFFER = 7
OPT_RECV_BUFFER = 8
OPT_CR_LINES = 9
OPT_DELAY_SMALL_WRITES = 10

UDP_HOPS = 1
UDP_MULTICAST_HOPS = 2
UDP_TRAFFIC_CLASS = 3
UDP_DONT_FRAGMENT = 4
UDP_LOOPBACK = 5
UDP_SEND_BUFFER = 6
UDP_RECV_BUFFER = 7
UDP_RECV_TIMEOUT_MS = 8
UDP_SEND_TIMEOUT_MS = 9
UDP_MULTICAST_INTERFACE = 10
UDP_PATH_MTU = 12

NO_FD = -1
NEVER = 0x7FFFFFFFFFFFFFFF
SIZE_LIMIT = 0x7FFF0000
UNTIL_MAX = 255
LOOKUP_MAX = 64
ATTEMPTS_MAX = 16
WATCH_MAX = 16
LINE_MAX_DEFAULT = 65536
MESSAGE_MAX_DEFAULT = 1048576
QUEUE_MAX_DEFAULT = 2097152


# --- Structures of netkit.h -----------------------------------------------------
#
# Those that Python has a use for, by the name in C. check_layout() compares each with what was
# compiled, field by field.

class nkt_str(ctypes.Structure):
    _fields_ = [("ptr", c_void_p), ("len", c_size_t)]


class nkt_problem(ctypes.Structure):
    _fields_ = [("err", c_int32), ("os_error", c_int32), ("offset", c_int32),
                ("field", c_char * 28), ("text", c_char * 216)]


class nkt_watch(ctypes.Structure):
    _fields_ = [("fd", c_ssize_t), ("events", c_uint32), ("ready", c_uint32)]


class nkt_tcp_info(ctypes.Structure):
    _fields_ = [("rtt_us", c_int64), ("rtt_var_us", c_int64), ("retransmits", c_int64),
                ("unacked_bytes", c_int64), ("path_mtu", c_int64)]


class nkt_ip(ctypes.Structure):
    _fields_ = [("bytes", c_uint8 * 16), ("scope", c_uint32), ("family", c_uint8),
                ("reserved", c_uint8 * 3)]


class nkt_addr(ctypes.Structure):
    _fields_ = [("ip", nkt_ip), ("port", c_uint16), ("reserved", c_uint16),
                ("flow_label", c_uint32)]


class nkt_event(ctypes.Structure):
    _fields_ = [("events", c_uint32), ("reserved", c_uint32), ("conn", c_void_p),
                ("listener", c_void_p), ("task", c_void_p), ("udp", c_void_p),
                ("fd", c_ssize_t), ("user", c_void_p)]


class nkt_poller_opts(ctypes.Structure):
    _fields_ = [("env", c_void_p), ("portable", c_bool)]


class nkt_lookup_opts(ctypes.Structure):
    _fields_ = [("env", c_void_p), ("timeout_ms", c_int32), ("family", c_int32)]


class nkt_interest(ctypes.Structure):
    _fields_ = [("deadline_ns", c_int64), ("count", c_uint32), ("ready", c_bool),
                ("watches", nkt_watch * WATCH_MAX)]


class nkt_link(ctypes.Structure):
    _fields_ = [("transport", c_void_p), ("self", c_void_p), ("below", c_void_p),
                ("conn", c_void_p)]


RECV_FUNC = ctypes.CFUNCTYPE(c_ssize_t, c_void_p, c_void_p, c_size_t)
SEND_FUNC = ctypes.CFUNCTYPE(c_ssize_t, c_void_p, c_void_p, c_size_t)
SHUTDOWN_FUNC = ctypes.CFUNCTYPE(c_int, c_void_p)
WATCH_FUNC = ctypes.CFUNCTYPE(None, c_void_p, c_uint32, c_void_p)
CLOSE_FUNC = ctypes.CFUNCTYPE(None, c_void_p, c_bool)


class nkt_transport(ctypes.Structure):
    _fields_ = [("size", c_size_t), ("name", c_char_p), ("recv", RECV_FUNC),
                ("send", SEND_FUNC), ("shutdown_write", SHUTDOWN_FUNC), ("watch", WATCH_FUNC),
                ("close", CLOSE_FUNC), ("local", c_void_p), ("peer", c_void_p),
                ("descriptor", c_void_p), ("flush", c_void_p)]


class nkt_stream_opts(ctypes.Structure):
    _fields_ = [("read_timeout_ms", c_int32), ("write_timeout_ms", c_int32),
                ("line_max", c_uint32), ("message_max", c_uint32), ("queue_max", c_uint32),
                ("keepalive_s", c_int32), ("send_buffer", c_int32), ("recv_buffer", c_int32),
                ("cr_lines", c_bool), ("delay_small_writes", c_bool)]


class nkt_conn_opts(ctypes.Structure):
    _fields_ = [("env", c_void_p), ("nonblocking", c_bool), ("stream", nkt_stream_opts)]


class nkt_conn_info(ctypes.Structure):
    _fields_ = [("received", c_uint64), ("sent", c_uint64), ("buffered", c_uint64),
                ("queued", c_uint64), ("tcp", nkt_tcp_info)]


class nkt_attempt(ctypes.Structure):
    _fields_ = [("addr", nkt_addr), ("err", c_int32), ("os_error", c_int32),
                ("start_ms", c_int32), ("end_ms", c_int32)]


class nkt_connect_report(ctypes.Structure):
    _fields_ = [("err", c_int32), ("os_error", c_int32), ("elapsed_ms", c_int32),
                ("attempt_count", c_int32), ("lookup_err", c_int32 * 2),
                ("lookup_ms", c_int32 * 2), ("attempts", nkt_attempt * ATTEMPTS_MAX),
                ("problem", nkt_problem), ("text", c_char * 512)]


class nkt_connect_opts(ctypes.Structure):
    _fields_ = [("env", c_void_p), ("nonblocking", c_bool), ("timeout_ms", c_int32),
                ("default_port", c_int32), ("attempt_delay_ms", c_int32),
                ("resolution_delay_ms", c_int32), ("family", c_int32), ("local", nkt_addr),
                ("interface_name", c_char_p), ("report", c_void_p), ("stream", nkt_stream_opts)]


class nkt_listen_opts(ctypes.Structure):
    _fields_ = [("env", c_void_p), ("nonblocking", c_bool), ("reuse_port", c_bool),
                ("keep_path", c_bool), ("backlog", c_int32), ("accept_timeout_ms", c_int32),
                ("interface_name", c_char_p), ("problem", c_void_p),
                ("stream", nkt_stream_opts)]


class nkt_datagram(ctypes.Structure):
    _fields_ = [("data", c_void_p), ("len", c_uint32), ("cap", c_uint32), ("addr", nkt_addr),
                ("local", nkt_ip), ("interface_index", c_uint32), ("hops", c_int32),
                ("traffic_class", c_int32), ("segment", c_uint32), ("truncated", c_bool),
                ("reserved", c_uint8 * 7)]


class nkt_join_opts(ctypes.Structure):
    _fields_ = [("interface_name", c_char_p), ("interface_index", c_uint32),
                ("reserved", c_uint32), ("source", c_char_p)]


class nkt_udp_opts(ctypes.Structure):
    _fields_ = [("env", c_void_p), ("nonblocking", c_bool), ("reuse_port", c_bool),
                ("icmp_errors", c_bool), ("dont_fragment", c_bool), ("no_loopback", c_bool),
                ("no_offload", c_bool), ("two_sockets", c_bool), ("family", c_int32),
                ("hops", c_int32), ("multicast_hops", c_int32), ("traffic_class", c_int32),
                ("send_buffer", c_int32), ("recv_buffer", c_int32),
                ("recv_timeout_ms", c_int32), ("send_timeout_ms", c_int32),
                ("interface_name", c_char_p), ("problem", c_void_p)]


class nkt_udp_result(ctypes.Structure):
    _fields_ = [("to", nkt_addr), ("interface_index", c_uint32), ("err", c_int32),
                ("os_error", c_int32), ("reserved", c_int32)]


class nkt_udp_info(ctypes.Structure):
    _fields_ = [("received", c_uint64), ("received_bytes", c_uint64), ("sent", c_uint64),
                ("sent_bytes", c_uint64), ("truncated", c_uint64), ("joined", c_uint32),
                ("sockets", c_uint32)]


class nkt_impairment(ctypes.Structure):
    _fields_ = [("seed", c_uint64), ("latency_ms", c_double), ("jitter_ms", c_double),
                ("jitter", c_int32), ("overtake", c_bool), ("rate", c_int64),
                ("queue_bytes", c_uint32), ("mtu", c_uint32), ("loss", c_double),
                ("loss_burst", c_double), ("burst_loss", c_double), ("duplicate", c_double),
                ("reorder", c_double), ("reorder_ms", c_double), ("corrupt", c_double),
                ("stall", c_double), ("stall_ms", c_double), ("piece_max", c_uint32),
                ("cut", c_int32), ("cut_bytes", c_int64), ("cut_ms", c_double),
                ("accept_ms", c_double), ("steps", c_void_p), ("step_count", c_uint32),
                ("repeat_ms", c_double), ("problem", c_void_p)]


class nkt_impair_step(ctypes.Structure):
    _fields_ = [("at_ms", c_double), ("for_ms", c_double), ("to", c_void_p)]


class nkt_impair_stats(ctypes.Structure):
    _fields_ = [(name, c_uint64) for name in (
        "seed", "sent", "sent_bytes", "delivered", "delivered_bytes", "lost", "overflowed",
        "oversized", "duplicated", "reordered", "corrupted", "stalls", "under_way",
        "queue_high")]


STRUCTURES: Tuple[Type[ctypes.Structure], ...] = (
    nkt_str, nkt_problem, nkt_watch, nkt_tcp_info, nkt_ip, nkt_addr, nkt_event, nkt_poller_opts,
    nkt_lookup_opts, nkt_interest, nkt_transport, nkt_link, nkt_stream_opts, nkt_conn_opts,
    nkt_conn_info, nkt_attempt, nkt_connect_report, nkt_connect_opts, nkt_listen_opts,
    nkt_datagram, nkt_join_opts, nkt_udp_opts, nkt_udp_result, nkt_udp_info,
    nkt_impairment, nkt_impair_step, nkt_impair_stats)

# --- Functions of netkit.h ------------------------------------------------------
#
# Each function's result and arguments, a letter each:

LETTERS: Dict[str, Any] = {
    "v": None, "i": c_int32, "u": c_uint32, "h": c_uint16, "q": c_int64, "Q": c_uint64,
    "z": c_size_t, "n": c_ssize_t, "f": c_ssize_t, "b": c_bool,
    "s": c_char_p,      # text that ends with NUL
    "p": c_void_p,      # any other pointer: a handle, a structure, a buffer
    "I": nkt_ip, "A": nkt_addr, "S": nkt_str,
}

PROTOTYPES: Dict[str, str] = dict(row.split() for row in """
nkt_str_of                S:s
nkt_str_equal             b:Ss
nkt_str_begins            b:Ss
nkt_version               s:
nkt_strerror              s:i
nkt_errname               s:i
nkt_sys_core_default      p:
nkt_sys_poll_default      p:
nkt_sys_poll_portable     p:
nkt_sys_threads_default   p:
nkt_sys_net_default       p:
nkt_sys_udp_default       p:
nkt_env_init              i:p
nkt_env_free              v:p
nkt_env_set_default       i:p
nkt_now_ns                q:p
nkt_random                i:ppz
nkt_thread_start          i:ppp
nkt_ip_parse              i:sp
nkt_ip_parse_n            i:szpp
nkt_ip_format             i:ppz
nkt_ip_format_named       i:ppz
nkt_ip_compare            i:pp
nkt_ip_equal              b:pp
nkt_ip_hash               Q:p
nkt_ip_from_u32           I:u
nkt_ip_to_u32             i:pp
nkt_ip_from_bytes         I:pz
nkt_ip_unmap              I:p
nkt_ip_map                I:p
nkt_ip_loopback           I:i
nkt_ip_any                I:i
nkt_addr_parse            i:sp
nkt_addr_parse_n          i:szpp
nkt_addr_format           i:ppz
nkt_addr_compare          i:pp
nkt_addr_equal            b:pp
nkt_addr_hash             Q:p
nkt_addr_make             A:ph
nkt_addr_to_sockaddr      i:ppz
nkt_addr_from_sockaddr    i:pzp
nkt_net_parse             i:sp
nkt_net_parse_n           i:szpp
nkt_net_format            i:ppz
nkt_net_make              i:pip
nkt_net_contains          b:pp
nkt_net_overlaps          b:pp
nkt_net_compare           i:pp
nkt_net_equal             b:pp
nkt_net_hash              Q:p
nkt_net_first             I:p
nkt_net_last              I:p
nkt_net_broadcast         I:p
nkt_net_mask              I:ii
nkt_net_mask_bits         i:p
nkt_ip_classify           i:p
nkt_ip_kind_name          s:i
nkt_ip_is_global          b:p
nkt_ip_embedded           I:p
nkt_ip_multicast_scope    i:p
nkt_target_parse          i:sipp
nkt_target_parse_n        i:szipp
nkt_target_format         i:ppz
nkt_host_check            i:szp
nkt_host_is_local         b:sz
nkt_poller_open           i:pp
nkt_poller_close          v:p
nkt_poller_add_conn       i:ppp
nkt_poller_add_listener   i:ppp
nkt_poller_add_task       i:ppp
nkt_poller_add_fd         i:pfup
nkt_poller_want           i:ppu
nkt_poller_want_listener  i:ppu
nkt_poller_want_fd        i:pfu
nkt_poller_remove_conn    i:pp
nkt_poller_remove_listener i:pp
nkt_poller_remove_task    i:pp
nkt_poller_remove_fd      i:pf
nkt_poller_wait           i:pi
nkt_poller_next           i:pp
nkt_poller_next_many      i:ppi
nkt_poller_wake           v:p
nkt_poller_fd             f:p
nkt_poller_timeout_ms     i:p
nkt_task_wait             i:pi
nkt_task_cancel           v:p
nkt_task_close            v:p
nkt_timer_start           i:pp
nkt_timer_finish          i:p
nkt_lookup                i:sppi
nkt_lookup_start          i:spp
nkt_lookup_finish         i:ppi
nkt_ip_sort               i:ppi
nkt_link_recv             n:ppz
nkt_link_send             n:ppz
nkt_link_shutdown_write   i:p
nkt_link_flush            i:p
nkt_link_watch            v:pup
nkt_interest_add          i:pfu
nkt_conn_adopt            i:fpp
nkt_conn_detach           i:pp
nkt_conn_open_custom      i:pppp
nkt_conn_push             i:ppp
nkt_conn_notify           v:p
nkt_conn_interrupt        v:p
nkt_conn_close            z:p
nkt_conn_abort            z:p
nkt_conn_local            i:pp
nkt_conn_peer             i:pp
nkt_conn_peer_name        i:ppz
nkt_conn_descriptor       f:p
nkt_conn_os_error         i:p
nkt_conn_watch            i:pup
nkt_conn_get_info         i:pp
nkt_conn_set_option       i:piq
nkt_conn_get_option       i:pip
nkt_conn_read             n:ppz
nkt_conn_read_exact       i:ppz
nkt_conn_received         z:p
nkt_conn_read_line        i:pp
nkt_conn_skip_line        i:p
nkt_conn_read_lines       i:pp
nkt_conn_read_until       i:ppzp
nkt_conn_peek             i:pzp
nkt_conn_skip             i:pQ
nkt_conn_position         Q:p
nkt_conn_seek             i:pQ
nkt_conn_peek_at          i:pQzp
nkt_conn_buffered         z:p
nkt_conn_unread           i:ppz
nkt_conn_write            i:ppz
nkt_conn_write_str        i:ps
nkt_conn_writev           i:ppz
nkt_conn_written          z:p
nkt_conn_queued           z:p
nkt_conn_flush            i:p
nkt_conn_shutdown_write   i:p
nkt_connect               i:spp
nkt_connect_addr          i:ppp
nkt_connect_start         i:spp
nkt_connect_finish        i:p
nkt_connect_wait          i:pi
nkt_conn_report           i:pp
nkt_conn_read_message     i:pp
nkt_conn_write_message    i:ppz
nkt_conn_pair             i:pppp
nkt_listen                i:spp
nkt_listener_adopt        i:fpp
nkt_accept                i:pp
nkt_listener_set_timeout  v:pi
nkt_listener_interrupt    v:p
nkt_listener_close        v:p
nkt_listener_local        i:pp
nkt_listener_name         i:ppz
nkt_listener_descriptor   f:p
nkt_listener_os_error     i:p
nkt_listener_watch        i:pp
nkt_udp_open              i:spp
nkt_udp_connect_addr      i:pp
nkt_udp_connect           i:ps
nkt_udp_send              n:ppzp
nkt_udp_send_str          n:pss
nkt_udp_send_many         i:ppi
nkt_udp_send_each         i:ppzppi
nkt_udp_broadcast         n:ppzh
nkt_udp_recv              n:ppzp
nkt_udp_recv_datagram     i:pp
nkt_udp_recv_many         i:ppi
nkt_udp_interrupt         v:p
nkt_udp_notify            v:p
nkt_udp_close             v:p
nkt_udp_local             i:pp
nkt_udp_peer              i:pp
nkt_udp_descriptor        f:p
nkt_udp_os_error          i:p
nkt_udp_watch             i:pup
nkt_udp_get_info          i:pp
nkt_udp_set_option        i:piq
nkt_udp_get_option        i:pip
nkt_udp_join              i:psp
nkt_udp_leave             i:psp
nkt_udp_pair              i:ppupp
nkt_udp_open_custom       i:pppp
nkt_udp_push              i:ppp
nkt_udp_link_recv         i:ppi
nkt_udp_link_send         i:ppi
nkt_udp_link_watch        v:pup
nkt_poller_add_udp        i:ppp
nkt_poller_want_udp       i:ppu
nkt_poller_remove_udp     i:pp
nkt_sleep                 i:pi
nkt_impair_profile        i:sppp
nkt_impair_profile_name   s:i
nkt_impair_profile_source s:i
nkt_conn_impair           i:pp
nkt_conn_impair_ways      i:ppp
nkt_conn_impair_stats     i:pup
nkt_listener_impair       i:pp
nkt_listener_impair_ways  i:ppp
nkt_udp_impair            i:pp
nkt_udp_impair_ways       i:ppp
nkt_udp_impair_stats      i:pup
nkt_env_init_virtual      i:pQ
nkt_virtual_join          i:p
nkt_virtual_leave         i:p
nkt_layout                z:pp
""".strip().split("\n"))

CPYTHON = sys.implementation.name == "cpython"

# Why a function of netkit.h has no prototype above, by its name or, with *, its beginning.
UNBOUND: Dict[str, str] = {}


# What is called for every little thing that is read, and is given ctypes' own objects alone: a
# handle, byref(), c_size_t, c_uint64. Nothing has to be converted there, and not looking whether
# it has to be takes two fifths off a call.
CONVERTED = frozenset(("nkt_conn_read_lines", "nkt_conn_peek", "nkt_conn_peek_at",
                       "nkt_conn_queued", "nkt_conn_buffered"))


class Functions:
    """The functions of the library; each gets its prototype when it is first asked for, and the
    library is loaded with the first of them."""

    def __init__(self, holds_lock: bool) -> None:
        self._holds_lock = holds_lock

    def __getattr__(self, name: str) -> Any:
        try:
            result, arguments = PROTOTYPES[name].split(":")
        except KeyError:
            raise AttributeError(name) from None
        function = library(self._holds_lock)[name]
        function.restype = LETTERS[result]
        if not (CPYTHON and name in CONVERTED):
            function.argtypes = [LETTERS[letter] for letter in arguments]
        setattr(self, name, function)
        return function


# --- Finding and loading --------------------------------------------------------

def _suffix() -> str:
    if sys.platform == "win32":
        return ".dll"
    return ".dylib" if sys.platform == "darwin" else ".so"


def candidates() -> List[str]:
    """Where the library may be, best first: NETKIT_LIBRARY alone if it is set, else beside the
    package as installed, else what `make shared` has built in a checkout."""
    given = os.environ.get("NETKIT_LIBRARY")
    if given:
        return [os.path.abspath(given)]
    here = os.path.dirname(os.path.abspath(__file__))
    found = [os.path.join(here, "_netkit" + _suffix())]
    top = os.path.dirname(os.path.dirname(here))
    if os.path.exists(os.path.join(top, "netkit.h")):
        for suffix in dict.fromkeys((_suffix(), ".so")):
            found.append(os.path.join(top, "build", "libnetkit" + suffix))
    return found


def layout_of(library: ctypes.CDLL) -> Dict[str, Tuple[int, int]]:
    """What was compiled: {"nkt_str": (0, size), "nkt_str.ptr": (offset, size), ...}."""
    names = c_void_p()
    numbers = ctypes.POINTER(c_uint16)()
    library.nkt_layout.restype = c_size_t
    library.nkt_layout.argtypes = [c_void_p, c_void_p]
    count = library.nkt_layout(ctypes.byref(names), ctypes.byref(numbers))
    found: Dict[str, Tuple[int, int]] = {}
    at = names.value or 0
    of = ""
    values = numbers[:2 * count]
    for i in range(count):
        name = ctypes.string_at(at)
        at += len(name) + 1
        text = name.decode()
        if text.startswith("."):
            text = of + text
        else:
            of = text
        found[text] = (values[2 * i], values[2 * i + 1])
    return found


def expected_layout() -> Dict[str, Tuple[int, int]]:
    """The same as this file has it, for the structures in it."""
    wanted: Dict[str, Tuple[int, int]] = {}
    for structure in STRUCTURES:
        wanted[structure.__name__] = (0, ctypes.sizeof(structure))
        for field in structure._fields_:
            place = getattr(structure, field[0])
            wanted["%s.%s" % (structure.__name__, field[0])] = (place.offset, place.size)
    return wanted


def check_layout(library: ctypes.CDLL, path: str, version: str) -> None:
    """Refuses a library whose structures are not those of this file."""
    compiled = layout_of(library)
    for name, place in expected_layout().items():
        if compiled.get(name) != place:
            raise ImportError(
                "netkit: %s, version %s, lays out %s as %s, and this package, version %s, as %s "
                "(offset, size): they are not of one make. Reinstall netkit, or run `make shared` "
                "in a checkout" % (path, version, name, compiled.get(name), VERSION, place),
                name="netkit", path=path)


def _refuse(problems: List[str]) -> ImportError:
    return ImportError(
        "netkit: its library cannot be loaded:\n    %s\nInstall with `pip install ./python`, run "
        "`make shared` in a checkout, or set NETKIT_LIBRARY to the library's path"
        % "\n    ".join(problems), name="netkit")


# PyPy has no lock that is worth keeping, and no PyDLL.
_PyDLL: Type[ctypes.CDLL] = getattr(ctypes, "PyDLL", ctypes.CDLL)


def load(path: str) -> Tuple[ctypes.CDLL, ctypes.CDLL]:
    """Loads one file for calls without and with the interpreter's lock, and checks it.

    Raises OSError where it does not load, ImportError where it is another version."""
    library = ctypes.CDLL(path)
    try:
        library.nkt_version.restype = c_char_p
        library.nkt_version.argtypes = []
        version = library.nkt_version().decode()
    except AttributeError:
        raise ImportError("netkit: %s is not netkit's library: it has no nkt_version" % path,
                          name="netkit", path=path) from None
    if version != VERSION:
        raise ImportError("netkit: %s is version %s, and this package is version %s; reinstall "
                          "netkit, or run `make shared` in a checkout"
                          % (path, version, VERSION), name="netkit", path=path)
    check_layout(library, path, version)
    return library, _PyDLL(path)


def find() -> Tuple[str, ctypes.CDLL, ctypes.CDLL]:
    """The first of the candidates that is there, loaded. Raises ImportError that tells of each."""
    problems: List[str] = []
    for path in candidates():
        if not os.path.exists(path):
            problems.append("there is no " + path)
            continue
        try:
            slow_library, quick_library = load(path)
            return path, slow_library, quick_library
        except OSError as error:
            problems.append("%s: %s" % (path, error))
    raise _refuse(problems)


_loaded: List[Tuple[str, ctypes.CDLL, ctypes.CDLL]] = []


def library(holds_lock: bool = True) -> ctypes.CDLL:
    """The library, loaded at the first call. Loading twice at the same time is harmless."""
    if not _loaded:
        _loaded.append(find())
    return _loaded[0][2] if holds_lock else _loaded[0][1]


def library_path() -> str:
    """Where the library that is used was found."""
    library()
    return _loaded[0][0]


quick = Functions(holds_lock=True)
slow = Functions(holds_lock=False)


def get_include() -> str:
    """The folder that has netkit.h, for extensions that are built with the same code: that of the
    installed package or the checkout.

    >>> import netkit, os
    >>> "netkit.h" in os.listdir(netkit.get_include())
    True
    """
    here = os.path.dirname(os.path.abspath(__file__))
    installed = os.path.join(here, "include")
    return installed if os.path.isdir(installed) else os.path.dirname(os.path.dirname(here))


# --- Bytes ----------------------------------------------------------------------
#
# CPython's ctypes passes bytes as a pointer to them, and cuts arrays fast. PyPy's copies both ways
# byte by byte, a third of a second for a megabyte; these ways around it take a thousandth of that.

# What is passed as it is.
DIRECT: Any = bytes if CPYTHON else None


def pointer_to(data: bytes) -> Tuple[Any, Any]:
    """What is passed to C as a pointer to bytes, and what must be kept meanwhile."""
    if CPYTHON:
        return data, data
    from array import array
    held = array("B", data or b"\0")
    return held.buffer_info()[0], held


class Memory:
    """Memory from an address on, which gives bytes for a slice with two ends."""

    __slots__ = ("address",)

    def __init__(self, address: int) -> None:
        self.address = address

    def __getitem__(self, part: slice) -> bytes:
        return ctypes.string_at(self.address + part.start, part.stop - part.start)


class Shown:
    """What an nkt_str shows; gives bytes for a slice from its beginning."""

    __slots__ = ("view",)

    def __init__(self, view: nkt_str) -> None:
        self.view = view

    def __getitem__(self, part: slice) -> bytes:
        return ctypes.string_at(self.view.ptr, part.stop)


class Opened:
    """`hook`, if it is set, is called with each connection, datagram socket and listener that has
    been opened. netkit.sim sets it."""

    hook: Optional[Any] = None


# --- Processes ------------------------------------------------------------------


class Process:
    """What changes with a fork: `epoch` is another object in each process."""

    epoch: object = object()


def _after_fork() -> None:
    Process.epoch = object()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def text_of(function: Any, handle: Optional[int], size: int = 128) -> str:
    """What a function of the form (handle, buffer, capacity) writes."""
    buffer = ctypes.create_string_buffer(size)
    count = function(handle, buffer, size)
    return buffer.raw[:count].decode("utf-8", "replace") if count > 0 else ""
