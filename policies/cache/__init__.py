"""Answers that are given again: exact, coalesced, and close enough in meaning."""
