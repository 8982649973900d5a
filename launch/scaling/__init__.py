"""`fulgurite bench scaling`: the same training step on one GPU and on several."""
