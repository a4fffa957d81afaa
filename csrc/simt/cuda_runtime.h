// Found instead of CUDA's own header when a .cu is compiled for the host (csrc/simt comes first on the include path).
#pragma once

#include "cuda_on_host.h"
