"""A gateway to look at: ``make demo``."""
