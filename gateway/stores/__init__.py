"""What outlives a process, in a SQL database: keys, and operators' orders."""
