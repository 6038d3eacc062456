"""The wire: OpenAI's request envelopes, error bodies and server-sent events."""
