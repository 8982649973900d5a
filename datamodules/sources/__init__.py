"""Where data and base models come from: the catalogue, the cache and the download."""
