// The same attention in bf16 with float sums: the control of the 8-bit kernel, with the same loop and lists.
#pragma once
#include "stream.cuh"

struct FloatRows {
  static constexpr int PACKED = 16;
  float maximum[2], sum[2], alpha[2];  // of the two rows of 64 that a thread holds
  bool moved;

  __device__ FloatRows() {
#pragma unroll
    for (int r = 0; r < 2; ++r) maximum[r] = NONE, sum[r] = 0.f;
  }

  __device__ void step(int, float (&s)[32], const float (&scale)[1], const uint64_t (&valid)[1]) {
    if (valid[0] != ~0ull) {
      uint64_t bits = valid[0] >> (threadIdx.x % 4 * 2);
#pragma unroll
      for (int i = 0; i < 32; ++i)
        if (!(bits >> (i / 4 * 8 + i % 2) & 1)) s[i] = __int_as_float(0xFF800000);  // -inf
    }
    float now[2], more[2] = {0.f, 0.f};
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float most = s[2 * r];
#pragma unroll
      for (int i = 0; i < 32; ++i)
        if (i / 2 % 2 == r) most = fmaxf(most, s[i]);
      now[r] = fmaxf(maximum[r], most * scale[0]);
      now[r] = fmaxf(now[r], __shfl_xor_sync(~0u, now[r], 1));
      now[r] = fmaxf(now[r], __shfl_xor_sync(~0u, now[r], 2));
      alpha[r] = exp2_fast(maximum[r] - now[r]);
      maximum[r] = now[r];
    }
    moved = __any_sync(~0u, alpha[0] != 1.f || alpha[1] != 1.f);
#pragma unroll
    for (int i = 0; i < 32; ++i) {
      s[i] = exp2_fast(fmaf(s[i], scale[0], -now[i / 2 % 2]));
      more[i / 2 % 2] += s[i];
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) sum[r] = fmaf(sum[r], alpha[r], more[r]);
  }

  __device__ float total(int r) const {
    const float all = sum[r] + __shfl_xor_sync(~0u, sum[r], 1);
    return all + __shfl_xor_sync(~0u, all, 2);
  }

  // Pairs as wgmma reads them from registers: for 16 keys (row, row + 8) x (first 8 keys, last 8).
  static __device__ void pack(const float (&s)[32], uint32_t (&p)[16]) {
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      const float* from = s + i / 2 * 4 + i % 2 * 2;
      asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(p[i]) : "f"(from[1]), "f"(from[0]));
    }
  }

  template <int SIZE>
  __device__ void rescale(float (&o)[SIZE]) const {
    if (moved) {
#pragma unroll
      for (int i = 0; i < SIZE; ++i) o[i] *= alpha[i / 2 % 2];
    }
  }
};

struct Bf16Queries {
  static constexpr bool HELD = false;
  uint32_t at;
  __device__ explicit Bf16Queries(const uint8_t* tile) : at(shared_address(tile)) {}
};

template <int WIDTH>
struct Bf16 {
  static constexpr int D = WIDTH, KB = 1, TILE = 2 * BLOCK * D;
  static constexpr int PANEL = BLOCK * 128;  // 64 rows of 64 channels
  using Number = float;
  using Rows = FloatRows;
  using Queries = Bf16Queries;
  static __device__ float start() { return 0.f; }

  static __device__ void scores(float (&s)[32], const Queries& q, uint32_t k) {
#pragma unroll
    for (int step = 0; step < D / 16; ++step) {
      const int at = step / 4 * PANEL;
      wgmma_bf16(s, descriptor(q.at + at, 128) + 2 * (step % 4), descriptor(k + at, 128) + 2 * (step % 4));
    }
  }
  static __device__ void values(float (&o)[D / 2], const uint32_t (&p)[16], uint32_t v) {
#pragma unroll
    for (int step = 0; step < 4; ++step) wgmma_bf16(o, p + step * 4, descriptor(v, 128) + 2 * step);
  }
};
