"""The bundled model server: DeepSeek-V3's MLA and MoE around a small model, in its own process.

Tidegate talks to it over loopback HTTP like to any other OpenAI-compatible provider, so a crash here is one
more failover there. Nothing in `gateway` or `policies` imports this package, and it imports neither of them.
"""
