"""How fast attention backends are, side by side on the same tensors."""
