"""NAME=URL[#ENDPOINT_MODEL] on the command line: a model behind an OpenAI-compatible endpoint."""

import os

from apps.common.errors import InputError
from apps.eval.calls.client import Endpoint, openai_endpoint
from apps.eval.records.answer import check_model_name


def parse_named(text: str, flag: str) -> tuple[str, str]:
    """NAME=VALUE, with a name that can be a file's."""
    name, equals, rest = text.partition("=")
    if not equals or not rest:
        raise InputError(
            f"{flag} {text!r} is not NAME=VALUE, such as tuned=http://127.0.0.1:8000/v1"
        )
    return check_model_name(name), rest


def parse_endpoint(
    text: str, flag: str, timeout_s: float, api_key_env: str = "CRIA_API_KEY"
) -> tuple[str, Endpoint]:
    """(name, endpoint); a name alone is a model of OpenAI's.

    The key of `api_key_env` goes to endpoints given by URL, OPENAI_API_KEY only to OpenAI's own.
    """
    if "=" not in text:
        name = check_model_name(text)
        return name, openai_endpoint(name, timeout_s)
    name, url = parse_named(text, flag)
    base_url, _, endpoint_model = url.partition("#")
    if not base_url.startswith(("http://", "https://")):
        raise InputError(f"{flag} {text!r} has no http URL; expected NAME=http://host:port/v1")
    return name, Endpoint(
        model=endpoint_model or name,
        base_url=base_url,
        api_key=os.environ.get(api_key_env) or "none",
        timeout_s=timeout_s,
    )
