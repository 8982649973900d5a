// Hopper's instructions as functions: wgmma, mbarriers, bulk copies (PTX ISA 9.0; sm_90a).
#pragma once
#include <stdint.h>

#define TEXT_8(a, b, c, d, e, f, g, h) "%" #a ",%" #b ",%" #c ",%" #d ",%" #e ",%" #f ",%" #g ",%" #h
#define REGISTERS_32                                                                                                  \
  "{" TEXT_8(0, 1, 2, 3, 4, 5, 6, 7) "," TEXT_8(8, 9, 10, 11, 12, 13, 14, 15) "," TEXT_8(                             \
      16, 17, 18, 19, 20, 21, 22, 23) "," TEXT_8(24, 25, 26, 27, 28, 29, 30, 31) "}"
#define REGISTERS_64                                                                                                  \
  "{" TEXT_8(0, 1, 2, 3, 4, 5, 6, 7) "," TEXT_8(8, 9, 10, 11, 12, 13, 14, 15) "," TEXT_8(                             \
      16, 17, 18, 19, 20, 21, 22, 23) "," TEXT_8(24, 25, 26, 27, 28, 29, 30, 31) "," TEXT_8(                          \
      32, 33, 34, 35, 36, 37, 38, 39) "," TEXT_8(40, 41, 42, 43, 44, 45, 46, 47) "," TEXT_8(                          \
      48, 49, 50, 51, 52, 53, 54, 55) "," TEXT_8(56, 57, 58, 59, 60, 61, 62, 63) "}"
#define KEEP_4(t, d, i) "+" t(d[i]), "+" t(d[i + 1]), "+" t(d[i + 2]), "+" t(d[i + 3])
#define KEEP_16(t, d, i) KEEP_4(t, d, i), KEEP_4(t, d, i + 4), KEEP_4(t, d, i + 8), KEEP_4(t, d, i + 12)
#define KEEP_32(t, d) KEEP_16(t, d, 0), KEEP_16(t, d, 16)
#define KEEP_64(t, d) KEEP_16(t, d, 0), KEEP_16(t, d, 16), KEEP_16(t, d, 32), KEEP_16(t, d, 48)

// A shared-memory operand whose rows are K-major: `row_bytes` 64 or 128, swizzled by that width, eight rows a group.
__device__ __forceinline__ uint64_t descriptor(uint32_t address, int row_bytes) {
  uint64_t mode = row_bytes == 128 ? 1 : 2;  // 128-byte or 64-byte swizzle
  uint64_t stride = (8 * row_bytes) >> 4;    // from one group of eight rows to the next
  return (uint64_t)((address & 0x3FFFF) >> 4) | (1ull << 16) | (stride << 32) | (mode << 62);
}

__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
  return (uint32_t)__cvta_generic_to_shared(pointer);
}

__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int PENDING>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}

// Registers that a wgmma writes behind the compiler's back: reads may not move across this.
template <int SIZE>
__device__ __forceinline__ void pin(int (&d)[SIZE]) {
#pragma unroll
  for (int i = 0; i < SIZE; ++i) asm volatile("" : "+r"(d[i])::"memory");
}
template <int SIZE>
__device__ __forceinline__ void pin(float (&d)[SIZE]) {
#pragma unroll
  for (int i = 0; i < SIZE; ++i) asm volatile("" : "+f"(d[i])::"memory");
}

// d += a b^T, a and b in shared memory. 64 x (64 or 128) x 32, s8.
__device__ __forceinline__ void wgmma_s8(int (&d)[32], uint64_t a, uint64_t b) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k32.s32.s8.s8 " REGISTERS_32 ", %32, %33, p;\n}\n"
      : KEEP_32("r", d)
      : "l"(a), "l"(b));
}
__device__ __forceinline__ void wgmma_s8(int (&d)[64], uint64_t a, uint64_t b) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k32.s32.s8.s8 " REGISTERS_64 ", %64, %65, p;\n}\n"
      : KEEP_64("r", d)
      : "l"(a), "l"(b));
}

// The same, a in registers.
__device__ __forceinline__ void wgmma_s8(int (&d)[32], const uint32_t* a, uint64_t b) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k32.s32.s8.s8 " REGISTERS_32 ", {%32,%33,%34,%35}, %36, p;\n}\n"
      : KEEP_32("r", d)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
__device__ __forceinline__ void wgmma_s8(int (&d)[64], const uint32_t* a, uint64_t b) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k32.s32.s8.s8 " REGISTERS_64 ", {%64,%65,%66,%67}, %68, p;\n}\n"
      : KEEP_64("r", d)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

// d += a b^T, a in registers (u8), b in shared memory (s8). 64 x (64 or 128) x 32.
__device__ __forceinline__ void wgmma_u8s8(int (&d)[32], const uint32_t* a, uint64_t b) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k32.s32.u8.s8 " REGISTERS_32 ", {%32,%33,%34,%35}, %36, p;\n}\n"
      : KEEP_32("r", d)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
__device__ __forceinline__ void wgmma_u8s8(int (&d)[64], const uint32_t* a, uint64_t b) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k32.s32.u8.s8 " REGISTERS_64 ", {%64,%65,%66,%67}, %68, p;\n}\n"
      : KEEP_64("r", d)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

// The same in bf16 with float sums: 64 x (64 or 128) x 16.
__device__ __forceinline__ void wgmma_bf16(float (&d)[32], uint64_t a, uint64_t b) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 " REGISTERS_32 ", %32, %33, p, 1, 1, 0, 0;\n}\n"
      : KEEP_32("f", d)
      : "l"(a), "l"(b));
}
__device__ __forceinline__ void wgmma_bf16(float (&d)[32], const uint32_t* a, uint64_t b) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 " REGISTERS_32 ", {%32,%33,%34,%35}, %36, p, 1, 1, 0;\n}\n"
      : KEEP_32("f", d)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
__device__ __forceinline__ void wgmma_bf16(float (&d)[64], const uint32_t* a, uint64_t b) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 " REGISTERS_64 ", {%64,%65,%66,%67}, %68, p, 1, 1, 0;\n}\n"
      : KEEP_64("f", d)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

__device__ __forceinline__ void barrier_init(uint64_t* barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}
// After the inits and before the block's barrier: makes them visible to bulk copies.
__device__ __forceinline__ void barrier_init_fence() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("fence.proxy.async;" ::: "memory");
}
__device__ __forceinline__ void barrier_arrive(uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}
__device__ __forceinline__ void barrier_expect(uint64_t* barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void barrier_wait(uint64_t* barrier, uint32_t parity) {
  asm volatile(
      "{\n.reg .pred p;\nAGAIN:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n"
      "@p bra DONE;\nbra AGAIN;\nDONE:\n}\n" ::"r"(shared_address(barrier)),
      "r"(parity)
      : "memory");
}

// Whole, 16-byte aligned runs of memory into shared memory; `barrier` counts their bytes.
__device__ __forceinline__ void bulk_copy(void* to, const void* from, uint32_t bytes, uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
          shared_address(to)),
      "l"(from), "r"(bytes), "r"(shared_address(barrier))
      : "memory");
}

// Registers of a thread, from here on in its branch; the kernel's launch bounds say how many all have at first.
template <int COUNT>
__device__ __forceinline__ void registers_give() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(COUNT));
}
template <int COUNT>
__device__ __forceinline__ void registers_take() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(COUNT));
}

__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
