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

#include "table.h"

#ifndef _WIN32
    #include <fcntl.h>
    #include <sys/resource.h>
#endif

static void run_row(const row *r, const face *f) {
    char name[160];
    snprintf(name, sizeof name, "%s / %s", r->name, f->name);
    TEST(name) {
        scene s;
        if (scene_init(&s, f)) {
            r->run(&s);
            scene_free(&s);
        }
    }
}

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

// Whole faces first, then the rows that some faces cannot have; how many.
static int print_exclusions(void) {
    bool whole[FACE_COUNT];
    int count = 0;
    for (size_t k = 0; k < FACE_COUNT; k++) {
        const char *why = why_not(&rows[0], &scene_faces[k]);
        whole[k] = why != NULL;
        for (size_t i = 0; i < ROW_COUNT && whole[k]; i++) {
            whole[k] = why_not(&rows[i], &scene_faces[k]) == why;
        }
        if (whole[k]) printf("not here: face \"%s\": %s\n", scene_faces[k].name, why);
        if (whole[k]) count += (int)ROW_COUNT;
    }
    for (size_t i = 0; i < ROW_COUNT; i++) {
        const char *said = NULL;
        for (size_t k = 0; k < FACE_COUNT; k++) {
            const char *why = why_not(&rows[i], &scene_faces[k]);
            if (why == NULL || whole[k]) continue;
            if (said == NULL) printf("not on every face: %s (%s):", rows[i].name, why);
            printf(" %s;", scene_faces[k].name);
            said = why;
            count++;
        }
        if (said != NULL) printf("\n");
    }
    return count;
}

static void list_names(void) {
    for (size_t i = 0; i < ROW_COUNT; i++) printf("row %s\n", rows[i].name);
    for (size_t i = 0; i < FACE_COUNT; i++) printf("face %s\n", scene_faces[i].name);
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
    for (size_t i = 0; i < ROW_COUNT; i++) {
        for (size_t k = 0; k < FACE_COUNT; k++) {
            if (why_not(&rows[i], &scene_faces[k]) == NULL) run_row(&rows[i], &scene_faces[k]);
        }
    }
    test_layer_on_the_wire();
    int excluded = print_exclusions();
    printf("%u rows, %u faces, %d rows on faces that cannot have them\n", (unsigned)ROW_COUNT,
           (unsigned)FACE_COUNT, excluded);
    return test_finish();
}
