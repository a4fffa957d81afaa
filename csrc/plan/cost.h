// The cost model: what each algorithm computes and moves. Counts are of the leading terms, as the comments derive them.
#pragma once

#include "plan.h"

namespace bk::plan {

// Input space: per step one product H = X Wᵀ and one g = U W.
Cost dense_cost(const Problem& problem);

// Input space: per step one product H = X Wᵀ, and the rows of W whose gates flipped.
Cost half_sparse_cost(const Problem& problem);

// Neuron space: G = W Wᵀ, H and the first V before all steps, C W after them; per step the rows of G whose gates
// flipped, or one product with G for smooth φ.
Cost gram_cost(const Problem& problem);

}  // namespace bk::plan
