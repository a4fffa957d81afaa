// The cost model: what each algorithm computes and moves. Counts are of the leading terms, as the comments derive them.
#pragma once

#include "plan.h"

namespace bk::plan {

// Input space: per step one product H = X Wᵀ and one g = U W.
Cost dense_cost(const Problem& problem);

// How many flops a device does in the time it moves one byte; weighs the two halves of a Cost against each other.
double flops_per_byte(Device device);

}  // namespace bk::plan
