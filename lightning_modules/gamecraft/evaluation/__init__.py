"""The test stage of GameCraft: held-out chunks, the models asked for them, and each measurement with its controls."""
