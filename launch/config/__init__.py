"""What to run: experiment files read, expanded, checked and explained. No torch."""
