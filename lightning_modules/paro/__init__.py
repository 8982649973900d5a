"""PAROAttention (arXiv 2506.16054): plans from captured attention, and what they cost in quality."""
