"""Who is connected to this server, whatever headers say."""

from starlette.types import Scope


def peer(scope: Scope) -> str:
    """Address of the other end of the connection; "" where it has none.

    uvicorn believes an X-Forwarded-For from this host unasked, and then says port 0. Such a client
    is a proxy on this host, which is believed when it is configured and otherwise not.
    Source: uvicorn/middleware/proxy_headers.py of uvicorn 0.35; Ray Serve takes its defaults.
    """
    address, port = scope.get("client") or ("", 1)
    return str(address) if port else "127.0.0.1"
