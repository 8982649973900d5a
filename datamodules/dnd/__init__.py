"""Drag-and-Drop LLMs: tasks, LoRA snapshots, weights as tokens, prompt conditions."""
