// table.h - the table of scenarios, and what a face cannot have of it

#ifndef NKT_TEST_TABLE_H
#define NKT_TEST_TABLE_H

#include "rows_life.h"
#include "rows_read.h"
#include "rows_write.h"
#include "scene.h"

// Why a row does not run on a face; several may hold.
enum {
    NEEDS_SIGNALS = 1,          // not on Windows
    NEEDS_POLLER = 2,
    NEEDS_RESET = 4,            // not on a Unix-domain socket, where no RST exists
    NEEDS_RESET_TRICK = 8,      // there, only Linux has something like it
    NEEDS_SYSTEM = 16,          // not in memory, where no system call is made
    SLOW = 32,                  // it waits, or moves megabytes: see fault_posix.c
    SECOND_THREAD = 64,         // one that uses the tested end
    PEER_ACTS = 128,            // in a thread of its own
    NEEDS_FULL_PATH = 256,      // a writer has to wait
    NEEDS_WHOLE_READ = 512      // what has come is there at once
};

typedef struct row {
    const char *name;
    void (*run)(scene *s);
    unsigned needs;
} row;

static const row rows[] = {
    {"a line", row_line, 0},
    {"several lines in one segment", row_lines_in_one_segment, 0},
    {"LF and CRLF end lines", row_line_ends, 0},
    {"a lone CR is data", row_cr_is_data, 0},
    {"cr_lines: a lone CR ends a line", row_cr_ends_lines, 0},
    {"CRLF split between packets", row_crlf_split, 0},
    {"cr_lines: CR returns at once and swallows the LF later", row_cr_at_once, 0},
    {"cr_lines: other reads start after the LF", row_cr_then_bytes, 0},
    {"NUL bytes in lines", row_nul_bytes, 0},
    {"empty lines", row_empty_lines, 0},
    {"last line without end", row_last_line_unterminated, 0},
    {"last line ends in CR", row_last_line_ends_in_cr, 0},
    {"end of stream at once", row_eof_at_once, 0},
    {"end of stream twice", row_eof_twice, 0},
    {"bug 43: bytes above 0x7f", row_high_bytes, 0},
    {"one byte at a time", row_byte_by_byte, SLOW | PEER_ACTS},
    {"every split point of two lines", row_every_split, 0},
    {"bug 36: system calls move one byte", row_one_byte_calls, NEEDS_SYSTEM | PEER_ACTS},
    {"10,000 pipelined lines", row_many_lines, SLOW | PEER_ACTS},
    {"a view lives until the next read", row_view_lives, 0},
    {"a line of exactly line_max", row_line_max, 0},
    {"a line longer than line_max", row_line_too_long, 0},
    {"too long is known at once", row_line_too_long_at_once, 0},
    {"a long line read in pieces", row_line_in_pieces, 0},
    {"cr_lines: a line of exactly line_max and one longer", row_line_max_cr, 0},
    {"lines at once", row_lines_at_once, 0},
    {"lines at once, one too long", row_lines_too_long, 0},
    {"lines at once, ended by CR", row_lines_cr, 0},
    {"going back", row_going_back, 0},
    {"cr_lines: going back to behind a CR", row_going_back_cr, 0},
    {"putting back more than the buffer holds", row_unread_large, SLOW | PEER_ACTS},
    {"skipping lines", row_skip_line, 0},
    {"a line of a million bytes, allowed", row_long_line_allowed, SLOW | PEER_ACTS},
    {"bug 37: a line of 64 MiB refused in bounded memory", row_endless_line, SLOW | PEER_ACTS},
    {"read some bytes", row_read, 0},
    {"read into no room", row_cap_zero, 0},
    {"read 3 MB", row_read_large, SLOW | PEER_ACTS},
    {"read exactly", row_exact, SLOW | PEER_ACTS},
    {"read exactly, time-out, go on", row_exact_resumed, SLOW},
    {"read exactly, time-out, give up", row_exact_given_up, SLOW},
    {"read exactly beyond the end", row_exact_truncated, 0},
    {"read until a delimiter", row_until, 0},
    {"read until an overlapping delimiter", row_until_overlapping, 0},
    {"read until a delimiter, every split point", row_until_split, 0},
    {"read until a delimiter, one byte at a time", row_until_byte_by_byte, SLOW | PEER_ACTS},
    {"read until a delimiter at the end", row_until_at_end, 0},
    {"read until a delimiter too far away", row_until_too_long, 0},
    {"read until a bad delimiter", row_until_bad, 0},
    {"peek, then read", row_peek, 0},
    {"peek beyond the end", row_peek_at_end, 0},
    {"skip", row_skip, SLOW | PEER_ACTS},
    {"skip beyond the end", row_skip_beyond_end, 0},
    {"skip, time-out, go on", row_skip_resumed, SLOW},
    {"all ways to read, mixed", row_mixed_reads, 0},
    {"messages, empty and small", row_message, 0},
    {"a message of 1 MiB", row_message_large, SLOW | PEER_ACTS},
    {"a message longer than message_max", row_message_too_long, 0},
    {"a message cut in its length", row_message_cut_header, 0},
    {"a message cut in its body", row_message_cut_body, 0},
    {"a message announced huge takes no memory", row_message_announced_huge, 0},
    {"a message length with the highest bit", row_message_length_beyond_any, 0},
    {"a message, time-outs inside, go on", row_message_resumed, SLOW},
    {"a time-out, then a line", row_timeout, SLOW},
    {"time-outs in mid-line, go on", row_timeout_in_line, SLOW},
    {"time-outs in mid-delimiter, go on", row_timeout_in_until, SLOW},
    {"time-outs in a longer look, lines go on", row_timeout_in_peek, SLOW},
    {"bug 38: a time-out covers the call, not the byte", row_timeout_trickle, SLOW | PEER_ACTS},
    {"reset in mid-line", row_reset_in_line, NEEDS_RESET_TRICK},
    {"reset after whole lines", row_reset_after_lines, NEEDS_RESET_TRICK},
    {"reset in mid-message", row_reset_in_message, NEEDS_RESET_TRICK},
    {"write", row_write, 0},
    {"write nothing", row_write_nothing, 0},
    {"write 3,000 pieces at once", row_writev, PEER_ACTS},
    {"write empty pieces", row_writev_empty, 0},
    {"a slow reader gets all in order", row_slow_reader, SLOW | PEER_ACTS},
    {"write past the queue's limit", row_queue_limit, SLOW | PEER_ACTS},
    {"a write longer than the queue", row_longer_than_queue, PEER_ACTS},
    {"a write times out, go on without loss", row_write_timeout,
     SLOW | NEEDS_FULL_PATH | PEER_ACTS},
    {"flush", row_flush, SLOW | PEER_ACTS},
    {"the peer half-closes, we still write", row_half_close_by_peer, 0},
    {"shutdown_write, then the answer", row_shutdown_write, 0},
    {"write after shutdown_write", row_write_after_shutdown, 0},
    {"shutdown_write comes after the queue", row_shutdown_after_queue, SLOW | PEER_ACTS},
    {"bug 29: the peer is gone while we write", row_peer_gone, SLOW},
    {"close with data queued", row_close_with_queue, SLOW},
    {"flush, shutdown_write, read to the end, close", row_orderly_end, PEER_ACTS},
    {"abort resets the peer", row_abort, NEEDS_RESET},
    {"8 MiB both ways at once", row_both_ways, SLOW | PEER_ACTS},
    {"interrupt while reading", row_interrupt_reading, SLOW | SECOND_THREAD},
    {"interrupt while reading with a time-out", row_interrupt_timed_read, SLOW | SECOND_THREAD},
    {"interrupt while writing", row_interrupt_writing, SLOW | NEEDS_FULL_PATH | SECOND_THREAD},
    {"interrupt before the call", row_interrupt_before, 0},
    {"interrupt leaves buffered lines", row_interrupt_keeps_lines, 0},
    {"a signal while reading, go on", row_signal, NEEDS_SIGNALS | SLOW},
    {"a signal with SA_RESTART while reading, go on", row_signal_restart, NEEDS_SIGNALS | SLOW},
    {"a signal while reading with a time-out, go on", row_signal_timed, NEEDS_SIGNALS | SLOW},
    {"a signal while writing, go on", row_signal_writing,
     NEEDS_SIGNALS | SLOW | NEEDS_FULL_PATH | PEER_ACTS},
    {"pause and resume reading", row_pause, NEEDS_POLLER | SLOW},
    {"pause at a time-out and at the end", row_pause_at_end,
     NEEDS_POLLER | NEEDS_WHOLE_READ | SLOW},
    {"pause and resume writing", row_pause_writing, NEEDS_POLLER | SLOW | PEER_ACTS},
    {"byte counts", row_byte_counts, 0},
    {"addresses of both ends", row_addresses, 0},
    {"descriptor", row_descriptor, 0},
    {"the system's code of a failure", row_os_error, NEEDS_RESET_TRICK | NEEDS_SYSTEM},
    {"options", row_options, 0},
    {"options of the socket", row_socket_options, 0},
    {"detach and adopt", row_detach_and_adopt, 0},
    {"trace", row_trace, 0},
};

#define ROW_COUNT (sizeof rows / sizeof rows[0])
#define FACE_COUNT (sizeof scene_faces / sizeof scene_faces[0])

#ifdef _WIN32
// Closing, Wine first sends the end of the stream and then the reset, which the
// other side's Linux does not tell any more.
static bool on_wine(void) {
    return GetProcAddress(GetModuleHandleA("ntdll.dll"), "wine_get_version") != NULL;
}
#endif

// NULL if the row runs on an impaired face, else why it cannot.
static const char *why_not_impaired(const row *r, const face *f) {
    if (f->is_long && getenv("NKT_TEST_ALL") == NULL) return "it waits: NKT_TEST_ALL=1 has it";
    if ((r->needs & NEEDS_SIGNALS) != 0 && f->carrier == CARRIER_PAIR) {
        return "signals do not end waits in virtual time";
    }
    if ((r->needs & NEEDS_WHOLE_READ) != 0 && f->impaired == PIECES) {
        return "it reads in one call what comes in pieces here";
    }
    if ((r->needs & NEEDS_FULL_PATH) != 0 && f->impaired == LATE) {
        return "16 MiB are under way before a writer has to wait";
    }
#ifdef NETKIT_NO_THREADS
    if (f->impaired == LATE) return "what is under way moves by itself with threads only";
#endif
    return NULL;
}

// NULL if the row runs on the face, else why it cannot.
static const char *why_not(const row *r, const face *f) {
    if (f->impaired != BARE && why_not_impaired(r, f) != NULL) return why_not_impaired(r, f);
#ifdef _WIN32
    if (f->carrier == CARRIER_UNIX) return "no Unix-domain sockets in Wine and old Windows";
    if ((r->needs & NEEDS_SIGNALS) != 0) return "signals do not end waits on Windows";
    if ((r->needs & (NEEDS_RESET | NEEDS_RESET_TRICK)) != 0 && f->carrier == CARRIER_TCP &&
        on_wine()) return "Wine ends a stream before it resets it";
#endif
    if ((r->needs & NEEDS_POLLER) != 0 && !f->polled) return "it is about the poller";
    if ((r->needs & NEEDS_RESET) != 0 && f->carrier == CARRIER_UNIX) {
        return "a Unix-domain socket has no reset";
    }
#ifndef __linux__
    if ((r->needs & NEEDS_RESET_TRICK) != 0 && f->carrier == CARRIER_UNIX) {
        return "a Unix-domain socket has no reset";
    }
#endif
    if ((r->needs & NEEDS_SYSTEM) != 0 && f->carrier == CARRIER_PAIR) {
        return "memory makes no system calls";
    }
#ifdef NETKIT_NO_THREADS
    bool writes_beside = r->run == row_both_ways && !f->nonblocking;
    if ((r->needs & SECOND_THREAD) != 0 || writes_beside) return "one thread uses netkit here";
    if ((r->needs & PEER_ACTS) != 0 && (f->carrier == CARRIER_PAIR || f->rot13)) {
        return "its peer is netkit's, and one thread uses netkit here";
    }
#endif
    return NULL;
}

#endif
