"""Pure resilience logic: no HTTP, no web framework, no database, no global clock."""
