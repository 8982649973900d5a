// The variants of the 8-bit kernel that native.py chooses from: head width D, key blocks a step KB, slots of the ring,
// thread blocks a multiprocessor.
#include "int8.cuh"

#define VARIANT(D, KB, STAGES, CTAS)                                                                                  \
  extern "C" __global__ void __launch_bounds__(128, CTAS)                                                             \
      attention_int8_d##D##_k##KB##_s##STAGES##_c##CTAS(const __grid_constant__ Arguments p) {                        \
    attend<Int8<D, KB>, STAGES>(p);                                                                                   \
  }

VARIANT(64, 2, 4, 3)
VARIANT(64, 1, 6, 4)
VARIANT(128, 1, 4, 3)
VARIANT(128, 2, 3, 2)
