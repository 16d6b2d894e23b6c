"""Why a picture is not fetched, as the caller is told: fixed words, nothing of what was found."""

from __future__ import annotations

from ai_proxy_mw._errors import InvalidRequest


def invalid(reason: str) -> InvalidRequest:
    """What is written is not an address that could be fetched."""
    return InvalidRequest(f"The picture's address {reason}.", code="invalid_image_url")


def forbidden() -> InvalidRequest:
    """The host or its address may not be asked; which of both, and the address, is not told."""
    return InvalidRequest("Pictures are not fetched from this address.", code="image_url_forbidden")


def redirected(error: InvalidRequest) -> InvalidRequest:
    """The same of an address that the written one leads to."""
    return InvalidRequest(f"After a redirect: {error.message}", code=error.code)


def unreachable(reason: str) -> InvalidRequest:
    return InvalidRequest(f"The picture could not be fetched: {reason}.", code="image_unreachable")


def too_large(limit: int) -> InvalidRequest:
    return InvalidRequest(f"The picture is larger than {limit} bytes.", code="image_too_large")


def unsupported(formats: tuple[str, ...]) -> InvalidRequest:
    return InvalidRequest(
        f"What is at the picture's address is none of {', '.join(formats)}.",
        code="unsupported_image_format",
    )
