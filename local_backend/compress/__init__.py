"""Smaller forms of a converted model: a narrower latent, experts that are not all active; their quality."""
