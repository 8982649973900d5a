// The loop of an attention kernel: one row of 64 queries a thread block of one warpgroup.
//
// Several thread blocks share a multiprocessor: one's softmax runs while another's products do. Inside one, the
// products of S for the next step are issued, O is rescaled while they are computed, the products of O for this step are
// issued, and the softmax of the next step runs while these are computed. A rescaling costs all four warps, since a
// warpgroup's products start when its last warp does: one of 64 rows has a new maximum in half of a row's steps. Policy says in which numbers: int8.cuh, bf16.cuh.
#pragma once
#include "stream.cuh"


template <typename Policy, int STAGES>
__device__ __forceinline__ void attend(const Arguments& p) {
  constexpr int D = Policy::D, KB = Policy::KB, TILE = Policy::TILE;
  using Number = typename Policy::Number;
  extern __shared__ __align__(1024) uint8_t s_q[];  // the queries' tile, then the ring, then its barriers
  Row at(p, blockIdx.x);
  Ring<TILE, KB, STAGES> ring;
  ring.slots = s_q + TILE;
  ring.full = reinterpret_cast<uint64_t*>(ring.slots + STAGES * ring.STAGE);
  ring.empty = ring.full + STAGES;
  uint64_t* q_full = ring.empty + STAGES;
  const int64_t tile0 = (int64_t)at.batch_head * p.num_blocks;
  ring.from = (threadIdx.x < 64 ? p.k : p.v) + tile0 * TILE;
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
  }
  if (threadIdx.x % 32 == 0 && steps > 0) {
    ring.read_ahead();
    for (int t = 0; t < min(STAGES, steps); ++t) ring.fill();
  }
  __syncwarp();

  const float q_step = p.q_step[tile0 + at.row];
  const KeyMeta* metas = p.k_meta + tile0;
  typename Policy::Rows softmax;
  Number o[D / 2];
#pragma unroll
  for (int i = 0; i < D / 2; ++i) o[i] = 0;

  Number s[32 * KB];
  uint32_t packed[Policy::Rows::PACKED];
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
  auto multiply_scores = [&](int slot, int phase) {
#pragma unroll
    for (int i = 0; i < 32 * KB; ++i) s[i] = Policy::start();
    pin(s);
    barrier_wait(ring.full + slot, phase);
    wgmma_fence();
    Policy::scores(s, typename Policy::Queries(s_q), shared_address(ring.slots + slot * ring.STAGE));
    wgmma_commit();
  };
  auto multiply_values = [&](int slot) {
    pin(o);
    wgmma_fence();
    Policy::values(o, packed, shared_address(ring.slots + slot * ring.STAGE + KB * TILE));
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
    multiply_scores(0, 0);
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
      multiply_scores(next_slot, phase);
      softmax.rescale(o);  // while the scores are computed
      multiply_values(slot);
      wgmma_wait<1>();
      pin(s);
      softmax.step(t + 1, s, scale, valid);
      pin(s);
      // The slot of the step before: all warps have left it. This branch stands here also because the compiler moves
      // a wait up to the last one, and the softmax has to come before the wait.
      if (threadIdx.x % 32 == 0 && t >= 1 && t - 1 + STAGES < steps) ring.fill();
      __syncwarp();
      wgmma_wait<0>();
      pin(o);
      if (threadIdx.x % 32 == 0) barrier_arrive(ring.empty + slot);
      softmax.pack(s, packed);
      slot = next_slot;
    }
    softmax.rescale(o);
    multiply_values(slot);
    wgmma_wait<0>();
    pin(o);
  }

  __syncthreads();
  float inverse[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const float all = softmax.total(r);
    inverse[r] = all > 0.f ? 1.f / all : 0.f;
  }
  const float* v_step = p.v_step + (int64_t)at.batch_head * D + threadIdx.x % 4 * 2;
  store_rows<D>(p, at, ring.slots, [&](int i) { return o[i] * inverse[i / 2 % 2] * v_step[i / 4 * 8 + i % 2]; });
}
