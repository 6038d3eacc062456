"""Upstreams: each a Service that speaks a provider's dialect."""
