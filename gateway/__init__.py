"""The async gateway: HTTP in, providers out, and the wiring between them."""
