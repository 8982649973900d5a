"""What goes in: one folder per paper, and what they share."""
