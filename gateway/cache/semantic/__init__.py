"""Answers to prompts that mean the same: who turns text into vectors, and the index of those."""
