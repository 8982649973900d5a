"""Group relative policy optimisation of a `VikiPolicy` (arXiv 2506.09049, section 4): in Lightning, and in RLlib."""
