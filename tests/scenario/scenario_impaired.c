// scenario_impaired.c - the table of scenarios on connections that are impaired
//
//     scenario_impaired           every row on the faces in memory
//     NKT_TEST_ALL=1 scenario_impaired    and on all others, which wait
//
// As scenario.c, with other faces: the tested end is wrapped by a perfect
// network, or moves in small pieces with stalls, or is late. In memory it lives
// by a clock that jumps, so that all the waiting takes no time.

#define NETKIT_IMPLEMENTATION
#define SCENE_IMPAIRED
#include "netkit.h"

#include "rot13_layer.h"
#include "table_run.h"

int main(int argc, char **argv) {
    actor guard = {0};
    if (argc > 1 && strcmp(argv[1], "--list") == 0) {
        list_names();
        return 0;
    }
#ifndef _WIN32
    signal(SIGPIPE, SIG_DFL);       // a library that raises it dies here
#endif
    if (!actor_start(&guard, scene_guard_run)) return 1;
    run_table();
    return test_finish();
}
