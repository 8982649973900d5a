"""Stages with `runner: rllib`: the same model and data as Lightning's, trained by an algorithm of RLlib's."""
