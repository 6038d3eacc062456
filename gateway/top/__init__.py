"""The gateway in a terminal: ``feed`` follows it, ``pace`` makes rates of its sums, ``frame`` draws."""
