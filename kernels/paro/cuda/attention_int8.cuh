// Block-sparse attention in 8 bits for sm_90a: the function of numerics.py, one row of 64 queries a warpgroup.
//
// S = Q K^T by wgmma s8 (queries and keys from shared memory), P = round(255 exp(S - maximum)) packed to u8 in
// registers, O += P V by wgmma u8 x s8 (values transposed, their keys in the order in which P's registers lie). O stays
// int32: when a row's maximum moves it is rescaled in place, and before 127 x sum(P) could pass 2^31 too.
//
// Several thread blocks share a multiprocessor: one's softmax runs while another's products do. Inside one, the
// products of S for the next step and of O for this one are issued together, and the softmax of the next step runs
// while O's are computed.
#pragma once
#include "walk.cuh"

constexpr float BIAS = 12582912.f;   // 1.5 x 2^23: an int32 sum that starts at its bit pattern reads as BIAS + sum
constexpr int BIAS_BITS = 0x4B400000;
constexpr float GUARD = 2.f;         // steps of S that the maximum is taken too high, so that rounding never passes 255
constexpr float NONE = -1e30f;       // a maximum over no keys; finite, so that differences stay numbers
constexpr float ROUND = 8388608.f;   // 2^23: adding it leaves the nearest integer in the low bits
constexpr int CHECK_BLOCKS = 128;    // key blocks between two looks at whether O could overflow
constexpr float FULL_SUM = 16909320.f;  // 2^31 / 127

template <int KB>
struct Softmax {
  float top[2], log_top[2], maximum[2], sum[2], alpha[2];  // of the two rows of 64 that a thread holds
  bool moved;

  __device__ Softmax() {
#pragma unroll
    for (int r = 0; r < 2; ++r) top[r] = 255.f, log_top[r] = 7.994353437f, maximum[r] = NONE, sum[r] = 0.f;
  }

  // Scores (biased integers) to P, in the low byte; updates maximum, sum and alpha.
  __device__ void step(int t, int (&s)[32 * KB], const float (&scale)[KB], const uint64_t (&valid)[KB]) {
    const int lane = threadIdx.x % 32;
    float shrink[2] = {1.f, 1.f};
    if (t * KB % CHECK_BLOCKS == 0) look_for_overflow(shrink);
#pragma unroll
    for (int part = 0; part < KB; ++part) {
      if (valid[part] != ~0ull) {
        uint64_t bits = valid[part] >> (lane % 4 * 2);
#pragma unroll
        for (int i = 0; i < 32; ++i)
          if (!(bits >> (i / 4 * 8 + i % 2) & 1)) s[part * 32 + i] = (int)0xFF800000;  // -inf
      }
    }
    float now[2] = {maximum[0], maximum[1]};
#pragma unroll
    for (int part = 0; part < KB; ++part) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        float most = __int_as_float(s[part * 32 + 2 * r]);
#pragma unroll
        for (int i = 0; i < 32; ++i)
          if (i / 2 % 2 == r) most = fmaxf(most, __int_as_float(s[part * 32 + i]));
        now[r] = fmaxf(now[r], (most - BIAS) * scale[part]);
      }
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      now[r] = fmaxf(now[r], __shfl_xor_sync(~0u, now[r], 1));
      now[r] = fmaxf(now[r], __shfl_xor_sync(~0u, now[r], 2));
      alpha[r] = exp2_fast(maximum[r] - now[r]) * shrink[r];
    }
    moved = __any_sync(~0u, alpha[0] != 1.f || alpha[1] != 1.f);
    float more[2] = {0.f, 0.f};
#pragma unroll
    for (int part = 0; part < KB; ++part) {
      float minus[2];
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        maximum[r] = now[r];
        minus[r] = -fmaf(BIAS + GUARD, scale[part], now[r] - log_top[r]);
      }
#pragma unroll
      for (int i = 0; i < 32; ++i) {
        float e = exp2_fast(fmaf(__int_as_float(s[part * 32 + i]), scale[part], minus[i / 2 % 2]));
        more[i / 2 % 2] += e;
        s[part * 32 + i] = __float_as_int(e + ROUND);
      }
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) sum[r] = fmaf(sum[r], alpha[r], more[r]);
  }

  // A row whose sum of P nears what int32 holds for O goes on with P of half the size: factors for sum and O.
  __device__ void look_for_overflow(float (&shrink)[2]) {
    const float room = FULL_SUM - 255.f * BLOCK * (CHECK_BLOCKS + 2 * KB);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float all = sum[r] + __shfl_xor_sync(~0u, sum[r], 1);
      all += __shfl_xor_sync(~0u, all, 2);
      float next = all > room ? floorf(top[r] * 0.5f) : top[r];
      shrink[r] = next / top[r];
      top[r] = next;
      log_top[r] = log2f(next);
    }
  }

  // The low bytes as wgmma reads them from registers: for 32 keys (row, row + 8) x (first 16 keys, last 16).
  static __device__ void pack(const int (&s)[32 * KB], uint32_t (&p)[8 * KB]) {
#pragma unroll
    for (int i = 0; i < 8 * KB; ++i) {
      const int* from = s + i / 4 * 16 + i / 2 % 2 * 8 + i % 2 * 2;
      p[i] = __byte_perm(__byte_perm(from[0], from[1], 0x0040), __byte_perm(from[4], from[5], 0x0040), 0x5410);
    }
  }

  template <int SIZE>
  __device__ void rescale(int (&o)[SIZE]) const {
    if (moved) {
#pragma unroll
      for (int i = 0; i < SIZE; ++i) o[i] = __float2int_rn(__int2float_rn(o[i]) * alpha[i / 2 % 2]);
    }
  }
};

template <int D, int KB, int STAGES, int CTAS>
__device__ __forceinline__ void attend(const Arguments& p) {
  constexpr int TILE = BLOCK * D;
  extern __shared__ uint8_t raw[];
  uint8_t* s_q = reinterpret_cast<uint8_t*>((reinterpret_cast<uintptr_t>(raw) + 1023) & ~uintptr_t(1023));
  Row at(p);
  Ring<TILE, KB, STAGES> ring;
  ring.slots = s_q + TILE;
  ring.full = reinterpret_cast<uint64_t*>(ring.slots + STAGES * ring.STAGE);
  ring.empty = ring.full + STAGES;
  uint64_t* q_full = ring.empty + STAGES;
  const int64_t tile0 = (int64_t)at.batch_head * p.num_blocks;
  ring.k = p.k + tile0 * TILE;
  ring.v = p.v + tile0 * TILE;
  ring.column = at.column;
  ring.count = at.count;
  const int steps = (at.count + KB - 1) / KB;

  if (threadIdx.x == 0) {
    ring.init();
    barrier_init(q_full, 1);
    barrier_init_fence();
  }
  __syncthreads();
  if (threadIdx.x == 0 && steps > 0) {  // no copy may be on its way when the block ends
    barrier_expect(q_full, TILE);
    bulk_copy(s_q, p.q + (tile0 + at.row) * TILE, TILE, q_full);
    for (int t = 0; t < min(STAGES, steps); ++t) {
      int columns[KB];
      for (int part = 0; part < KB; ++part) columns[part] = ring.column_of(t, part);
      ring.fill(columns);
    }
  }
  __syncwarp();

  const float q_step = p.q_step[tile0 + at.row];
  const KeyMeta* metas = p.k_meta + tile0;
  Softmax<KB> softmax;
  int o[D / 2];
#pragma unroll
  for (int i = 0; i < D / 2; ++i) o[i] = 0;

  int s[32 * KB];
  uint32_t packed[8 * KB];
  float scale[KB];
  uint64_t valid[KB];
  int coming[KB];     // columns two steps ahead of the softmax, and their metas one ahead: both come from far
  uint4 ahead[KB];
  auto load_columns = [&](int t) {
#pragma unroll
    for (int part = 0; part < KB; ++part) coming[part] = ring.column_of(t, part);
  };
  auto load_metas = [&] {
#pragma unroll
    for (int part = 0; part < KB; ++part) ahead[part] = __ldg(reinterpret_cast<const uint4*>(metas + coming[part]));
  };
  auto take_metas = [&](int t) {
#pragma unroll
    for (int part = 0; part < KB; ++part) {
      scale[part] = fmaxf(__uint_as_float(ahead[part].x) * q_step, 1e-35f);
      valid[part] = t * KB + part < at.count ? (uint64_t)ahead[part].w << 32 | ahead[part].z : 0;
    }
  };
  auto multiply_scores = [&](int slot) {
#pragma unroll
    for (int i = 0; i < 32 * KB; ++i) s[i] = BIAS_BITS;
    const uint64_t a = descriptor(shared_address(s_q), D);
    const uint64_t b = descriptor(shared_address(ring.slots + slot * ring.STAGE), D);
    pin(s);
    wgmma_fence();
#pragma unroll
    for (int step = 0; step < D / 32; ++step) wgmma_s8(s, a + 2 * step, b + 2 * step);
    wgmma_commit();
  };
  auto multiply_values = [&](int slot) {
    pin(o);
    wgmma_fence();
#pragma unroll
    for (int part = 0; part < KB; ++part) {
      const uint64_t b = descriptor(shared_address(ring.slots + slot * ring.STAGE + (KB + part) * TILE), BLOCK);
#pragma unroll
      for (int step = 0; step < 2; ++step) wgmma_u8s8(o, packed + part * 8 + step * 4, b + 2 * step);
    }
    wgmma_commit();
  };

  if (steps > 0) {
    load_columns(0);
    load_metas();
    load_columns(1);
    take_metas(0);
    load_metas();
    load_columns(2);
    barrier_wait(q_full, 0);
    barrier_wait(ring.full, 0);
    multiply_scores(0);
    wgmma_wait<0>();
    pin(s);
    softmax.step(0, s, scale, valid);
    softmax.pack(s, packed);
    int slot = 0, phase = 0;
    for (int t = 0; t + 1 < steps; ++t) {
      const int next_slot = slot + 1 == STAGES ? 0 : slot + 1;
      phase ^= next_slot == 0;
      take_metas(t + 1);
      load_metas();
      load_columns(t + 3);
      barrier_wait(ring.full + next_slot, phase);
      multiply_scores(next_slot);
      multiply_values(slot);
      wgmma_wait<1>();
      pin(s);
      softmax.step(t + 1, s, scale, valid);
      pin(s);
      // The slot of the step before: all warps have left it. This branch stands here also because the compiler moves
      // a wait up to the last one, and the softmax has to come before the wait.
      if (threadIdx.x == 0 && t >= 1 && t - 1 + STAGES < steps) {
        int columns[KB];
        for (int part = 0; part < KB; ++part) columns[part] = ring.column_of(t - 1 + STAGES, part);
        ring.fill(columns);
      }
      __syncwarp();
      wgmma_wait<0>();
      pin(o);
      if (threadIdx.x % 32 == 0) barrier_arrive(ring.empty + slot);
      softmax.rescale(o);
      softmax.pack(s, packed);
      slot = next_slot;
    }
    multiply_values(slot);
    wgmma_wait<0>();
    pin(o);
  }

  __syncthreads();
  float inverse[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float all = softmax.sum[r] + __shfl_xor_sync(~0u, softmax.sum[r], 1);
    all += __shfl_xor_sync(~0u, all, 2);
    inverse[r] = all > 0.f ? 1.f / all : 0.f;
  }
  const float* v_step = p.v_step + (int64_t)at.batch_head * D + threadIdx.x % 4 * 2;
  store_rows<D>(p, at, ring.slots, [&](int i) { return o[i] * inverse[i / 2 % 2] * v_step[i / 4 * 8 + i % 2]; });
}
