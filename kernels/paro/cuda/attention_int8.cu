// The variants of the 8-bit kernel that native.py chooses from: head width D, key blocks a step KB, slots of the ring,
// warpgroups that compute, and whether the next step's scores are computed during this one's softmax.
#include "int8.cuh"

#define VARIANT(D, KB, STAGES, GROUPS, NAME, AHEAD)                                                                    \
  extern "C" __global__ void __launch_bounds__(128 * (GROUPS + 1), 1)                                                  \
      attention_int8_d##D##_k##KB##_s##STAGES##_g##GROUPS##NAME(const __grid_constant__ Arguments p) {                 \
    stream<Int8<D, KB>, STAGES, GROUPS, AHEAD>(p);                                                                     \
  }

VARIANT(64, 2, 4, 3, , false)
VARIANT(64, 1, 8, 3, _ahead, true)
VARIANT(128, 1, 4, 3, , false)
VARIANT(128, 1, 6, 2, _ahead, true)
