// One hardware assumption a kernel: tests run them on a GPU to tell a wrong layout from a wrong algorithm.
#include "int8.cuh"

// Where accumulator i of this thread lies in a tile: row, column.
__device__ int2 place_of(int i) {
  const int lane = threadIdx.x % 32;
  return make_int2(threadIdx.x / 32 * 16 + lane / 4 + i / 2 % 2 * 8, i / 4 * 8 + lane % 4 * 2 + i % 2);
}

template <int BYTES>
__device__ uint8_t* loaded(const uint8_t* from) {  // a tile by bulk copy, 1024-byte aligned
  extern __shared__ uint8_t raw[];
  __shared__ uint64_t barrier;
  uint8_t* tile = reinterpret_cast<uint8_t*>((reinterpret_cast<uintptr_t>(raw) + 1023) & ~uintptr_t(1023));
  if (threadIdx.x == 0) {
    barrier_init(&barrier, 1);
    barrier_init_fence();
    barrier_expect(&barrier, BYTES);
    bulk_copy(tile, from, BYTES, &barrier);
  }
  __syncthreads();
  barrier_wait(&barrier, 0);
  return tile;
}

// tiles: one of queries, then one (N = 64) or two (N = 128) of keys; out: int32 [64, N].
template <int D, int N>
__device__ void unit_scores(const uint8_t* tiles, int* out) {
  uint8_t* q = loaded<(64 + N) * D>(tiles);
  int s[N / 2];
#pragma unroll
  for (int i = 0; i < N / 2; ++i) s[i] = BIAS_BITS;
  pin(s);
  wgmma_fence();
#pragma unroll
  for (int step = 0; step < D / 32; ++step)
    wgmma_s8(s, descriptor(shared_address(q), D) + 2 * step, descriptor(shared_address(q + 64 * D), D) + 2 * step);
  wgmma_commit();
  wgmma_wait<0>();
  pin(s);
#pragma unroll
  for (int i = 0; i < N / 2; ++i) out[place_of(i).x * N + place_of(i).y] = s[i] - BIAS_BITS;
}

// p: u8 [64, 64] row by row; tile: one of values; out: int32 [64, D].
template <int D>
__device__ void unit_values(const uint8_t* tile, const uint8_t* p, int* out) {
  uint8_t* v = loaded<64 * D>(tile);
  int s[32], o[D / 2];
  uint32_t packed[8];
#pragma unroll
  for (int i = 0; i < 32; i += 2) {
    const uint8_t* from = p + place_of(i).x * 64 + place_of(i).y;
    s[i] = Softmax<1>::rounded(Softmax<1>::halves(from[0], from[1]));
  }
#pragma unroll
  for (int i = 0; i < D / 2; ++i) o[i] = 0;
  Softmax<1>::pack(s, packed);
  pin(o);
  wgmma_fence();
#pragma unroll
  for (int step = 0; step < 2; ++step) wgmma_u8s8(o, packed + step * 4, descriptor(shared_address(v), 64) + 2 * step);
  wgmma_commit();
  wgmma_wait<0>();
  pin(o);
#pragma unroll
  for (int i = 0; i < D / 2; ++i) out[place_of(i).x * D + place_of(i).y] = o[i];
}

extern "C" __global__ void __launch_bounds__(128) unit_scores_d64_n64(const uint8_t* a, const uint8_t*, int* out) {
  unit_scores<64, 64>(a, out);
}
extern "C" __global__ void __launch_bounds__(128) unit_scores_d64_n128(const uint8_t* a, const uint8_t*, int* out) {
  unit_scores<64, 128>(a, out);
}
extern "C" __global__ void __launch_bounds__(128) unit_scores_d128_n64(const uint8_t* a, const uint8_t*, int* out) {
  unit_scores<128, 64>(a, out);
}
extern "C" __global__ void __launch_bounds__(128) unit_scores_d128_n128(const uint8_t* a, const uint8_t*, int* out) {
  unit_scores<128, 128>(a, out);
}
extern "C" __global__ void __launch_bounds__(128) unit_values_d64(const uint8_t* a, const uint8_t* p, int* out) {
  unit_values<64>(a, p, out);
}
extern "C" __global__ void __launch_bounds__(128) unit_values_d128(const uint8_t* a, const uint8_t* p, int* out) {
  unit_values<128>(a, p, out);
}
