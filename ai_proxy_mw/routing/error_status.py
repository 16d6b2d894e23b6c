"""Which HTTP status an error stands for that was told inside a stream."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

UNKNOWN = 500

_NAMED = {
    # Anthropic
    "api_error": 500,
    "authentication_error": 401,
    "billing_error": 402,
    "invalid_request_error": 400,
    "not_found_error": 404,
    "overloaded_error": 529,
    "permission_error": 403,
    "rate_limit_error": 429,
    "request_too_large": 413,
    "timeout_error": 504,
    # OpenAI
    "bio_policy": 400,
    "content_filter": 400,
    "context_length_exceeded": 400,
    "data_residency_mismatch": 400,
    "empty_image_file": 400,
    "failed_to_download_image": 400,
    "image_content_policy_violation": 400,
    "image_file_not_found": 400,
    "image_file_too_large": 400,
    "image_parse_error": 400,
    "image_too_large": 400,
    "image_too_small": 400,
    "insufficient_quota": 429,
    "invalid_api_key": 401,
    "invalid_base64_image": 400,
    "invalid_image": 400,
    "invalid_image_format": 400,
    "invalid_image_mode": 400,
    "invalid_image_url": 400,
    "invalid_prompt": 400,
    "misalignment_policy_violation": 400,
    "model_not_found": 404,
    "rate_limit_exceeded": 429,
    "requests": 429,
    "server_error": 500,
    "server_is_overloaded": 503,
    "service_unavailable_error": 503,
    "slow_down": 429,
    "tokens": 429,
    "unsupported_image_media_type": 400,
    "vector_store_timeout": 504,
    # Hugging Face
    "overloaded": 429,
    "validation": 422,
    # another proxy like this one
    "upstream_busy": 503,
    "upstream_error": 502,
    "upstream_timeout": 504,
}
"""By `code` or `type`; providers use both, and the first says more where it is known."""

_PLACES = ("code", "status", "status_code", "type", "error_type")


def status_of(*told: Any) -> int:
    """The status of the first that says one: objects of the error, from the innermost outwards."""
    statuses = (_status(value) for each in told for value in _values(each))
    return next((status for status in statuses if status), UNKNOWN)


def _values(told: Any) -> Iterator[Any]:
    if isinstance(told, Mapping):
        for place in _PLACES:
            yield told.get(place)


def _status(value: Any) -> int:
    """A status between 400 and 599; 0 for what is none."""
    if isinstance(value, str):
        if len(value) != 3 or not value.isdecimal():
            return _NAMED.get(value.lower(), 0)
        value = int(value)
    return value if type(value) is int and 400 <= value <= 599 else 0
