// udp_scenario_impaired.c - the datagram table on handles that are impaired
//
//     udp_scenario_impaired           every row on the faces in memory
//     NKT_TEST_ALL=1 udp_scenario_impaired    and on all others, which wait
//
// As udp_scenario.c, with other faces: the handle under test is wrapped by a
// perfect network, or is late. In memory it lives by a clock that jumps.

#define NETKIT_IMPLEMENTATION
#define SCENE_IMPAIRED
#include "netkit.h"

#include "udp_table_run.h"
#include "xor_layer.h"

int main(int argc, char **argv) {
    return run_table(argc, argv);
}
