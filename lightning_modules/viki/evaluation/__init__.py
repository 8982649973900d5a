"""How well a policy answers, beside the controls that do not look, do not read, or do not think."""
