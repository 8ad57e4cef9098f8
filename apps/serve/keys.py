"""Keys for the API, in a file that a running service reads again.

    python -m apps.serve keys add ali --file keys.yaml --requests-per-minute 60
    python -m apps.serve keys list --file keys.yaml
    python -m apps.serve keys rotate ali --file keys.yaml --grace-hours 24
    python -m apps.serve keys revoke ali --file keys.yaml

A key is shown once, when it is made; the file holds its digest. Name the file in `serve.yaml`:
`gateway: {keys_file: keys.yaml}`.
"""

import dataclasses
import secrets
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tyro.conf import Positional

from apps.common.command.events import Reporter
from apps.common.errors import ConfigError, InputError, NotFoundError
from apps.common.files import storage
from apps.common.files.config import at_least, flag
from apps.serve.admission.keys import digest
from apps.serve.admission.keys_file import one_writer, read_keys, write_keys
from apps.serve.config import ApiKey

_PREFIX = "sk-cria-"
_HOUR_S = 3600


@dataclass(frozen=True, kw_only=True, slots=True)
class KeysConfig:
    """Add, list, revoke or rotate the keys of a file."""

    action: Positional[Literal["add", "list", "revoke", "rotate"]]
    """what to do"""
    name: Positional[str] = ""
    """whose key"""
    file: str = "keys.yaml"
    """file with the keys; `add` makes it"""
    models: tuple[str, ...] = ()
    """models that an added key may use (default: all)"""
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_streams: int | None = None
    usd_per_day: float | None = None
    weight: float = 1.0
    """share of a busy model, beside other keys"""
    admin: bool = False
    """may read /metrics"""
    may_join: tuple[str, ...] = ()
    """pools that workers with this key may join"""
    grace_hours: float = 0.0
    """how long the old key still holds after `rotate`"""

    def __post_init__(self) -> None:
        at_least(0, self, "", "grace_hours")
        for setting in dataclasses.fields(self):
            reader = "rotate" if setting.name == "grace_hours" else "add"
            is_read = setting.name in ("action", "name", "file") or self.action == reader
            if not is_read and getattr(self, setting.name) != setting.default:
                limits = f" A key's limits are changed in {self.file}." if reader == "add" else ""
                raise ConfigError(
                    f"{flag(setting.name)} is for `keys {reader}`; leave it out.{limits}"
                )


def keys(settings: KeysConfig, reporter: Reporter) -> None:
    if settings.action != "add" and not storage.exists(settings.file):
        raise NotFoundError(
            f"{settings.file} does not exist; give --file FILE, or make it with `keys add NAME`."
        )
    if settings.action == "list":
        for key in read_keys(settings.file):
            reporter.event("serve.key", **_shown(key))
        return
    if not settings.name:
        raise InputError(f"`keys {settings.action}` needs a name: keys {settings.action} NAME.")
    with one_writer(settings.file):
        _change(settings, reporter)


def _change(settings: KeysConfig, reporter: Reporter) -> None:
    all_keys = read_keys(settings.file)
    counts = Counter(key.sha256 for key in all_keys)
    if twice := [key for key in all_keys if counts[key.sha256] > 1]:
        names = " and ".join(repr(key.name) for key in twice[:2])
        raise InputError(
            f"{settings.file} has one key under {names}, so a change of one would be of both; "
            "take one of these entries out."
        )
    own = [key for key in all_keys if key.name == settings.name]
    others = [key for key in all_keys if key.name != settings.name]
    if bool(own) == (settings.action == "add"):
        raise InputError(
            f"{settings.file} has a key of {settings.name!r} already; use `keys rotate`."
            if own
            else f"{settings.file} has no key of {settings.name!r}; `keys list` shows them."
        )
    if settings.action == "revoke":
        write_keys(settings.file, all_keys, others)
        reporter.event("serve.key_revoked", owner=settings.name)
        return
    secret = _PREFIX + secrets.token_urlsafe(32)
    own = [_new(settings, secret)] if settings.action == "add" else _rotated(own, secret, settings)
    write_keys(settings.file, all_keys, [*others, *own])
    reporter.event("serve.key_made", owner=settings.name, key=secret)


def _new(settings: KeysConfig, secret: str) -> ApiKey:
    return ApiKey(
        name=settings.name,
        sha256=digest(secret),
        models=settings.models,
        requests_per_minute=settings.requests_per_minute,
        tokens_per_minute=settings.tokens_per_minute,
        concurrent_streams=settings.concurrent_streams,
        usd_per_day=settings.usd_per_day,
        weight=settings.weight,
        admin=settings.admin,
        may_join=settings.may_join,
    )


def _rotated(own: Sequence[ApiKey], secret: str, settings: KeysConfig) -> list[ApiKey]:
    """The new key has the limits of the one that holds now, and those that remain count as one.

    Without a grace none remains; with one, those do that an earlier rotation gave more time.
    """
    now_s = time.time()
    until = now_s + settings.grace_hours * _HOUR_S
    current = next((key for key in own if key.expires is None), own[0])
    new = dataclasses.replace(current, sha256=digest(secret), expires=None)
    if not settings.grace_hours:
        return [new]
    ends = [until if key.expires is None else key.expires for key in own]
    old = [dataclasses.replace(key, expires=end) for key, end in zip(own, ends, strict=True)]
    return [new, *(key for key, end in zip(old, ends, strict=True) if end > now_s)]


def _shown(key: ApiKey) -> dict[str, object]:
    """Its settings that are not the usual ones; of the digest, enough to tell keys apart."""
    usual = dataclasses.asdict(ApiKey(name=key.name, sha256=key.sha256))
    shown = {n: value for n, value in dataclasses.asdict(key).items() if value != usual[n]}
    return {"owner": key.name, "sha256": key.sha256[:8], **shown}
