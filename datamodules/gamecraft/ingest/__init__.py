"""A user's own gameplay video turned into shards, by the paper's pipeline (arXiv 2506.17201, section 4.1)."""
