"""The one place that reads the clock; durations are measured, never decided by."""

import time


def now() -> float:
    """Seconds on the monotonic clock."""
    return time.monotonic()  # noqa: TID251


def cpu_time() -> float:
    """Seconds that the cores worked for this process, all threads together."""
    return time.process_time()


def unix_time() -> int:
    """Seconds since 1970, for the `created` fields of OpenAI's objects."""
    return int(time.time())  # noqa: TID251
