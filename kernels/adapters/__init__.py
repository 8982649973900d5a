"""How models of diffusers and transformers come to call `kernels.api.attention`, and to say where a call stands."""
