"""The live page: what all workers of a gateway see, merged once a second and shown at /dashboard.

A worker sees only its own calls, queues and upstreams. While somebody watches, each writes what it sees
into the run directory, and the worker that answers adds them up: see ``board`` and ``merging``.
"""
