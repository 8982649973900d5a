// The 8-bit kernel for each head width D: key blocks a step KB, slots of the ring, warpgroups that compute, and whether
// they hold their queries in registers.
#include "int8.cuh"

#define VARIANT(D, KB, STAGES, GROUPS, HOLD)                                                                           \
  extern "C" __global__ void __launch_bounds__(128 * (GROUPS + 1), 1)                                                  \
      attention_int8_d##D##_k##KB##_s##STAGES##_g##GROUPS(const __grid_constant__ Arguments p) {                       \
    stream<Int8<D, KB, HOLD>, STAGES, GROUPS>(p);                                                                      \
  }

VARIANT(64, 2, 4, 3, true)
VARIANT(128, 1, 4, 3, false)
