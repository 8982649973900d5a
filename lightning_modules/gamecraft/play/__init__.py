"""Playing the model: a session that works ahead, the local page, films without a page, the command."""
