// scenario.c - one table of scenarios, run on every face of a connection
//
//     scenario                    every row on every face
//     scenario --list             the names of the rows and of the faces
//     scenario --many-open        (POSIX) with descriptors above 5,000
//
// Every row and face is a test named "row / face"; NKT_TEST_ONLY picks some.
// What a face cannot do is in the table with the reason, is printed, and is
// counted: a row is never left out silently. Built of this file and
// rot13_layer.c, which sees the declarations only. See scene.h.

#define NETKIT_IMPLEMENTATION
#include "netkit.h"

#include "table_run.h"

#ifndef _WIN32
    #include <fcntl.h>
    #include <sys/resource.h>
#endif

// Not a row: what the layer puts on the wire, and input that came before it.
static void test_layer_on_the_wire(void) {
    TEST("rot13: the wire is turned, also what was buffered before the layer") {
        scene s;
        nkt_str line;
        if (scene_init(&s, &scene_faces[0]) && scene_open(&s)) {
            peer_say(&s.b, "uryyb\nj");
            CHECK_INT(nkt_conn_peek(s.a, 7, &line), NKT_OK);
            CHECK_INT(rot13_push(s.a), NKT_OK);
            CHECK_LINE(&s, "hello");
            peer_say(&s.b, "beyq\n");
            CHECK_LINE(&s, "world");
            CHECK_INT(whole_say(&s, "Answer\n"), NKT_OK);
            CHECK_PEER(&s, "Nafjre\n");
        }
        scene_free(&s);
    }
    TEST("rot13: what was buffered before the layer, with the end behind it") {
        scene s;
        nkt_str line;
        if (scene_init(&s, &scene_faces[0]) && scene_open(&s)) {
            peer_say(&s.b, "uryyb\njbeyq");
            peer_finish(&s.b);
            CHECK_INT(nkt_conn_peek(s.a, 100, &line), NKT_OK);
            CHECK_INT(rot13_push(s.a), NKT_OK);
            CHECK_LINE(&s, "hello");
            CHECK_LINE(&s, "world");
            CHECK_END(&s, NKT_EOF);
        }
        scene_free(&s);
    }
}

#ifndef _WIN32
// Takes every descriptor below 5,000, so that a select() anywhere would fail.
static bool take_descriptors(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return false;
    if (limit.rlim_cur < 6000) {
        limit.rlim_cur = 6000;
        if (limit.rlim_max < 6000) limit.rlim_max = 6000;
        if (setrlimit(RLIMIT_NOFILE, &limit) != 0) return false;
    }
    int fd = open("/dev/null", O_RDONLY);
    while (fd >= 0 && fd < 5000) fd = dup(fd);
    return fd >= 0;
}
#endif

int main(int argc, char **argv) {
    actor guard = {0};
    if (argc > 1 && strcmp(argv[1], "--list") == 0) {
        list_names();
        return 0;
    }
#ifndef _WIN32
    signal(SIGPIPE, SIG_DFL);       // a library that raises it dies here
    if (argc > 1 && strcmp(argv[1], "--many-open") == 0 && !take_descriptors()) {
        printf("cannot open 5,000 descriptors here\n");
        return 1;
    }
#endif
    if (!actor_start(&guard, scene_guard_run)) return 1;
    run_table();
    test_layer_on_the_wire();
    return test_finish();
}
