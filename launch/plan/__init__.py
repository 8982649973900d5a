"""What an experiment would take on a named card, counted without data, weights or a GPU."""
