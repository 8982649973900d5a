// Block-sparse attention in 8 bits for sm_90a: the function of numerics.py, one row of 64 queries a warpgroup.
//
// S = Q K^T by wgmma s8 (queries and keys from shared memory), P = round(255 exp(S - maximum)) packed to u8 in
// registers, O += P V by wgmma u8 x s8 (values transposed, their keys in the order in which P's registers lie). O stays
// int32: when a row's maximum moves it is rescaled in place, and before 127 x sum(P) could pass 2^30 too.
#pragma once
#include "stream.cuh"

constexpr float BIAS = 12582912.f;   // 1.5 x 2^23: an int32 sum that starts at its bit pattern reads as BIAS + sum
constexpr int BIAS_BITS = 0x4B400000;
constexpr float GUARD = 2.f;         // steps of S that the maximum is taken too high, so that rounding never passes 255
constexpr uint32_t ROUND = 0x64006400;  // 1024 in fp16, twice: adding it leaves the nearest integer in the low bits
constexpr int CHECK_BLOCKS = 128;    // key blocks between two looks at whether O could overflow
constexpr float FULL_SUM = 8454660.f;  // 2^30 / 127: `rescale` doubles O

template <int KB>
struct Softmax {
  static constexpr int PACKED = 8 * KB;
  float log_top[2], maximum[2], sum[2], alpha[2];  // of the two rows of 64 that a thread holds; top: P of the maximum
  bool moved[2];  // of any of the warp's eight such rows: O's rows and those 8 below are rescaled apart

  __device__ Softmax() {
#pragma unroll
    for (int r = 0; r < 2; ++r) log_top[r] = 7.994353437f, maximum[r] = NONE, sum[r] = 0.f;  // log2 255
  }

  // Scores (biased integers) to P, two in each second register (`rounded`); updates maximum, sum and alpha.
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
        const int* row = s + part * 32 + 2 * r;  // biased sums are positive floats: they rank as their bits do
        int most = max(row[0], row[1]), other = max(row[4], row[5]);  // two chains: neither waits for each step
#pragma unroll
        for (int i = 8; i < 32; i += 8) {
          most = __vimax3_s32(most, row[i], row[i + 1]);
          other = __vimax3_s32(other, row[i + 4], row[i + 5]);
        }
        most = max(most, other);
        now[r] = fmaxf(now[r], (__int_as_float(most) - BIAS) * scale[part]);
      }
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      now[r] = fmaxf(now[r], __shfl_xor_sync(~0u, now[r], 1));
      now[r] = fmaxf(now[r], __shfl_xor_sync(~0u, now[r], 2));
      alpha[r] = exp2_fast(maximum[r] - now[r]) * shrink[r];
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) moved[r] = __any_sync(~0u, alpha[r] != 1.f);
    float more[2] = {0.f, 0.f}, and_more[2] = {0.f, 0.f};
#pragma unroll
    for (int part = 0; part < KB; ++part) {
      float minus[2];
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        maximum[r] = now[r];
        minus[r] = -fmaf(BIAS + GUARD, scale[part], now[r] - log_top[r]);
      }
#pragma unroll
      for (int i = 0; i < 32; i += 8) {
        uint32_t both[4];  // of a row, and of the one 8 below
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const int* from = s + part * 32 + i + 2 * j;
          const float e0 = exp2_fast(fmaf(__int_as_float(from[0]), scale[part], minus[j % 2]));
          const float e1 = exp2_fast(fmaf(__int_as_float(from[1]), scale[part], minus[j % 2]));
          more[j % 2] += e0;
          and_more[j % 2] += e1;
          both[j] = halves(e0, e1);
        }
#pragma unroll
        for (int j = 0; j < 4; ++j) s[part * 32 + i + 2 * j] = rounded(both[j]);
      }
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) sum[r] = fmaf(sum[r], alpha[r], more[r] + and_more[r]);
  }

  // A row whose sum of P nears what int32 holds for O goes on with P of half the size: factors for sum and O.
  __device__ void look_for_overflow(float (&shrink)[2]) {
    const float room = FULL_SUM - 255.f * BLOCK * (CHECK_BLOCKS + 2 * KB);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      if (total(r) > room) {
        const float top = rintf(exp2_fast(log_top[r])), next = floorf(top * 0.5f);
        shrink[r] = __fdividef(next, top);
        log_top[r] = __log2f(next);
      }
    }
  }

  // The sum of a row, of which a quad of lanes holds parts.
  __device__ float total(int r) const {
    const float all = sum[r] + __shfl_xor_sync(~0u, sum[r], 1);
    return all + __shfl_xor_sync(~0u, all, 2);
  }

  static __device__ int halves(float x, float y) {
    uint32_t both;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(y), "f"(x));
    return both;
  }
  // Two fp16 numbers from 0 to 255 to the nearest integers, in bytes 0 and 2.
  static __device__ int rounded(uint32_t both) {
    uint32_t bytes;
    asm("add.rn.f16x2 %0, %1, %2;" : "=r"(bytes) : "r"(both), "r"(ROUND));
    return bytes;
  }

  // P as wgmma reads it from registers: for 32 keys (row, row + 8) x (first 16 keys, last 16).
  static __device__ void pack(const int (&s)[32 * KB], uint32_t (&p)[8 * KB]) {
#pragma unroll
    for (int i = 0; i < 8 * KB; ++i) {
      const int* from = s + i / 4 * 16 + i / 2 % 2 * 8 + i % 2 * 2;
      p[i] = __byte_perm(from[0], from[4], 0x6420);
    }
  }

  // o x alpha in integers: (2 o + 1) (2^31 alpha) / 2^32, rounded down, is o for alpha = 1. Conversions to float and back
  // would share a unit with exp2.
  template <int SIZE>
  __device__ void rescale(int (&o)[SIZE]) const {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      if (moved[r]) {
        const int factor = __float2int_rn(alpha[r] * 2147483648.f);
#pragma unroll
        for (int i = 2 * r; i < SIZE; i += 4) {
          o[i] = __mulhi(2 * o[i] + 1, factor);
          o[i + 1] = __mulhi(2 * o[i + 1] + 1, factor);
        }
      }
    }
  }
};

// A tile of queries where wgmma reads it: HELD in registers, or in shared memory.
template <int D, bool HOLD>
struct Int8Queries {
  static constexpr bool HELD = HOLD;
  uint32_t q[HOLD ? D / 8 : 1];
  uint64_t at;
  __device__ explicit Int8Queries(const uint8_t* tile) {
    if constexpr (HOLD) {
      const int lane = threadIdx.x % 32, row = threadIdx.x / 32 % 4 * 16 + lane / 4;
#pragma unroll
      for (int i = 0; i < D / 8; ++i) {  // for 32 channels (row, row + 8) x (first 16 channels, last 16)
        const int r = row + i % 2 * 8, piece = i / 2, turn = D == 128 ? r % 8 : r / 2 % 4;
        q[i] = *reinterpret_cast<const uint32_t*>(tile + r * D + (piece ^ turn) * 16 + lane % 4 * 4);
      }
    } else {
      at = descriptor(shared_address(tile), D);
    }
  }
};

template <int WIDTH, int BLOCKS, bool HOLD>
struct Int8 {
  static constexpr int D = WIDTH, KB = BLOCKS, TILE = BLOCK * D;
  using Number = int;
  using Rows = Softmax<KB>;
  using Queries = Int8Queries<D, HOLD>;
  static __device__ int start() { return BIAS_BITS; }

  static __device__ void scores(int (&s)[32 * KB], const Queries& q, uint32_t k) {
#pragma unroll
    for (int step = 0; step < D / 32; ++step) {
      if constexpr (HOLD)
        wgmma_s8(s, q.q + 4 * step, descriptor(k, D) + 2 * step);
      else
        wgmma_s8(s, q.at + 2 * step, descriptor(k, D) + 2 * step);
    }
  }
  static __device__ void values(int (&o)[D / 2], const uint32_t (&p)[8 * KB], uint32_t v) {
#pragma unroll
    for (int part = 0; part < KB; ++part) {
#pragma unroll
      for (int step = 0; step < 2; ++step)
        wgmma_u8s8(o, p + part * 8 + step * 4, descriptor(v + part * TILE, BLOCK) + 2 * step);
    }
  }
};
