// udp_scenario.c - one table of datagram scenarios, run on every face
//
//     udp_scenario                every row on every face
//     udp_scenario --list         the names of the rows and of the faces
//
// What a face cannot have is told with the reason and counted. Built of this
// file and xor_layer.c. See udp_table.h.

#define NETKIT_IMPLEMENTATION
#include "netkit.h"

#include "udp_table_run.h"
#include "xor_layer.h"

int main(int argc, char **argv) {
    return run_table(argc, argv);
}
