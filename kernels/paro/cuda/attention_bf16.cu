// The control in bf16, and the pre-pass that lays its tiles out.
#include "bf16.cuh"
#include "prepass.cuh"

// q and k: rows of 64 channels (128 bytes) in panels of 64 rows, swizzled by 128; v: transposed, swizzled by 128.
template <int D>
__device__ void arrange(const PrepassArguments& p) {
  __shared__ __align__(16) uint16_t values[BLOCK][D + 8];
  const int bh = blockIdx.y, b = bh / p.num_heads, h = bh % p.num_heads;
  const Source& from = blockIdx.z == 0 ? p.q : blockIdx.z == 1 ? p.k : p.v;
  const int* tokens = p.permutation + (int64_t)h * p.num_tokens;
  const int64_t tile = (int64_t)bh * p.num_blocks + blockIdx.x;
  uint8_t* to = (blockIdx.z == 0 ? p.q_tiles : blockIdx.z == 1 ? p.k_tiles : p.v_tiles) + tile * BLOCK * D * 2;
  for (int i = threadIdx.x; i < BLOCK * D / 8; i += 128) {
    const int r = i / (D / 8), piece = i % (D / 8), place = blockIdx.x * BLOCK + r;
    uint4 x = make_uint4(0, 0, 0, 0);
    if (place < p.num_tokens)
      x = *reinterpret_cast<const uint4*>(reinterpret_cast<const uint16_t*>(from.data) + b * from.b + h * from.h +
                                          tokens[place] * from.n + piece * 8);
    if (blockIdx.z < 2)
      *reinterpret_cast<uint4*>(to + piece / 8 * BLOCK * 128 + r * 128 + ((piece % 8 ^ (r & 7)) * 16)) = x;
    else
      *reinterpret_cast<uint4*>(&values[r][piece * 8]) = x;
  }
  if (blockIdx.z == 0 && threadIdx.x == 0) p.q_step[tile] = p.q_factor;
  if (blockIdx.z == 1) write_meta(p, tile, b, tokens, 1.f);
  if (blockIdx.z < 2) return;
  __syncthreads();
  for (int i = threadIdx.x; i < D * 8; i += 128) {
    const int d = i % D, piece = i / D;
    uint32_t w[4];
#pragma unroll
    for (int n = 0; n < 4; ++n) w[n] = values[piece * 8 + 2 * n][d] | (uint32_t)values[piece * 8 + 2 * n + 1][d] << 16;
    *reinterpret_cast<uint4*>(to + d * 128 + ((piece ^ (d & 7)) * 16)) = make_uint4(w[0], w[1], w[2], w[3]);
  }
}

#define VARIANT(D, STAGES, GROUPS)                                                                                    \
  extern "C" __global__ void __launch_bounds__(128 * (GROUPS + 1), 1)                                                 \
      attention_bf16_d##D##_k1_s##STAGES##_g##GROUPS(const __grid_constant__ Arguments p) {                           \
    stream<Bf16<D>, STAGES, GROUPS>(p);                                                                               \
  }                                                                                                                   \
  extern "C" __global__ void __launch_bounds__(128) arrange_bf16_d##D(const __grid_constant__ PrepassArguments p) {   \
    arrange<D>(p);                                                                                                    \
  }

VARIANT(64, 4, 3)
VARIANT(128, 3, 2)
