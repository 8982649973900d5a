// The 8-bit kernel for each head width D: key blocks a step KB, slots of the ring, warpgroups that compute, and whether
// they hold their queries in registers.
#include "int8.cuh"

#define VARIANT(D, KB, STAGES, GROUPS, HOLD, POLY, HALF, NAME)                                                       \
  extern "C" __global__ void __launch_bounds__(128 * (GROUPS + 1), 1)                                                  \
      attention_int8_d##D##_k##KB##_s##STAGES##_g##GROUPS##NAME(const __grid_constant__ Arguments p) {                 \
    stream<Int8<D, KB, HOLD, POLY, HALF>, STAGES, GROUPS>(p);                                                          \
  }

VARIANT(64, 2, 4, 3, true, 0, false, )
VARIANT(64, 2, 4, 3, true, 0, true, _p0_h1)
VARIANT(64, 2, 4, 3, true, 2, true, _p2_h1)
VARIANT(64, 2, 4, 3, true, 4, true, _p4_h1)
VARIANT(64, 2, 4, 3, true, 6, true, _p6_h1)
VARIANT(64, 2, 4, 3, true, 8, true, _p8_h1)
VARIANT(128, 1, 4, 3, false, 0, false, )
VARIANT(128, 1, 4, 3, false, 0, true, _p0_h1)
VARIANT(128, 1, 4, 3, false, 2, true, _p2_h1)
VARIANT(128, 1, 4, 3, false, 4, true, _p4_h1)
VARIANT(128, 1, 4, 3, false, 6, true, _p6_h1)
VARIANT(128, 1, 4, 3, false, 8, true, _p8_h1)
VARIANT(64, 1, 4, 4, true, 0, true, _p0_h1)
VARIANT(64, 1, 4, 4, true, 2, true, _p2_h1)
VARIANT(64, 1, 4, 4, true, 4, true, _p4_h1)
