"""A plug-in as somebody else would write it: a model, its data and a command."""
