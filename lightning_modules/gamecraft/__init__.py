"""Hunyuan-GameCraft (arXiv 2506.17201): causal video VAE, MM-DiT with a camera, and what plays them."""
