"""Drag-and-Drop LLMs (arXiv 2506.16406): prompts in, LoRA weights out."""
