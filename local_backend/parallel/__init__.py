"""Tensor and expert parallelism: several processes hold one model, each a share of every layer."""
