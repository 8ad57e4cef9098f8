"""Who is connected to this server, whatever headers say."""

from starlette.types import Scope

_MAPPED = "::ffff:"
"""before an address of IPv4 that came to a socket of IPv6 (RFC 4291, 2.5.5.2)"""


def without_port(address: str) -> str:
    """Some proxies write `1.2.3.4:567` and `[2001:db8::1]:567` into X-Forwarded-For."""
    if address.startswith("["):
        return as_ipv4(address[1:].partition("]")[0])
    host, _, port = address.rpartition(":")
    return as_ipv4(host if port.isdigit() and ":" not in host else address)


def as_ipv4(address: str) -> str:
    """Of IPv4 without what a socket of IPv6 puts before it."""
    is_mapped = address.lower().startswith(_MAPPED) and "." in address
    return address[len(_MAPPED) :] if is_mapped else address


def peer(scope: Scope) -> str:
    """Address of the other end of the connection; "" where it has none.

    uvicorn believes an X-Forwarded-For from this host unasked, and then says port 0. Such a client
    is a proxy on this host, which is believed when it is configured and otherwise not.
    Source: uvicorn/middleware/proxy_headers.py of uvicorn 0.35; Ray Serve takes its defaults.
    """
    address, port = scope.get("client") or ("", 1)
    return as_ipv4(str(address)) if port else "127.0.0.1"
