"""VIKI-R: policies for heterogeneous robots by supervised finetuning and GRPO (arXiv 2506.09049)."""
