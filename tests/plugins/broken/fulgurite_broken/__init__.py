"""A plug-in distribution with every fault that a test asks about."""
