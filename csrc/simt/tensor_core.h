// Tensor cores on the host: fragments loaded and multiplied, in the layouts that CUDA documents for ldmatrix and mma.sync.
#pragma once

#include "../model/number.h"
#include "cuda_on_host.h"

namespace bk::simt {

// The nearest bfloat16, ties to even.
inline std::uint32_t narrow(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return value != value ? 0x7fff : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

// What cvt.rn.bf16x2.f32 makes of (high, low).
inline std::uint32_t narrow(float low, float high) { return narrow(high) << 16 | narrow(low); }

struct MatrixLane {
  float* sum;
  const std::uint32_t* left;
  const std::uint32_t* right;
  int rows, columns;
};

// D += A B as mma.sync.m16n8k16 has it for bfloat16, of fragments i and j of all lanes: lane = 4·group + place; A (16, 16) in rows
// group and group + 8, words place and place + 4; B (16, 8) in column group, words place and place + 4; D (16, 8) in
// rows group and group + 8, columns 2·place and 2·place + 1. Sums are cut off and not rounded, the worst that
// hardware does. No kernel can get this wrong: hence it is not watched.
__attribute__((no_sanitize("address", "undefined"), optimize("O3"))) inline void multiply_fragments(
    void* const* payloads, int i, int j) {
  float left[16][16], right[16][8];  // [row][term], [term][column]
  for (int lane = 0; lane < kWarpSize; ++lane) {
    const auto* mine = static_cast<MatrixLane*>(payloads[lane]);
    for (int half = 0; half < 2; ++half) {
      const auto term = [half](std::uint32_t word) {
        return widen(BFloat16{static_cast<std::uint16_t>(word >> 16 * half)});
      };
      const int group = lane / 4, k = lane % 4 * 2 + half;
      for (int word = 0; word < 4; ++word)
        left[group + word % 2 * 8][k + word / 2 * 8] = term(mine->left[4 * i + word]);
      for (int word = 0; word < 2; ++word) right[k + word * 8][group] = term(mine->right[2 * j + word]);
    }
  }
  for (int row = 0; row < 16; ++row) {
    double exact[8];
    const auto sum = [&](int column) -> float& {
      const auto* lane = static_cast<MatrixLane*>(payloads[row % 8 * 4 + column / 2]);
      return lane->sum[(i * lane->columns + j) * 4 + row / 8 * 2 + column % 2];
    };
    for (int column = 0; column < 8; ++column) exact[column] = static_cast<double>(sum(column));
    for (int k = 0; k < 16; ++k) {
      const double by = static_cast<double>(left[row][k]);
      for (int column = 0; column < 8; ++column) exact[column] += by * static_cast<double>(right[k][column]);
    }
    for (int column = 0; column < 8; ++column) {
      float cut = static_cast<float>(exact[column]);
      if (std::isfinite(cut) && std::fabs(static_cast<double>(cut)) > std::fabs(exact[column]))
        cut = std::nextafter(cut, 0.0f);
      sum(column) = cut;
    }
  }
}

inline const char* complete_matrix(void* const* payloads, unsigned mask) {
  if (mask != 0xffffffffu) return "a matrix product needs the whole warp";
  const auto* lane = static_cast<MatrixLane*>(payloads[0]);
  for (int i = 0; i < lane->rows; ++i) {
    for (int j = 0; j < lane->columns; ++j) multiply_fragments(payloads, i, j);
  }
  return nullptr;
}

// sum[i][j] += left[i] · right[j] for rows × columns fragments, one behind the other: as many mma.sync, but waited for
// once.
inline void mma_m16n8k16(float* sum, const std::uint32_t* left, int rows, const std::uint32_t* right, int columns,
                         BK_SIMT_SITE) {
  MatrixLane lane{sum, left, right, rows, columns};
  warp_collective({file, line}, 0xffffffffu, &lane, &complete_matrix);
}

struct MatrixRow {
  std::uint32_t* word;
  const void* row;
};

// Of matrix i lanes 8·i … 8·i + 7 bring the rows, of four words each; a lane gets word lane % 4 of row lane / 4.
inline const char* complete_load(void* const* payloads, unsigned mask) {
  if (mask != 0xffffffffu) return "loading matrices needs the whole warp";
  for (int lane = 0; lane < kWarpSize; ++lane) {
    for (int i = 0; i < 4; ++i) {
      const void* row = static_cast<MatrixRow*>(payloads[8 * i + lane / 4])->row;
      if (reinterpret_cast<std::uintptr_t>(row) % 16 != 0) return "a row of a matrix is not aligned to 16 bytes";
      static_cast<MatrixRow*>(payloads[lane])->word[i] = static_cast<const std::uint32_t*>(row)[lane % 4];
    }
  }
  return nullptr;
}

// ldmatrix.x4
inline void ldmatrix_x4(std::uint32_t (&word)[4], const void* row, BK_SIMT_SITE) {
  MatrixRow lane{word, row};
  warp_collective({file, line}, 0xffffffffu, &lane, &complete_load);
}

}  // namespace bk::simt
