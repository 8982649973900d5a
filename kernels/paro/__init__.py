"""PAROAttention (arXiv 2506.16054): an axis order and a static block mask for every head, and integer arithmetic."""
