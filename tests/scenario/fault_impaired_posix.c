// fault_impaired_posix.c - the same on impaired connections, where time jumps
//
// As fault_posix.c, on the faces in memory of scenario_impaired.c: what wraps,
// breaks into pieces and delays meets a lack of memory, and the virtual clock's
// tables fail like the system's.

#define NETKIT_IMPLEMENTATION
#define SCENE_IMPAIRED
#include "netkit.h"

#include "fault_table.h"
#include "rot13_layer.h"

int main(void) {
    // The faces over TCP are fault_posix.c's, and wait in real time.
    unsetenv("NKT_TEST_ALL");
    return fault_main(plan(), excuses, EXCUSE_COUNT);
}
