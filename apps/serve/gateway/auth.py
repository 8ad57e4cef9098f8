"""API keys: only digests are kept, and comparing takes the same time whatever the key."""

import hashlib
import hmac
from collections.abc import Sequence

from apps.serve.config import ApiKey
from apps.serve.errors import ApiError


def authenticate(keys: Sequence[ApiKey], authorization: str | None) -> str:
    """Name of the key's owner; "" where no keys are configured. Raises ApiError 401."""
    if not keys:
        return ""
    scheme, _, given = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not given:
        raise ApiError(
            401,
            "No API key was given; send the header 'Authorization: Bearer YOUR_KEY'.",
            code="missing_api_key",
        )
    digest = hashlib.sha256(given.strip().encode("latin-1")).hexdigest()  # its bytes, as sent
    owner = ""
    for key in keys:  # every key is compared, so that time says nothing about which one matched
        if hmac.compare_digest(digest, key.sha256):
            owner = key.name
    if not owner:
        raise ApiError(401, "The API key is not valid.", code="invalid_api_key")
    return owner
