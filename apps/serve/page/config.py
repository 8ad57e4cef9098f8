"""Settings of the web page: the `page` part of serve.yaml."""

import ipaddress
import math
import os
import re
from dataclasses import dataclass, field
from typing import Literal

from apps.common.errors import ConfigError
from apps.common.files import config as configs
from apps.common.files.endpoints import EndpointSettings, read_key

_ORIGIN = re.compile(r"https?://[A-Za-z0-9.-]+(?::\d+)?")


@dataclass(frozen=True, kw_only=True, slots=True)
class PageLimits:
    """How much may be asked on the page; 0 anywhere: as much as one likes.

    A battle's question asks for two answers. A question counts when it comes, also where moderation
    or a model that is not up stops it later. A second try, and a look where an answer came from,
    count as an answer each. An address counts with its block: /24, or /48 of IPv6.
    """

    answers_per_minute: int = 20
    """of one visitor"""
    answers_per_hour: int = 240
    """of one visitor"""
    address_answers_per_hour: int = 960
    """of one block of addresses"""
    all_answers_per_hour: int = 0
    """of all visitors together"""
    running_answers: int = 4
    """of one visitor at a time"""
    all_running_answers: int = 0
    """of all visitors together at a time"""
    tokens_per_day: int = 0
    """in the answers to one visitor"""
    all_tokens_per_day: int = 0
    """in the answers to all visitors together"""
    votes_per_hour: int = 60
    """of one visitor"""
    all_votes_per_hour: int = 0
    """of all visitors together"""
    address_wrong_passwords_per_hour: int = 30
    """of one block of addresses; who has logged in goes on"""
    all_wrong_passwords_per_hour: int = 300
    """of all together: a guess is slow then, from however many places it comes"""

    def __post_init__(self) -> None:
        configs.at_least(0, self, "page.limits.", *self.__dataclass_fields__)


@dataclass(frozen=True, kw_only=True, slots=True)
class PageConfig:
    """The web page."""

    enabled: bool = True
    title: str = "Cria"
    replicas: int = 1
    """processes of the page; any of them serves any visitor"""
    examples: tuple[str, ...] = ()
    """questions offered on an empty page"""
    terms: str = ""
    """what a visitor must agree to before asking, in a few sentences; empty: nothing is asked"""
    api_key_env: str = ""
    """environment variable with the key the page uses when the gateway asks for keys"""
    database_url: str = ""
    """SQLAlchemy URL of conversations and votes; empty: page.db beside this file"""
    database_url_env: str = ""
    """environment variable with such a URL, in place of database_url: it may hold a password"""
    origin: str = ""
    """how visitors reach the page, as https://chat.example.org; other hosts are then refused"""
    login_password_env: str = ""
    """environment variable with a password that visitors must know; empty: none"""
    login_header: str = ""
    """header in which a trusted proxy names whom it has logged in, such as X-Auth-Request-User"""
    trusted_proxies: tuple[str, ...] = ()
    """addresses or blocks whose X-Forwarded-For is believed, such as 10.0.0.0/8"""
    frame_ancestors: tuple[str, ...] = ()
    """origins of pages that may show this one in a frame"""
    battle_weights: dict[str, float] = field(default_factory=dict)
    """how often a model is drawn for battles, beside 1 for the others; 0: never"""
    evaluation: str = ""
    """folder of `python -m apps.eval` that visitors may read; empty: none"""
    sources: dict[str, str] = field(default_factory=dict[str, str])
    """model -> file of `python -m apps.data index`: visitors may then ask where its answers came
    from, and read up to five passages of its training data. None is shown of other models"""
    moderation: Literal["none", "lexicon", "endpoint"] = "none"
    """what reads questions and answers; lexicon: the word list of apps/common"""
    moderation_endpoint: EndpointSettings | None = None
    """OpenAI's moderation API, such as {base_url: http://127.0.0.1:9000/v1, model: guard}"""
    retention_days: int = 0
    """conversations older than this are deleted; 0: none are"""
    max_input_chars: int = 12_000
    max_turns: int = 50
    limits: PageLimits = field(default_factory=PageLimits)

    def __post_init__(self) -> None:
        configs.at_least(1, self, "page.", "replicas", "max_input_chars", "max_turns")
        configs.at_least(0, self, "page.", "retention_days")
        if self.database_url and self.database_url_env:
            raise ConfigError("page.database_url and page.database_url_env are both set; give one.")
        for name, weight in self.battle_weights.items():
            if not 0 <= weight < math.inf:
                raise ConfigError(f"page.battle_weights.{name} is {weight}; expected 0 or more.")
        if self.origin and not _ORIGIN.fullmatch(self.origin):
            raise ConfigError(
                f"page.origin is {self.origin!r}; expected a scheme and a host, such as "
                "https://chat.example.org, without a path."
            )
        for origin in self.frame_ancestors:
            if not _ORIGIN.fullmatch(origin):
                raise ConfigError(
                    f"page.frame_ancestors has {origin!r}; expected origins such as "
                    "https://lab.example.org."
                )
        if (self.moderation == "endpoint") != (self.moderation_endpoint is not None):
            raise ConfigError(
                "page.moderation: endpoint and page.moderation_endpoint need each other; give "
                "the endpoint's base_url, or neither."
            )
        if self.login_header and not self.trusted_proxies:
            raise ConfigError(
                "page.login_header is believed from page.trusted_proxies only; name the proxy "
                "that logs visitors in."
            )
        for block in self.trusted_proxies:
            try:
                ipaddress.ip_network(block, strict=False)
            except ValueError as error:
                raise ConfigError(
                    f"page.trusted_proxies has {block!r}; expected an address or a block such as "
                    "10.0.0.0/8."
                ) from error


def database_url(page: PageConfig) -> str:
    """Where the page's process finds it. Raises ConfigError where its variable is not set here."""
    if not page.database_url_env:
        return page.database_url
    return _from_variable(page.database_url_env, "page.database_url_env", "the database's URL")


def login_password(page: PageConfig) -> str:
    """What visitors must know; "": nothing. Raises ConfigError where its variable is not set."""
    if not page.login_password_env:
        return ""
    return _from_variable(page.login_password_env, "page.login_password_env", "the page's password")


def check_secrets(page: PageConfig, *, needs_key: bool) -> None:
    """Raises ConfigError where the environment lacks what the page's process will read."""
    database_url(page)
    login_password(page)
    if needs_key and read_key(page.api_key_env) is None:
        raise ConfigError(
            f"page.api_key_env names {page.api_key_env}, which is not set; put the page's key "
            "there, or set page.enabled to false."
        )


def check_folder(database: str) -> None:
    """Raises ConfigError where a file of SQLite would lie in no folder that takes it."""
    scheme, _, path = database.partition(":///")
    folder = os.path.dirname(path.partition("?")[0])
    if scheme.startswith("sqlite") and folder and not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(
            f"page.database_url is {database}; the folder {folder} does not exist or takes no "
            "files. Make it, or name another."
        )


def _from_variable(variable: str, setting: str, what: str) -> str:
    if value := os.environ.get(variable):
        return value
    raise ConfigError(
        f"{setting} names {variable}, which is not set; put {what} there, where the page runs."
    )
