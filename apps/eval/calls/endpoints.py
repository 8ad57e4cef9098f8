"""Names on the command line -> endpoints.

    gpt-4o                              a model of OpenAI's, or of what OPENAI_BASE_URL names
    qwen/qwen3                          a model of what OPENAI_BASE_URL names, such as a router
    tuned=http://127.0.0.1:8000/v1      a model behind any OpenAI-compatible endpoint
    tuned=http://127.0.0.1:8000/v1#m    the same, where the endpoint calls it m
    mine                                an entry of the --endpoints file

Whatever else looks like an address is refused before anything is sent: a text that was meant as a
URL must never travel to another host as a model's name.
"""

import os
import re
from collections.abc import Mapping

from apps.common.errors import InputError
from apps.common.files.endpoints import (
    EndpointSettings,
    check_one_credential,
    check_url,
    load_endpoints,
    read_key,
    style_of,
)
from apps.eval.calls.client import Endpoint
from apps.eval.records.answer import check_model_name

_MODEL_NAME = re.compile(r"[\w.\-/:@]+")
_ROUTED = re.compile(r"[\w-]+/[\w.\-:]+")
_ADDRESS = re.compile(
    r"""
      [^/]*:\d{2,5}(?:/|\Z)                  # host:8000
    | localhost\b
    | (?:\d{1,3}\.){3}\d{1,3}\Z              # 10.0.0.1
    | ::                                     # ::1
    | [a-z]+:/ | https?: | / | .*//          # http:/host, /v1, //host
    | .*/v\d+(?:/|\Z) | v\d+/               # host/v1, v1/chat/completions
    | [^/]*\.[^/]*/                          # a dot before the first slash: example.com/api
    | [^/]*\.(?:[a-z]{2}|com|org|net|edu|gov|dev|app|cloud|local(?:domain|host)?|internal
      |intranet|lan|home|corp|host|svc|test|example)\.?\Z     # api.example.com
    """,
    re.IGNORECASE | re.VERBOSE,
)


def parse_named(text: str, flag: str) -> tuple[str, str]:
    """NAME=VALUE, with a name that can be a file's."""
    name, equals, rest = text.partition("=")
    if not equals or not rest:
        raise InputError(
            f"{flag} {text!r} is not NAME=VALUE, such as tuned=http://127.0.0.1:8000/v1"
        )
    return check_model_name(name), rest


def named_endpoints(uri: str | None) -> dict[str, EndpointSettings]:
    """The endpoints of an --endpoints file; none without one."""
    return load_endpoints(uri) if uri else {}


def parse_endpoint(
    text: str,
    flag: str,
    timeout_s: float,
    api_key_env: str,
    named: Mapping[str, EndpointSettings],
) -> tuple[str, Endpoint]:
    """(name, endpoint) of a text on the command line; raises InputError for unknown forms.

    The key of `api_key_env` goes to endpoints given by URL, OPENAI_API_KEY only to OpenAI's own.
    """
    if text in named:
        return text, _from_settings(text, named[text], timeout_s)
    if "=" not in text:
        return text, openai_endpoint(check_plain_name(text, flag), timeout_s)
    name, url = parse_named(text, flag)
    base_url, _, endpoint_model = url.partition("#")
    check_url(base_url, f"{flag} {text!r}:")
    key = _key_for(base_url, api_key_env, f"{flag} {name}")
    return name, Endpoint(
        model=endpoint_model or name,
        base_url=base_url,
        api_key=key,
        timeout_s=timeout_s,
        style=style_of(base_url),
    )


def check_plain_name(text: str, flag: str) -> str:
    """A model's name that is certainly no address."""
    if not _MODEL_NAME.fullmatch(text) or _ADDRESS.match(text):
        model = text if _ROUTED.fullmatch(text) else "model"
        raise InputError(
            f"{flag} {text!r} is neither the name of a model nor NAME=URL; give an endpoint as "
            f"{flag} local=http://127.0.0.1:8000/v1#{model}, or name it in an --endpoints file"
        )
    return text


def openai_endpoint(model: str, timeout_s: float) -> Endpoint:
    """OpenAI, or what OPENAI_BASE_URL names, with OPENAI_API_KEY."""
    base_url = os.environ.get("OPENAI_BASE_URL", "").strip() or None
    if base_url:
        check_url(base_url, "OPENAI_BASE_URL")
    elif "/" in model:
        own = model.rpartition("/")[2]
        raise InputError(
            f"{model!r} is a router's name, and OpenAI's own models have no slash; set "
            f"OPENAI_BASE_URL to the router, give {own}=URL#{model}, or write {own} for OpenAI's"
        )
    key = _key_for(base_url, "OPENAI_API_KEY", "OPENAI_BASE_URL")
    if not key and not base_url:
        raise InputError(
            f"{model} needs an API key and OPENAI_API_KEY is not set; export it, set "
            "OPENAI_BASE_URL to an endpoint without keys, or name an endpoint of its own as "
            f"{model}=http://127.0.0.1:8000/v1"
        )
    return Endpoint(
        model=model,
        base_url=base_url,
        api_key=key,
        timeout_s=timeout_s,
        style=style_of(base_url) if base_url else "openai",
    )


def _from_settings(name: str, settings: EndpointSettings, timeout_s: float) -> Endpoint:
    key = _key_for(settings.base_url, settings.key_env, f"endpoint {name!r}")
    if settings.key_env and not key:
        raise InputError(f"endpoint {name!r} needs its key in {settings.key_env}; export it")
    return Endpoint(
        model=settings.model or name,
        base_url=settings.base_url,
        api_key=key,
        timeout_s=timeout_s,
        style=settings.style or style_of(settings.base_url),
        headers=settings.headers,
        drop=settings.drop,
        rename=settings.rename,
        limits=settings.limits,
        prices=settings.prices,
    )


def _key_for(base_url: str | None, variable: str | None, what: str) -> str | None:
    key = read_key(variable)
    if key and base_url:
        check_one_credential(base_url, what)
    return key
