#include "block.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "fiber.h"

namespace bk::simt {

Coordinates coordinates;

namespace {

enum class State { runnable, at_barrier, in_warp_operation, returned };

struct Thread {
  Fiber fiber;
  State state = State::returned;
  Index index;
  Site site = {"", 0};
  unsigned mask = 0;
  void* payload = nullptr;
};

// The lanes of a warp that wait for others in a warp operation, and those that have returned.
struct Warp {
  unsigned waiting = 0, returned = 0;
};

struct SharedObject {
  const void* key;
  void* memory;
};

void* poisoned(std::size_t bytes, std::size_t alignment) {
  void* memory = nullptr;
  if (posix_memalign(&memory, std::max(alignment, sizeof(void*)), std::max<std::size_t>(bytes, 1)) != 0) std::abort();
  return std::memset(memory, 0xFF, bytes);
}

// A file of one source has one name in memory; only headers in several sources take the comparison of texts.
bool same_place(Site a, Site b) { return a.line == b.line && (a.file == b.file || std::strcmp(a.file, b.file) == 0); }

std::string describe(Site site) {
  const char* slash = std::strrchr(site.file, '/');
  return std::string(slash ? slash + 1 : site.file) + ":" + std::to_string(site.line);
}

Order order;
std::string failure;

class Block {
 public:
  // True when every thread has returned without a violation.
  bool run(Index block_dim, std::size_t dynamic_bytes, const std::function<void()>& kernel) {
    start(block_dim, dynamic_bytes, kernel);
    while (failure.empty() && turn()) {
    }
    for (SharedObject& object : objects_) std::free(object.memory);
    objects_.clear();
    std::free(dynamic_);
    dynamic_ = nullptr;
    return failure.empty();
  }

  Thread& current() { return *current_; }
  int lane() const { return position_ % kWarpSize; }

  void wait(State state, Site site) {
    current_->state = state;
    current_->site = site;
    current_->fiber.suspend();
  }

  void* shared_object(const void* key, std::size_t bytes, std::size_t alignment) {
    for (const SharedObject& object : objects_) {
      if (object.key == key) return object.memory;
    }
    objects_.push_back({key, poisoned(bytes, alignment)});
    return objects_.back().memory;
  }
  void* dynamic() const { return dynamic_; }

  // Releases the caller's warp operation if all its lanes have arrived; null or what is wrong.
  const char* try_complete(unsigned mask, Complete complete) {
    Warp& warp = warps_[position_ / kWarpSize];
    const int first = position_ - lane(), lanes = threads_in_block_ - first;
    if (lanes < kWarpSize && mask >> lanes != 0) return "the mask names lanes beyond the block";
    if ((mask & warp.returned) != 0) return "the mask names a lane that has returned";
    // Who arrives is compared with one that waits, and everyone once all are there: to compare everyone at each arrival
    // would take longer than the operation.
    if (const unsigned others = mask & warp.waiting) {
      if (const char* wrong = disagreement(*threads_[first + __builtin_ctz(others)], mask)) return wrong;
    }
    warp.waiting |= 1u << lane();
    if ((mask & ~warp.waiting) != 0) return nullptr;
    void* payloads[kWarpSize] = {};
    for (int other = 0; other < kWarpSize; ++other) {
      if ((mask >> other & 1u) == 0) continue;
      if (const char* wrong = disagreement(*threads_[first + other], mask)) return wrong;
      payloads[other] = threads_[first + other]->payload;
    }
    if (const char* wrong = complete(payloads, mask)) return wrong;
    released_ = true;
    warp.waiting &= ~mask;
    for (int other = 0; other < kWarpSize; ++other) {
      if (mask >> other & 1u) threads_[first + other]->state = State::runnable;
    }
    return nullptr;
  }

 private:
  // What keeps a thread that waits from being in the caller's warp operation, or null.
  const char* disagreement(const Thread& thread, unsigned mask) const {
    if (thread.mask != mask) return "lanes of one warp operation disagree about its mask";
    if (!same_place(thread.site, current_->site)) return "lanes of one mask wait at different warp operations";
    return nullptr;
  }

  void start(Index block_dim, std::size_t dynamic_bytes, const std::function<void()>& kernel) {
    threads_in_block_ = static_cast<int>(block_dim.x * block_dim.y * block_dim.z);
    while (static_cast<int>(threads_.size()) < threads_in_block_) threads_.push_back(std::make_unique<Thread>());
    for (int t = 0; t < threads_in_block_; ++t) {
      const unsigned u = static_cast<unsigned>(t);
      threads_[t]->index = {u % block_dim.x, u / block_dim.x % block_dim.y, u / block_dim.x / block_dim.y};
      threads_[t]->state = State::runnable;
      threads_[t]->fiber.begin(kernel);
    }
    warps_.assign((threads_in_block_ + kWarpSize - 1) / kWarpSize, {});
    dynamic_ = poisoned(dynamic_bytes, 128);
    turns_.resize(threads_in_block_);
    std::iota(turns_.begin(), turns_.end(), 0);
    if (order.kind == Order::reverse) std::reverse(turns_.begin(), turns_.end());
    random_.seed(order.seed);
  }

  // Runs threads until none can go on; false when that is the end. The first runnable thread of the order always comes
  // first, so that one warp runs as far ahead of the others as the barriers let it: that is where races show.
  bool turn() {
    if (order.kind == Order::random) std::shuffle(turns_.begin(), turns_.end(), random_);
    for (std::size_t place = 0; place < turns_.size();) {
      position_ = turns_[place];
      current_ = threads_[position_].get();
      ++place;
      if (current_->state != State::runnable) continue;
      coordinates.thread = current_->index;
      current_->fiber.resume();
      if (!failure.empty()) return false;
      if (current_->fiber.finished()) {
        current_->state = State::returned;
        warps_[position_ / kWarpSize].returned |= 1u << lane();
      }
      if (released_) place = 0;
      released_ = false;
    }
    return release_barrier();
  }

  // Called when no thread can run: all wait at one barrier, or all have returned, or the kernel is wrong.
  bool release_barrier() {
    const Thread* waiting = nullptr;
    int returned = 0;
    for (int t = 0; t < threads_in_block_; ++t) {
      const Thread& thread = *threads_[t];
      returned += thread.state == State::returned;
      if (thread.state == State::in_warp_operation) {
        return blame(thread.site, "a warp operation waits for lanes of its mask that never arrive");
      }
      if (thread.state != State::at_barrier) continue;
      if (waiting != nullptr && !same_place(waiting->site, thread.site)) {
        return blame(thread.site,
                     "threads of one block wait at different barriers, here and at " + describe(waiting->site));
      }
      waiting = &thread;
    }
    if (waiting == nullptr) return false;
    if (returned > 0) return blame(waiting->site, std::to_string(returned) + " threads returned before this barrier");
    for (int t = 0; t < threads_in_block_; ++t) threads_[t]->state = State::runnable;
    return true;
  }

  static bool blame(Site site, const std::string& what) {
    failure = describe(site) + ": " + what;
    return false;
  }

  std::vector<std::unique_ptr<Thread>> threads_;  // kept from block to block
  std::vector<Warp> warps_;
  std::vector<int> turns_;
  std::vector<SharedObject> objects_;
  void* dynamic_ = nullptr;
  int threads_in_block_ = 0;
  int position_ = 0;
  bool released_ = false;  // a warp operation has completed: threads earlier in the order may run again
  Thread* current_ = nullptr;
  std::mt19937_64 random_;
};

Block& the_block() {
  static Block block;
  return block;
}

}  // namespace

void set_order(Order next) { order = next; }
const std::string& last_failure() { return failure; }

bool run_grid(Index grid, Index block, std::size_t dynamic_shared_bytes, const std::function<void()>& kernel) {
  failure.clear();
  coordinates.block_dim = block;
  coordinates.grid_dim = grid;
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x; ++x) {
        coordinates.block = {x, y, z};
        if (!the_block().run(block, dynamic_shared_bytes, kernel)) return false;
      }
    }
  }
  return true;
}

void block_barrier(Site site) { the_block().wait(State::at_barrier, site); }

void warp_collective(Site site, unsigned mask, void* payload, Complete complete) {
  Block& block = the_block();
  if ((mask >> block.lane() & 1u) == 0) fail(site, "the mask of a warp operation lacks the calling lane");
  Thread& me = block.current();
  me.state = State::in_warp_operation;
  me.site = site;
  me.mask = mask;
  me.payload = payload;
  if (const char* wrong = block.try_complete(mask, complete)) fail(site, wrong);
  if (me.state == State::in_warp_operation) me.fiber.suspend();
}

void* shared_object(const void* key, std::size_t bytes, std::size_t alignment) {
  return the_block().shared_object(key, bytes, alignment);
}
void* dynamic_shared() { return the_block().dynamic(); }

void fail(Site site, const char* what) {
  failure = describe(site) + ": " + what;
  the_block().current().fiber.suspend();
  std::abort();  // a thread of a failed launch is never resumed
}

}  // namespace bk::simt
