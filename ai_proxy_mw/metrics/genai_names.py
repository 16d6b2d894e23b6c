"""What OpenTelemetry calls things: the names of its GenAI semantic conventions, in this one place.

They are those of version 1.41.1, the last release of the conventions that has them. Since 1.42.0
they have a repository of their own, which has not released anything; there the histogram of
tokens is to be replaced. All of them are still of status "development".

Names of ours begin with `ai_proxy.`.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ai_proxy_mw.accounting.record import Record

VERSION: Final = "1.41.1"
SCHEMA_URL: Final = f"https://opentelemetry.io/schemas/{VERSION}"

OPERATION: Final = "gen_ai.operation.name"
OUTPUT_TYPE: Final = "gen_ai.output.type"
PROVIDER: Final = "gen_ai.provider.name"
REQUEST_MODEL: Final = "gen_ai.request.model"
REQUEST_STREAM: Final = "gen_ai.request.stream"
RESPONSE_MODEL: Final = "gen_ai.response.model"
FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
CACHE_READ_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
CACHE_WRITE_TOKENS: Final = "gen_ai.usage.cache_creation.input_tokens"
REASONING_TOKENS: Final = "gen_ai.usage.reasoning.output_tokens"
TOKEN_TYPE: Final = "gen_ai.token.type"  # noqa: S105 - it is no password
ERROR_TYPE: Final = "error.type"
STATUS: Final = "http.response.status_code"

OWN_REQUEST_ID: Final = "ai_proxy.request_id"
OWN_ENDPOINT: Final = "ai_proxy.endpoint"
OWN_SUBJECT: Final = "ai_proxy.subject"
OWN_OUTCOME: Final = "ai_proxy.outcome"
OWN_CACHE: Final = "ai_proxy.cache"
OWN_UPSTREAM: Final = "ai_proxy.upstream"
OWN_ATTEMPTS: Final = "ai_proxy.attempts"
OWN_MEASURED: Final = "ai_proxy.usage.measured"
OWN_COST: Final = "ai_proxy.cost_micro_usd"
OWN_SAVED: Final = "ai_proxy.saved_micro_usd"

TOKEN_USAGE: Final = "gen_ai.client.token.usage"  # noqa: S105 - see above
DURATION: Final = "gen_ai.client.operation.duration"
TIME_TO_FIRST_CHUNK: Final = "gen_ai.client.operation.time_to_first_chunk"
TOKEN_BOUNDARIES: Final = tuple(4**power for power in range(14))
SECONDS_BOUNDARIES: Final = tuple(0.01 * 2**power for power in range(14))

OTHER: Final = "_OTHER"
"""What stands for a name that is not to be told."""

OPERATIONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "POST /audio/speech": "generate_content",
        "POST /audio/transcriptions": "generate_content",
        "POST /audio/translations": "generate_content",
        "POST /chat/completions": "chat",
        "POST /completions": "text_completion",
        "POST /embeddings": "embeddings",
        "POST /images/edits": "generate_content",
        "POST /images/generations": "generate_content",
        "POST /images/variations": "generate_content",
        "POST /messages": "chat",
        "POST /responses": "chat",
    }
)
"""The endpoints at which a model is asked."""

OUTPUT_TYPES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "POST /audio/speech": "speech",
        "POST /audio/transcriptions": "text",
        "POST /audio/translations": "text",
        "POST /images/edits": "image",
        "POST /images/generations": "image",
        "POST /images/variations": "image",
    }
)
"""What the caller asks for, where the endpoint says so."""

PROVIDERS: Final = frozenset(
    {
        "anthropic",
        "aws.bedrock",
        "azure.ai.inference",
        "azure.ai.openai",
        "cohere",
        "deepseek",
        "gcp.gemini",
        "gcp.gen_ai",
        "gcp.vertex_ai",
        "groq",
        "ibm.watsonx.ai",
        "mistral_ai",
        "openai",
        "perplexity",
        "x_ai",
    }
)


def provider_of(record: Record, named: Mapping[str, str]) -> str:
    """Whose language is spoken: as the owner says, as the upstream is called, or as it looks."""
    name = record.upstream
    if name is not None:
        if name in named:
            return named[name]
        if name in PROVIDERS:
            return name
    return "anthropic" if record.endpoint.startswith("POST /messages") else "openai"


def error_of(record: Record) -> str | None:
    """The kind of error it has ended with. That the caller has left is none."""
    if record.outcome in ("complete", "cancelled"):
        return None
    return record.error or (str(record.status) if record.status >= 400 else record.outcome)
