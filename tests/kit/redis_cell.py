"""The table of cases of redis-cell (src/cell/mod.rs, ``it_rate_limits``): one a second after a burst of 5.

Seconds since the start, volume, remaining, seconds until all is there, seconds until it fits, limited.
As there, what fits already and what never will have a retry-after of -1.
"""

LIMIT = 5
CASES = [
    (0, 6, 5, 0, -1, True),
    (0, 1, 4, 1, -1, False),
    (0, 1, 3, 2, -1, False),
    (0, 1, 2, 3, -1, False),
    (0, 1, 1, 4, -1, False),
    (0, 1, 0, 5, -1, False),
    (0, 1, 0, 5, 1, True),
    (3.0, 1, 2, 3.0, -1, False),
    (3.1, 1, 1, 3.9, -1, False),
    (4.0, 1, 1, 4.0, -1, False),
    (8.0, 1, 4, 1.0, -1, False),
    (9.5, 1, 4, 1.0, -1, False),
    (9.5, 0, 4, 1.0, -1, False),
    (9.5, 2, 2, 3.0, -1, False),
    (9.5, 5, 2, 3.0, 3.0, True),
]
