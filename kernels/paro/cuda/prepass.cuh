// The arguments of the kernels that make tiles, and what they say of a tile of keys.
#pragma once
#include "walk.cuh"

// Field by field as native.PrepassArguments. Strides in elements; channels lie side by side, rows at multiples of 16 B.
struct Source {
  const void* data;
  int64_t b, h, n;
};
struct PrepassArguments {
  Source q, k, v;
  const int* permutation;  // [H, N]
  const uint8_t* key_mask;  // [B, N], 0 = nobody sees it; null = all are seen
  float* partial;          // [B*H, chunks, 2, D]: sums of K, largest |V|
  int* done;               // [B*H], zeros; left as zeros
  float *k_mean, *v_step;  // [B*H, D]
  uint8_t *q_tiles, *k_tiles, *v_tiles;
  float* q_step;           // [B*H, blocks]
  KeyMeta* k_meta;         // [B*H, blocks]
  float q_factor;          // of q_step: the scale of the scores x log2 e
  int num_heads, num_tokens, num_blocks, chunks, smooth;
};

// A key tile's step, and a bit for each key that is seen: inside the sequence, and not masked. By 64 threads or more.
__device__ inline void write_meta(const PrepassArguments& p, int64_t tile, int b, const int* tokens, float step) {
  if (threadIdx.x >= 64) return;
  const int place = blockIdx.x * BLOCK + threadIdx.x;
  bool seen = place < p.num_tokens;
  if (seen && p.key_mask) seen = p.key_mask[(int64_t)b * p.num_tokens + tokens[place]];
  uint32_t bits = __ballot_sync(~0u, seen);
  KeyMeta* meta = p.k_meta + tile;
  if (threadIdx.x % 32 == 0) reinterpret_cast<uint32_t*>(&meta->valid)[threadIdx.x / 32] = bits;
  if (threadIdx.x == 0) meta->step = step;
}
