"""The async gateway: HTTP in, providers out, and the wiring between them."""

from importlib.metadata import version

__version__ = version("tidegate")
