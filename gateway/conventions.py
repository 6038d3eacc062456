"""Names out of OpenTelemetry's semantic conventions that metrics and traces share."""

from policies.service import Operation

OPERATION_NAMES = {
    Operation.CHAT: "chat",
    Operation.COMPLETION: "text_completion",
    Operation.EMBEDDING: "embeddings",
}
"""Values of gen_ai.operation.name."""
