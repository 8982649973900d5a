// The loop of an attention kernel that stays: one thread block a multiprocessor, a warp that loads for each warpgroup
// that computes. Each warpgroup takes rows of 64 queries one after the other, from a counter that all share; its loading
// warp is ahead of it by a ring of shared memory, also from one row into the next.
//
// In a warpgroup the products of S for the next step are issued, O is rescaled while they are computed, the products of
// O for this step are issued, and the softmax of the next step runs while these are computed. Policy says in which
// numbers: int8.cuh, bf16.cuh.
#pragma once
#include "walk.cuh"

constexpr float NONE = -1e30f;  // a row's maximum over no keys; finite, so that differences stay numbers

// Of a thread, by the number of warpgroups that compute: what all have at the launch is shared out anew.
constexpr int LOAD_REGISTERS[] = {0, 0, 56, 56};
constexpr int COMPUTE_REGISTERS[] = {0, 0, 224, 152};

// What the loading warp says of the row that comes: the number of its kept blocks, -1 after the last row.
struct __align__(16) Coming {
  int count, item;
  float q_step;
  int never;  // 0, which the compiler does not know
};

// The shared memory of one warpgroup and its loading warp.
template <typename Policy, int STAGES>
struct Lane {
  static constexpr int TILE = Policy::TILE, KB = Policy::KB, STAGE = 2 * KB * TILE;
  static constexpr int TILES = TILE + STAGES * STAGE, SMALL = 16 * (1 + STAGES * KB) + 8 * (2 * STAGES + 2);
  uint8_t *q, *slots;
  Coming* coming;
  KeyMeta* metas;
  uint64_t *full, *empty, *q_full, *q_empty;

  // `base`: all the groups' tiles, then all their small things.
  __device__ Lane(uint8_t* base, int group, int groups) {
    q = base + group * TILES;
    slots = q + TILE;
    uint8_t* small = base + groups * TILES + group * SMALL;
    coming = reinterpret_cast<Coming*>(small);
    metas = reinterpret_cast<KeyMeta*>(small + 16);
    full = reinterpret_cast<uint64_t*>(small + 16 * (1 + STAGES * KB));
    empty = full + STAGES;
    q_full = empty + STAGES;
    q_empty = q_full + 1;
  }
  __device__ void init() {
    for (int s = 0; s < STAGES; ++s) {
      barrier_init(full + s, 1);
      barrier_init(empty + s, 4);
    }
    barrier_init(q_full, 1);
    barrier_init(q_empty, 4);
  }
};

// The loading warp.
template <typename Policy, int STAGES>
__device__ void load_rows(const Arguments& p, const Lane<Policy, STAGES>& to, int groups) {
  constexpr int KB = Policy::KB, TILE = Policy::TILE, STAGE = 2 * KB * TILE;
  const int lane = threadIdx.x % 32, kind = lane / KB, part = lane % KB;  // kind: 0 keys, 1 values, 2 their metas
  auto take = [&] { return lane == 0 ? atomicAdd(p.next, 1) : 0; };
  int slot = 0, phase = 1, place = take();  // of a ring whose slots are all empty
  for (int q_phase = 1;; q_phase ^= 1) {
    place = __shfl_sync(~0u, place, 0);
    if (place >= p.num_items) {
      if (lane == 0) {
        barrier_wait(to.q_empty, q_phase);
        to.coming->count = -1;
        barrier_arrive(to.q_full);
        leave(p, groups);
      }
      return;
    }
    const Row at(p, place);
    const int64_t tile0 = (int64_t)at.batch_head * p.num_blocks;
    int ahead = at.count ? at.column[min(lane, at.count - 1)] : 0;
    auto send_queries = [&] {
      barrier_wait(to.q_empty, q_phase);
      *to.coming = Coming{at.count, place, p.q_step[tile0 + at.row], 0};
      if (at.count) {
        barrier_expect(to.q_full, TILE);
        bulk_copy(to.q, p.q + (tile0 + at.row) * TILE, TILE, to.q_full);
      } else {
        barrier_arrive(to.q_full);
      }
    };
    if (at.count == 0 && lane == 0) send_queries();
    const int place_after = take();
    // The row before still computes with its queries: those of this one follow its first keys.
    int until_queries = min(STAGES - 2, (at.count + KB - 1) / KB - 1);
    const uint8_t* from = kind == 0 ? p.k : kind == 1 ? p.v : reinterpret_cast<const uint8_t*>(p.k_meta);
    const int bytes = kind == 2 ? 16 : TILE;
    from += tile0 * bytes;
    uint8_t* target = kind == 2 ? reinterpret_cast<uint8_t*>(to.metas + part) : to.slots + lane * TILE;
    const int pitch = kind == 2 ? 16 * KB : STAGE;
    for (int first = 0; first < at.count; first += 32) {  // columns, a lane each
      const int now = ahead;
      if (first + 32 < at.count) ahead = at.column[min(first + 32 + lane, at.count - 1)];
      const int steps = (min(32, at.count - first) + KB - 1) / KB;
      for (int t = 0; t < steps; ++t) {
        const int column = __shfl_sync(~0u, now, t * KB + part);
        if (lane == 0) {
          if (until_queries-- == 0) send_queries();
          barrier_wait(to.empty + slot, phase);
          barrier_expect(to.full + slot, STAGE + 16 * KB);
        }
        __syncwarp();
        if (lane < 3 * KB) bulk_copy(target + slot * pitch, from + (int64_t)column * bytes, bytes, to.full + slot);
        if (++slot == STAGES) slot = 0, phase ^= 1;
      }
    }
    place = place_after;
  }
}

template <typename Policy, int STAGES>
__device__ __forceinline__ void compute_rows(const Arguments& p, const Lane<Policy, STAGES>& from) {
  constexpr int D = Policy::D, KB = Policy::KB, TILE = Policy::TILE, STAGE = 2 * KB * TILE;
  using Number = typename Policy::Number;
  int lane;
  asm volatile("mov.u32 %0, %1;" : "=r"(lane) : "r"(threadIdx.x % 32));  // volatile: kept, not read anew
  const bool first_lane = lane == 0;
  int slot = 0, phase = 0;
  for (int q_phase = 0;; q_phase ^= 1) {
    barrier_wait(from.q_full, q_phase);
    const Coming row = *from.coming;
    if (row.count < 0) return;
    const int steps = (row.count + KB - 1) / KB;
    typename Policy::Rows softmax;
    Number o[D / 2];
#pragma unroll
    for (int i = 0; i < D / 2; ++i) o[i] = 0;
    Number s[32 * KB];
    uint32_t packed[Policy::Rows::PACKED];
    float scale[KB];
    uint64_t valid[KB];
    typename Policy::Queries queries(from.q);
    auto arrive_with_queries = [&] {
      __syncwarp();  // all lanes have read `coming`
      if (first_lane) barrier_arrive(from.q_empty);
    };
    if (Policy::Queries::HELD) arrive_with_queries();
    auto release_queries = [&] {
      if (!Policy::Queries::HELD) arrive_with_queries();
    };
    // The compiler moves a wait for products up to the one before, and the softmax has to come before the wait.
    auto hold = [&] {
      if (row.never) barrier_wait(from.q_full, q_phase);
    };
    auto take_metas = [&](int t, int slot) {
#pragma unroll
      for (int part = 0; part < KB; ++part) {
        const uint4 meta = *reinterpret_cast<const uint4*>(from.metas + slot * KB + part);
        scale[part] = fmaxf(__uint_as_float(meta.x) * row.q_step, 1e-35f);
        valid[part] = t * KB + part < row.count ? (uint64_t)meta.w << 32 | meta.z : 0;
      }
    };
    auto multiply_scores = [&](Number(&s)[32 * KB], int slot, int phase) {
#pragma unroll
      for (int i = 0; i < 32 * KB; ++i) s[i] = Policy::start();
      pin(s);
      barrier_wait(from.full + slot, phase);
      wgmma_fence();
      Policy::scores(s, queries, shared_address(from.slots + slot * STAGE));
      wgmma_commit();
    };
    auto multiply_values = [&](int slot) {
      pin(o);
      wgmma_fence();
      Policy::values(o, packed, shared_address(from.slots + slot * STAGE + KB * TILE));
      wgmma_commit();
    };
    if (steps > 0) {
      multiply_scores(s, slot, phase);
      take_metas(0, slot);
      wgmma_wait<0>();
      pin(s);
      softmax.step(0, s, scale, valid);
      softmax.pack(s, packed);
      for (int t = 0; t + 1 < steps; ++t) {
        const int before = slot;
        if (++slot == STAGES) slot = 0, phase ^= 1;
        multiply_scores(s, slot, phase);
        take_metas(t + 1, slot);
        softmax.rescale(o);  // while the scores are computed
        multiply_values(before);
        wgmma_wait<1>();
        pin(s);
        softmax.step(t + 1, s, scale, valid);
        pin(s);
        if (t + 2 == steps) release_queries();
        hold();
        wgmma_wait<0>();
        pin(o);
        if (first_lane) barrier_arrive(from.empty + before);
        softmax.pack(s, packed);
      }
      if (steps == 1) release_queries();
      softmax.rescale(o);
      multiply_values(slot);
      wgmma_wait<0>();
      pin(o);
      if (first_lane) barrier_arrive(from.empty + slot);
      if (++slot == STAGES) slot = 0, phase ^= 1;
    } else {
      release_queries();
    }
    const Row at(p, row.item);
    float inverse[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float all = softmax.total(r);
      inverse[r] = all > 0.f ? 1.f / all : 0.f;
    }
    const float* v_step = p.v_step + (int64_t)at.batch_head * D + threadIdx.x % 4 * 2;
    write_rows<D>(p, at, [&](int i) { return o[i] * inverse[i / 2 % 2] * v_step[i / 4 * 8 + i % 2]; });
  }
}

// GROUPS warpgroups that compute, and a last one that loads.
template <typename Policy, int STAGES, int GROUPS>
__device__ __forceinline__ void stream(const Arguments& p) {
  extern __shared__ __align__(1024) uint8_t shared[];
  const int group = __shfl_sync(~0u, threadIdx.x / 128, 0);
  if (threadIdx.x < GROUPS) Lane<Policy, STAGES>(shared, threadIdx.x, GROUPS).init();
  if (threadIdx.x < 32) barrier_init_fence();
  __syncthreads();
  if (group == GROUPS) {
    registers_give<LOAD_REGISTERS[GROUPS]>();
    const int warp = threadIdx.x / 32 % 4;
    if (warp < GROUPS) load_rows<Policy, STAGES>(p, Lane<Policy, STAGES>(shared, warp, GROUPS), GROUPS);
  } else {
    registers_take<COMPUTE_REGISTERS[GROUPS]>();
    compute_rows<Policy, STAGES>(p, Lane<Policy, STAGES>(shared, group, GROUPS));
  }
}
