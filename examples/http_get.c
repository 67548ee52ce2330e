// http_get.c - fetches a page by HTTP/1.1
//
// Shows a request, lines (the headers) and then bytes (the body) read from the
// same connection, and one time-out for each read. Give it an address,
// "localhost" or a Unix-domain socket.
//
//     cc -I. examples/http_get.c -o http_get -pthread
//     ./http_get localhost:8080 /index.html page.html
//     ./http_get unix:/run/docker.sock /version
//
// Prints the status and the headers to stderr, the body to the file, or else to
// stdout.

#define NETKIT_IMPLEMENTATION
#include "netkit.h"
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TO_THE_END UINT64_MAX

static int copy(nkt_conn *conn, uint64_t len, FILE *out) {
    static char block[65536];
    while (len > 0) {
        ptrdiff_t got = nkt_conn_read(conn, block, len < sizeof block ? (size_t)len : sizeof block);
        if (got == NKT_EOF) return len > TO_THE_END / 2 ? NKT_OK : NKT_ETRUNCATED;
        if (got < 0) return (int)got;
        if (fwrite(block, 1, (size_t)got, out) < (size_t)got) return NKT_EOS;
        len -= (uint64_t)got;
    }
    return NKT_OK;
}

// Each chunk is a line with its length in hex, that many bytes and an empty
// line.
static int copy_chunks(nkt_conn *conn, FILE *out) {
    for (;;) {
        nkt_str line;
        int err = nkt_conn_read_line(conn, &line);
        if (err < 0) return err;
        if (!isxdigit((unsigned char)line.ptr[0])) return NKT_EPROTO;
        uint64_t len = strtoull(line.ptr, NULL, 16);
        if (len > TO_THE_END / 2) return NKT_EPROTO;
        if (len == 0) return NKT_OK;
        err = copy(conn, len, out);
        if (err == NKT_OK) err = nkt_conn_read_line(conn, &line);
        if (err < 0) return err;
    }
}

// The value if the line is this header (given in small letters), else NULL.
static const char *header(const char *line, const char *name) {
    for (; *name != '\0'; name++, line++)
        if (tolower((unsigned char)*line) != *name) return NULL;
    return line + strspn(line, " \t");
}

static int get(nkt_conn *conn, const char *host, const char *path, FILE *out) {
    uint64_t len = TO_THE_END;
    bool chunked = false, found = false;
    nkt_str line, request[5] = {nkt_str_of("GET "), nkt_str_of(path),
                                nkt_str_of(" HTTP/1.1\r\nHost: "), nkt_str_of(host),
                                nkt_str_of("\r\nConnection: close\r\n\r\n")};
    int err = nkt_conn_writev(conn, request, 5);
    while (err == NKT_OK && (err = nkt_conn_read_line(conn, &line)) == NKT_OK && line.len > 0) {
        fprintf(stderr, "%s\n", line.ptr);
        if (nkt_str_begins(line, "HTTP/1.1 2")) found = true;
        const char *value = header(line.ptr, "transfer-encoding:");
        if (value != NULL) chunked = strcmp(value, "chunked") == 0;
        if ((value = header(line.ptr, "content-length:")) != NULL) {
            len = strtoull(value, NULL, 10);
            if (!isdigit((unsigned char)value[0]) || len > TO_THE_END / 2) err = NKT_EPROTO;
        }
    }
    if (err == NKT_OK) err = chunked ? copy_chunks(conn, out) : copy(conn, len, out);
    return err < 0 || found ? err : NKT_ENOTFOUND;
}

int main(int argc, char **argv) {
    if (argc < 2) {
        fprintf(stderr, "usage: http_get host[:port] [path [file]]\n");
        return 2;
    }
    nkt_connect_report report;
    nkt_connect_opts opts = {0};
    opts.default_port = 80;
    opts.timeout_ms = 10000;
    opts.stream.read_timeout_ms = 10000;
    opts.report = &report;
    nkt_conn *conn;
    if (nkt_connect(argv[1], &opts, &conn) < 0) {
        fprintf(stderr, "%s\n", report.text);
        return 1;
    }
    FILE *out = argc > 3 ? fopen(argv[3], "wb") : stdout;
    const char *host = strncmp(argv[1], "unix:", 5) == 0 ? "localhost" : argv[1];
    int err = out == NULL ? NKT_EACCES : get(conn, host, argc > 2 ? argv[2] : "/", out);
    if (out != NULL && fclose(out) != 0 && err == NKT_OK) err = NKT_EOS;
    if (err < 0) fprintf(stderr, "http_get: %s\n", nkt_strerror(err));
    nkt_conn_close(conn);
    return err < 0;
}
