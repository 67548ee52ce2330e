// fault_posix.c - the scenario table on a system where every call fails in turn
//
// See fault.h for what is done and what must hold. A table of its own has rows
// for what no row of the scenario table calls.
//
//     fault_posix                     a sample: some rows
//     fault_posix with -DFAULT_ALL    every row

#define NETKIT_IMPLEMENTATION
#include "netkit.h"

#include "fault_table.h"
#include "rot13_layer.h"

int main(void) {
    return fault_main(plan(), excuses, EXCUSE_COUNT);
}
