"""Measures the model and the server: arithmetic, memory traffic, time and energy."""
