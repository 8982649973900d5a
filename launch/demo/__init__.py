"""`fulgurite demo`: one local page with a tab for each paper."""
