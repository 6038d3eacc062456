"""What outlives a process: keys, in a SQL database."""
