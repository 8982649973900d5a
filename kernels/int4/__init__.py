"""Attention at 4 bits by the matrix units' own 4-bit products (mma m16n8k64), written in CUTLASS's CuTe DSL."""
