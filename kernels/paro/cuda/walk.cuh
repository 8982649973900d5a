// What the attention kernels share: their arguments, what a row of blocks is, and how its output is written.
#pragma once
#include <stdint.h>

#include "hopper.cuh"

constexpr int BLOCK = 64;  // tokens of a tile; tiles.py says how they lie in memory

struct __align__(16) KeyMeta {
  float step;      // a key's value = its integer x step
  uint32_t spare;
  uint64_t valid;  // one bit a key: those beyond the last token, or masked, are 0
};

// Field by field as native.Arguments.
struct Arguments {
  const uint8_t* q;         // [B*H, blocks] tiles
  const uint8_t* k;         // [B*H, blocks] tiles
  const uint8_t* v;         // [B*H, blocks] tiles
  const float* q_step;      // [B*H, blocks], times the scale of the scores and log2 e
  const KeyMeta* k_meta;    // [B*H, blocks]
  const float* v_step;      // [B*H, D]
  const int* work;          // [B*H*blocks] in which order rows of blocks are computed: head * blocks + row
  int* next;                // [2] zeros; left as zeros: how many of them are taken, how many thread blocks are done
  const int* count;         // [lists, blocks] kept key blocks of a row
  const uint16_t* column;   // [lists, blocks, blocks] which, the first `count` of a row
  const int* permutation;   // [H, N] which token each place of the plan's order holds
  void* out;                // [B, H, N, D] in the tokens' own order
  int64_t out_b, out_h, out_n;  // its strides in elements
  int num_heads, num_blocks, num_tokens, mask_heads, mask_batches, num_items, out_half;  // out_half: fp16, not bf16
};

// One row of query blocks: where it stands, and which key blocks it keeps.
struct Row {
  int head, row, batch_head, count;
  const uint16_t* column;
  __device__ Row(const Arguments& p, int place) {
    const int item = p.work[place];
    batch_head = item / p.num_blocks;
    row = item % p.num_blocks;
    head = batch_head % p.num_heads;
    int list = batch_head / p.num_heads % p.mask_batches * p.mask_heads + head % p.mask_heads;
    count = p.count[list * p.num_blocks + row];
    column = p.column + ((int64_t)list * p.num_blocks + row) * p.num_blocks;
  }
};

// One of the `each` of every thread block that take rows finds none left: the last makes the counters ready for the next
// launch.
__device__ inline void leave(const Arguments& p, int each) {
  const unsigned last = gridDim.x * each - 1;
  if (atomicInc(reinterpret_cast<unsigned*>(p.next) + 1, last) == last) p.next[0] = 0;
}

// The tile of outputs [64, D], scaled, from the accumulators' layout to its tokens' rows: a quad of lanes writes 16
// bytes of a row at a time.
template <int D, typename Value>
__device__ void write_rows(const Arguments& p, const Row& at, Value value) {
  const int lane = threadIdx.x % 32, place = at.row * BLOCK + threadIdx.x / 32 % 4 * 16 + lane / 4;
  const int64_t base = at.batch_head / p.num_heads * p.out_b + at.head * p.out_h;
  const int* tokens = p.permutation + (int64_t)at.head * p.num_tokens;
  char* to[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int token = tokens[min(place + 8 * r, p.num_tokens - 1)];
    to[r] = reinterpret_cast<char*>(p.out) + 2 * (base + token * p.out_n) + lane % 4 * 4;
  }
#pragma unroll
  for (int i = 0; i < D / 2; i += 2) {
    const int r = i / 2 % 2;
    const float x = value(i), y = value(i + 1);
    uint32_t both;
    if (p.out_half)
      asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(y), "f"(x));
    else
      asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(y), "f"(x));
    if (place + 8 * r < p.num_tokens) *reinterpret_cast<uint32_t*>(to[r] + i / 4 * 16) = both;
  }
}
