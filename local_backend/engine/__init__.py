"""The inference engine: requests, scheduling, latent cache, sampling, and the thread that runs it all."""
