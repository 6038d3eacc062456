"""Attributes of OpenTelemetry's semantic conventions, as in opentelemetry-semantic-conventions 0.66b2 (1.44).

Those for generative AI are still in development. What has no name there begins with ``tidegate.``.
"""

OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
REQUEST_STREAM = "gen_ai.request.stream"
RESPONSE_MODEL = "gen_ai.response.model"
FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
CACHED_TOKENS = "gen_ai.usage.cache_read.input_tokens"
REASONING_TOKENS = "gen_ai.usage.reasoning.output_tokens"

ERROR = "error.type"
METHOD = "http.request.method"
ROUTE = "http.route"
STATUS = "http.response.status_code"
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"

REQUEST_ID = "tidegate.request.id"
TENANT = "tidegate.tenant"
TIER = "tidegate.tier"
UPSTREAM = "tidegate.upstream"
OUTCOME = "tidegate.outcome"
FAILURE = "tidegate.failure"
RETRY_AFTER = "tidegate.retry_after"

_PROVIDERS = {
    "azure": "azure.ai.openai",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "bedrock": "aws.bedrock",
    "xai": "x_ai",
}


def provider_name(preset: str) -> str:
    """The well-known name of a preset's provider, else the preset's own."""
    return _PROVIDERS.get(preset, preset)
