"""HTTP in: the OpenAI endpoints, health, metrics and the admin API."""
