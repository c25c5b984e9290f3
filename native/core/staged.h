// A collective between tensors of devices (or of host memory beside them) by a transport that works in host memory.
#pragma once
#include "communicator.h"

namespace zs {

// transport: nullptr in a group of one. Throws CommError and Error. Every rank cuts alike: by the call alone.
void run_staged(ProcessGroup *transport, const CollectiveCall &call, int size, size_t bytes,
                const CollectivePlace &place);

}  // namespace zs
