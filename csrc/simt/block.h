// Runs the threads of a block, one fiber each, and watches what a GPU would leave undefined:
//
//   * a barrier that some thread never reaches, because it has returned or waits at another one;
//   * a warp operation whose mask lacks the caller, or names lanes that never arrive;
//   * shared memory read before it is written: each block's is fresh and full of 0xFF (NaN, −1);
//   * out-of-bounds accesses: every shared object is an allocation of its own, so AddressSanitizer sees its ends;
//   * races between barriers: warps run as far ahead of each other as they can, in one of several orders, and a right
//     kernel gives the same bits in all.
//
// A violation ends the launch with an error; last_failure() says in a sentence what and where.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

namespace bk::simt {

constexpr int kWarpSize = 32;

struct Index {
  unsigned x = 1, y = 1, z = 1;
};

// Which of a block's runnable threads goes first. random: a new order after each barrier, from `seed`.
struct Order {
  enum Kind { forward, reverse, random } kind = forward;
  std::uint64_t seed = 0;
};
void set_order(Order order);

// Runs `kernel` once per thread of every block. False after a violation.
bool run_grid(Index grid, Index block, std::size_t dynamic_shared_bytes, const std::function<void()>& kernel);
const std::string& last_failure();

// ---- called by the running thread -----------------------------------------------------------------------------------

// Where in the source a barrier or warp operation stands.
struct Site {
  const char* file;
  int line;
};

struct Coordinates {
  Index thread, block, block_dim, grid_dim;
};
extern Coordinates coordinates;

void block_barrier(Site site);

// A warp operation. Each lane of `mask` brings `payload`; when all have arrived at the same site with the same mask,
// the last of them runs `complete(payloads, mask)` (payloads[lane], null outside the mask) and all go on. `complete`
// returns null, or what is wrong. Shuffles, votes and matrix fragments are all of this kind.
using Complete = const char* (*)(void* const* payloads, unsigned mask);
void warp_collective(Site site, unsigned mask, void* payload, Complete complete);

// The block's object behind `key`, made by the first thread that asks.
void* shared_object(const void* key, std::size_t bytes, std::size_t alignment);
void* dynamic_shared();

// Ends the launch: never returns to the kernel, whose stack is dropped as it is.
[[noreturn]] void fail(Site site, const char* what);

}  // namespace bk::simt
