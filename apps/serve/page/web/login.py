"""Who may use a page that is not for everybody: a password, or a proxy that has checked already."""

import hmac
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie

from itsdangerous import BadSignature, URLSafeTimedSerializer

from apps.serve.page.config import PageConfig, login_password

COOKIE = "cria_login"
_WEEK_S = 7 * 24 * 3600


class Door:
    """Open where neither is configured. Raises ConfigError when the password is not set."""

    def __init__(self, page: PageConfig, secret: str) -> None:
        self._header = page.login_header.lower().encode()
        self._password = login_password(page).encode()
        # Another password ends every login that the old one opened.
        self._signer = URLSafeTimedSerializer(secret.encode() + self._password, salt="login")
        self._flags = "; Secure" if page.origin.startswith("https:") else ""

    def is_open_for(self, headers: Mapping[bytes, bytes], peer_is_proxy: bool) -> bool:
        if self._header and peer_is_proxy and headers.get(self._header):
            return True
        if self._password and self._is_logged_in(headers):
            return True
        return not (self._header or self._password)

    def opened_by(self, password: str) -> str:
        """The cookie that a right password earns; "" for a wrong one."""
        if not self._password or not hmac.compare_digest(password.encode(), self._password):
            return ""
        value = str(self._signer.dumps("in"))
        return f"{COOKIE}={value}; Path=/; Max-Age={_WEEK_S}; HttpOnly; SameSite=Lax{self._flags}"

    def _is_logged_in(self, headers: Mapping[bytes, bytes]) -> bool:
        cookies = SimpleCookie()
        try:
            cookies.load(headers.get(b"cookie", b"").decode("latin-1"))
            return self._signer.loads(cookies[COOKIE].value, max_age=_WEEK_S) == "in"
        except (BadSignature, CookieError, KeyError, ValueError):
            return False
