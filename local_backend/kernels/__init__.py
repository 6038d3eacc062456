"""Faster forms of the model's products, each with a plain torch form that it must agree with."""
