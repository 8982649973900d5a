"""What learns: one folder per paper."""
