// The variants of the 8-bit kernel that native.py chooses from: head width D, key blocks a step KB, slots of the ring,
// warpgroups that compute, whether they hold their queries in registers, and whether rounded P is summed.
#include "int8.cuh"

#define VARIANT(D, KB, STAGES, GROUPS, NAME, HOLD, DOT)                                                                    \
  extern "C" __global__ void __launch_bounds__(128 * (GROUPS + 1), 1)                                                  \
      attention_int8_d##D##_k##KB##_s##STAGES##_g##GROUPS##NAME(const __grid_constant__ Arguments p) {                 \
    stream<Int8<D, KB, HOLD, DOT>, STAGES, GROUPS>(p);                                                                 \
  }

VARIANT(64, 2, 4, 3, , false, false)
VARIANT(64, 2, 4, 3, _held, true, false)
VARIANT(64, 2, 4, 3, _dot, false, true)
VARIANT(64, 2, 4, 3, _held_dot, true, true)
VARIANT(128, 2, 3, 2, , false, false)
VARIANT(128, 2, 3, 2, _dot, false, true)
VARIANT(128, 2, 3, 2, _held_dot, true, true)
VARIANT(128, 1, 4, 3, _dot, false, true)
