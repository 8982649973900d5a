"""Captured queries and keys of attention layers, from which PARO's plans are made (arXiv 2506.16054)."""
