"""Load an OpenAI-compatible endpoint with streamed chats, and say how long its users waited.

``loops`` decides when a chat is sent, ``client`` sends it and notes when its tokens came, ``measure`` makes
figures of that, ``report`` and ``picture`` show them. None of it knows the gateway: it measures any server.
"""
