"""The inference engine: requests, scheduling, the latent cache, sampling, and the one thread that runs the model."""
