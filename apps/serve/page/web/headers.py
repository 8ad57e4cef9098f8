"""The headers of every response, whatever it is: what a browser may do with this page."""

from apps.serve.page.config import PageConfig


def security_headers(page: PageConfig) -> list[tuple[bytes, bytes]]:
    """Nothing from another host, no inline script or style, no form that leaves, no frame around.

    Trusted types: only the policy `cria` of static/dom.js may make HTML, and it takes what the
    server rendered. Source: https://www.w3.org/TR/CSP3/, https://www.w3.org/TR/trusted-types/
    """
    ancestors = " ".join(page.frame_ancestors) or "'none'"
    policy = (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; "
        f"frame-ancestors {ancestors}; require-trusted-types-for 'script'; trusted-types cria"
    )
    headers = {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
        "X-Robots-Tag": "noarchive",
    }
    if not page.frame_ancestors:
        headers["X-Frame-Options"] = "DENY"
    if page.origin.startswith("https:"):
        headers["Strict-Transport-Security"] = "max-age=31536000"
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]
