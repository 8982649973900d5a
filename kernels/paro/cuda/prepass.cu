// q, k, v into the tiles that the attention kernels read: reordered, K's mean taken off, rounded to 8 bits, V transposed.
//
// `statistics` reads K and V once (mean and largest value of every channel of a head); `quantise` reads q, k and v in
// the plan's order and writes the tiles. A thread block of `quantise` makes one tile of one of the three.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "prepass.cuh"

template <typename T>
struct Eight {
  uint4 raw;
  __device__ void load(const void* from, int64_t element) {
    raw = __ldg(reinterpret_cast<const uint4*>(reinterpret_cast<const T*>(from) + element));
  }
  __device__ void clear() { raw = make_uint4(0, 0, 0, 0); }
  __device__ float operator[](int i) const {
    uint32_t word = i / 2 == 0 ? raw.x : i / 2 == 1 ? raw.y : i / 2 == 2 ? raw.z : raw.w;
    unsigned short half = i % 2 ? word >> 16 : word & 0xFFFF;
    if constexpr (sizeof(T) == 2 && std::is_same<T, __nv_bfloat16>::value)
      return __uint_as_float((uint32_t)half << 16);
    else
      return __half2float(__ushort_as_half(half));
  }
};

template <typename T, int D>
__device__ void statistics(const PrepassArguments& p) {
  constexpr int LANES = D / 8, ROWS = 256 / LANES;  // threads of a row; rows read at a time
  __shared__ float shared[2][ROWS][D];
  __shared__ int last;
  const int bh = blockIdx.y, b = bh / p.num_heads, h = bh % p.num_heads;
  const int lane = threadIdx.x % LANES, row = threadIdx.x / LANES;
  float sum[8] = {}, most[8] = {};
  const int each = (p.num_tokens + p.chunks - 1) / p.chunks;
  const int end = min(p.num_tokens, (int)(blockIdx.x + 1) * each);
  const int64_t k0 = b * p.k.b + h * p.k.h + lane * 8, v0 = b * p.v.b + h * p.v.h + lane * 8;
#pragma unroll 4
  for (int n = blockIdx.x * each + row; n < end; n += ROWS) {
    Eight<T> k, v;
    k.load(p.k.data, k0 + n * p.k.n);
    v.load(p.v.data, v0 + n * p.v.n);
#pragma unroll
    for (int i = 0; i < 8; ++i) sum[i] += k[i], most[i] = fmaxf(most[i], fabsf(v[i]));
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) shared[0][row][lane * 8 + i] = sum[i], shared[1][row][lane * 8 + i] = most[i];
  __syncthreads();
  float* mine = p.partial + ((int64_t)bh * p.chunks + blockIdx.x) * 2 * D;
  if (threadIdx.x < D) {
    float all = 0.f, top = 0.f;
    for (int r = 0; r < ROWS; ++r) all += shared[0][r][threadIdx.x], top = fmaxf(top, shared[1][r][threadIdx.x]);
    mine[threadIdx.x] = all;
    mine[D + threadIdx.x] = top;
  }
  // The last block of a head to come here sums all, in the order of the blocks: the same bits at every run.
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) last = atomicAdd(p.done + bh, 1) == p.chunks - 1;
  __syncthreads();
  if (!last) return;
  __threadfence();
  if (threadIdx.x < D) {
    float all = 0.f, top = 0.f;
    for (int c = 0; c < p.chunks; ++c) {
      const float* one = p.partial + ((int64_t)bh * p.chunks + c) * 2 * D;
      all += __ldcg(one + threadIdx.x);
      top = fmaxf(top, __ldcg(one + D + threadIdx.x));
    }
    p.k_mean[bh * D + threadIdx.x] = p.smooth ? all / p.num_tokens : 0.f;
    p.v_step[bh * D + threadIdx.x] = (top > 0.f ? top : 1.f) / 127.f;
  }
  if (threadIdx.x == 0) p.done[bh] = 0;
}

__device__ __forceinline__ float block_maximum(float x, float* shared) {  // of 128 threads
#pragma unroll
  for (int step = 16; step; step /= 2) x = fmaxf(x, __shfl_xor_sync(~0u, x, step));
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
  __syncthreads();
  return fmaxf(fmaxf(shared[0], shared[1]), fmaxf(shared[2], shared[3]));
}

__device__ __forceinline__ uint32_t rounded_bytes(const float* x, float inverse_step) {
  uint32_t word = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) word |= (uint32_t)(uint8_t)(int8_t)__float2int_rn(x[i] * inverse_step) << (8 * i);
  return word;
}

// 64 rows of queries or keys, a scale for all, rows of D bytes swizzled by D (tiles.py).
template <typename T, int D, bool KEYS>
__device__ void quantise_rows(const PrepassArguments& p) {
  constexpr int LANES = D / 8, ROWS = 128 / LANES, PASSES = BLOCK / ROWS;
  __shared__ float shared[4];
  const int bh = blockIdx.y, b = bh / p.num_heads, h = bh % p.num_heads;
  const int lane = threadIdx.x % LANES, row = threadIdx.x / LANES;
  const Source& from = KEYS ? p.k : p.q;
  const int* tokens = p.permutation + (int64_t)h * p.num_tokens;
  const int64_t base = b * from.b + h * from.h + lane * 8;
  Eight<T> raw[PASSES];
#pragma unroll
  for (int pass = 0; pass < PASSES; ++pass) {
    int place = blockIdx.x * BLOCK + pass * ROWS + row;
    if (place < p.num_tokens)
      raw[pass].load(from.data, base + tokens[place] * from.n);
    else
      raw[pass].clear();
  }
  float mean[8] = {};
  if (KEYS) {
#pragma unroll
    for (int i = 0; i < 8; ++i) mean[i] = p.k_mean[bh * D + lane * 8 + i];
  }
  float most = 0.f;
#pragma unroll
  for (int pass = 0; pass < PASSES; ++pass) {
    if (blockIdx.x * BLOCK + pass * ROWS + row < p.num_tokens) {
#pragma unroll
      for (int i = 0; i < 8; ++i) most = fmaxf(most, fabsf(raw[pass][i] - mean[i]));
    }
  }
  most = block_maximum(most, shared);
  const float step = (most > 0.f ? most : 1.f) / 127.f, inverse = 1.f / step;
  const int64_t tile = (int64_t)bh * p.num_blocks + blockIdx.x;
  uint8_t* to = (KEYS ? p.k_tiles : p.q_tiles) + tile * BLOCK * D;
#pragma unroll
  for (int pass = 0; pass < PASSES; ++pass) {
    const int r = pass * ROWS + row;
    float x[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) x[i] = blockIdx.x * BLOCK + r < p.num_tokens ? raw[pass][i] - mean[i] : 0.f;
    const int swizzle = D == 128 ? r & 7 : r >> 1 & 3;
    const int at = r * D + ((lane / 2 ^ swizzle) * 16) + lane % 2 * 8;
    *reinterpret_cast<uint2*>(to + at) = make_uint2(rounded_bytes(x, inverse), rounded_bytes(x + 4, inverse));
  }
  if (!KEYS) {
    if (threadIdx.x == 0) p.q_step[tile] = step * p.q_factor;
  } else {
    write_meta(p, tile, b, tokens, step);
  }
}

// 64 values, transposed: rows of a channel, 64 bytes, swizzled by 64; keys of 16 in the order in which the attention
// kernel's registers hold P: 0 1 8 9 2 3 10 11 4 5 12 13 6 7 14 15.
template <typename T, int D>
__device__ void quantise_values(const PrepassArguments& p) {
  constexpr int LANES = D / 8, SLOTS = 128 / LANES, PASSES = 16 / SLOTS;  // 16 words of four keys each
  __shared__ uint32_t words[D * 16];
  const int bh = blockIdx.y, b = bh / p.num_heads, h = bh % p.num_heads;
  const int lane = threadIdx.x % LANES, slot = threadIdx.x / LANES;
  const int* tokens = p.permutation + (int64_t)h * p.num_tokens;
  const int64_t base = b * p.v.b + h * p.v.h + lane * 8;
  Eight<T> raw[PASSES][4];
#pragma unroll
  for (int pass = 0; pass < PASSES; ++pass) {
    const int word = slot + pass * SLOTS;
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      int place = blockIdx.x * BLOCK + word / 4 * 16 + word % 4 * 2 + n / 2 * 8 + n % 2;
      if (place < p.num_tokens)
        raw[pass][n].load(p.v.data, base + tokens[place] * p.v.n);
      else
        raw[pass][n].clear();
    }
  }
  float inverse[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) inverse[i] = 1.f / p.v_step[bh * D + lane * 8 + i];
#pragma unroll
  for (int pass = 0; pass < PASSES; ++pass) {
    const int word = slot + pass * SLOTS;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      float x[4];
#pragma unroll
      for (int n = 0; n < 4; ++n) x[n] = raw[pass][n][i];
      words[(lane * 8 + i) * 16 + (word ^ lane)] = rounded_bytes(x, inverse[i]);  // ^ lane: no two in one bank
    }
  }
  __syncthreads();
  uint8_t* to = p.v_tiles + ((int64_t)bh * p.num_blocks + blockIdx.x) * BLOCK * D;
#pragma unroll
  for (int i = threadIdx.x; i < D * 4; i += 128) {
    const int d = i / 4, chunk = i % 4;
    uint32_t w[4];
#pragma unroll
    for (int n = 0; n < 4; ++n) w[n] = words[d * 16 + ((chunk * 4 + n) ^ (d / 8))];
    *reinterpret_cast<uint4*>(to + d * 64 + ((chunk ^ (d >> 1 & 3)) * 16)) = make_uint4(w[0], w[1], w[2], w[3]);
  }
}

// Masks of bits to lists of kept columns: a warp a row. bits: [rows, ceil(columns / 8)], the lowest bit first.
extern "C" __global__ void __launch_bounds__(128)
    kept_columns(const uint8_t* bits, int* count, uint16_t* column, int rows, int columns) {
  const int row = blockIdx.x * 4 + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (row >= rows) return;
  const uint8_t* from = bits + (int64_t)row * ((columns + 7) / 8);
  uint16_t* to = column + (int64_t)row * columns;
  int found = 0;
#pragma unroll 4
  for (int c = lane; c - lane < columns; c += 32) {
    bool keep = c < columns && from[c / 8] >> (c % 8) & 1;
    uint32_t kept = __ballot_sync(~0u, keep);
    if (keep) to[found + __popc(kept & ((1u << lane) - 1))] = c;
    found += __popc(kept);
  }
  if (lane == 0) count[row] = found;
}

// The order in which a head's rows are computed, the longest first: work[place] = head * blocks + row.
// count: [lists, blocks]; next: two counters, set to zero; grid: (blocks / 128, heads over the batch).
extern "C" __global__ void __launch_bounds__(128)
    longest_first(const int* count, int* work, int* next, int blocks, int heads, int mask_heads, int mask_batches) {
  __shared__ int shared[128];
  const int bh = blockIdx.y, row = blockIdx.x * 128 + threadIdx.x;
  if (bh == 0 && row < 2) next[row] = 0;
  const int* counts = count + (bh / heads % mask_batches * mask_heads + bh % heads % mask_heads) * blocks;
  const int mine = row < blocks ? counts[row] : 0;
  int place = 0;
  for (int first = 0; first < blocks; first += 128) {
    __syncthreads();
    shared[threadIdx.x] = first + threadIdx.x < blocks ? counts[first + threadIdx.x] : -1;
    __syncthreads();
#pragma unroll 8
    for (int i = 0; i < 128; ++i) place += shared[i] > mine || (shared[i] == mine && first + i < row);
  }
  if (row < blocks) work[bh * blocks + place] = bh * blocks + row;
}

#define KERNELS(NAME, T, D)                                                                                            \
  extern "C" __global__ void __launch_bounds__(256) statistics_##NAME##_d##D(const __grid_constant__ PrepassArguments p) { \
    statistics<T, D>(p);                                                                                               \
  }                                                                                                                    \
  extern "C" __global__ void __launch_bounds__(128) quantise_##NAME##_d##D(const __grid_constant__ PrepassArguments p) {  \
    if (blockIdx.z == 0)                                                                                               \
      quantise_rows<T, D, false>(p);                                                                                   \
    else if (blockIdx.z == 1)                                                                                          \
      quantise_rows<T, D, true>(p);                                                                                    \
    else                                                                                                               \
      quantise_values<T, D>(p);                                                                                        \
  }

KERNELS(bf16, __nv_bfloat16, 64)
KERNELS(bf16, __nv_bfloat16, 128)
KERNELS(fp16, __half, 64)
KERNELS(fp16, __half, 128)
