"""OpenTelemetry traces: a span for each request, each attempt, and each layer that did something.

Nothing outside imports this package unless ``observability.otlp`` is set. Policies know nothing of it: the
steps come from the facts that they emit. No prompt, answer, key or text of an error is an attribute.
"""

from gateway.tracing.request import RequestTrace
from gateway.tracing.tracing import Tracing

__all__ = ["RequestTrace", "Tracing"]
