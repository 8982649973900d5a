"""Synthetic documents: real PDFs typeset from made-up text, with the exact place and role of every block."""
