// The engine that a test is compiled for. Both headers define the same: the ops, `under_all_orders`, `each_level`, and
// the shapes at which their engine takes a way of its own.
#pragma once

#if defined(BK_TEST_CPU)
#include "engine_cpu.h"
#else
#include "engine_cuda.h"
#endif
