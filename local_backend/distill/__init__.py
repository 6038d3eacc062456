"""Distillation of a sparse student from the exact model, and the small file that holds its outcome."""
