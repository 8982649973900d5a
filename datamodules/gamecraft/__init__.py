"""Gameplay clips with exact cameras: engines, recorder, shards and batches (arXiv 2506.17201)."""
