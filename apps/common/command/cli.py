"""The command line that every app shares.

`python -m apps.X COMMAND [--preset NAME] [--config FILE.yaml] [--log-format auto|json|text] ...`

Settings are taken, each overriding the one before, from the defaults of the command's dataclass,
the preset, the YAML file and the command line. Exit codes: 0 done, 2 bad input or settings (one
sentence on standard error), 1 anything else, 130 after Ctrl-C, 141 when the reader of its output
left.
"""

import contextlib
import dataclasses
import io
import os
import re
import select
import sys
import traceback
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import tyro

from apps.common.command import interrupt
from apps.common.command.events import Reporter
from apps.common.errors import ConfigError, CriaError, InputError
from apps.common.files import config as configs
from apps.common.version import VERSION

_LOG_FORMATS = ("auto", "json", "text")
_READER_LEFT = 141
"""what a shell reports of a program whose output nobody read to its end (128 + SIGPIPE)"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """One subcommand: its settings, what it runs, and its presets."""

    config: type[Any]
    run: Callable[[Any, Reporter], None]
    help: str
    example: str = ""
    """Arguments of one run, as they are typed behind the command's name; `--help` opens with it."""
    notes: str = ""
    """What `--help` says after the example, before the settings."""
    presets: Mapping[str, Callable[[], Any]] = field(default_factory=dict[str, Callable[[], Any]])
    """Functions that return a whole configuration; its required fields are placeholders and must
    come from the command line."""


def run(prog: str, commands: Mapping[str, Command], argv: Sequence[str] | None = None) -> int:
    """Parse, run and return the exit code."""
    args = list(sys.argv[1:] if argv is None else argv)
    return _supervised(prog, lambda: _dispatch(prog, commands, args))


def run_single(prog: str, command: Command, argv: Sequence[str] | None = None) -> int:
    """As `run`, for a program that has no subcommands."""
    args = list(sys.argv[1:] if argv is None else argv)
    return _supervised(prog, lambda: _execute(prog, command, args))


def _supervised(prog: str, work: Callable[[], int]) -> int:
    try:
        code = _outcome(prog, work)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        if not _reader_left():
            raise
        return _READER_LEFT


def _reader_left() -> bool:
    """Whether nobody reads what we print, as after `| head`; from then on it goes nowhere."""
    outputs = select.poll()
    outputs.register(1, 0)
    outputs.register(2, 0)
    if not any(state & (select.POLLERR | select.POLLHUP) for _, state in outputs.poll(0)):
        return False
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    return True


def _outcome(prog: str, work: Callable[[], int]) -> int:
    try:
        return work()
    except KeyboardInterrupt:
        print(interrupt.SENTENCE, file=sys.stderr)
        return 130
    except SystemExit as stop:
        return int(stop.code or 0)
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _reader_left():
            return _READER_LEFT
        known = _known(error)
        if known is None or os.environ.get("CRIA_TRACEBACK") == "1":
            traceback.print_exc()
        if known is not None:
            print(f"{prog}: {known.sentence}", file=sys.stderr)
            return known.exit_code
        return 1


def _dispatch(prog: str, commands: Mapping[str, Command], args: list[str]) -> int:
    if not args or args[0] in ("-h", "--help"):
        print(_usage(prog, commands))
        return 0 if args else 2
    if args[0] == "--version":
        print(f"Cria {VERSION}")
        return 0
    name, rest = args[0], args[1:]
    if name not in commands:
        valid = ", ".join(commands)
        raise InputError(f"{name!r} is not a command of {prog}; expected one of {valid}.")
    return _execute(f"{prog} {name}", commands[name], rest)


def _execute(prog: str, command: Command, rest: list[str]) -> int:
    log_format = _take(rest, "--log-format") or "auto"
    if log_format not in _LOG_FORMATS:
        raise InputError(f"--log-format is {log_format!r}; expected one of {_LOG_FORMATS}.")
    sources = [_preset_flags(command, _take(rest, "--preset"), rest)]
    config_uri = _take(rest, "--config")
    if config_uri is not None:
        sources.append(_flags(configs.load_yaml(config_uri), command.config))
    if _wants_help(rest):
        print(f"For example: python -m {prog} {command.example}".rstrip(), end="\n\n")
        if command.notes:
            print(command.notes, end="\n\n")
    settings = _parse(command, prog, _joined([*sources, rest], command.config))
    command.run(settings, Reporter(cast(Any, log_format)))
    return 0


def _joined(sources: Sequence[Sequence[str]], config: type[Any]) -> list[str]:
    """One command line of several, each overriding those before it.

    `--model A --model B` becomes `--model A B`, for the parser would silently keep only the last.
    Lists go to the end, where they take nothing else in.
    """
    names = {configs.flag(name) for name in _lists_of(config)}
    plain: list[str] = []
    lists: dict[str, list[str]] = {}
    *others, typed = sources
    end = typed.index("--") if "--" in typed else len(typed)
    for args in (*others, typed[:end]):
        own: dict[str, list[str]] = {}
        target = plain
        for arg in args:
            flag, equals, value = arg.partition("=")
            flag = flag.replace("_", "-")
            if flag in names:
                target = own.setdefault(flag, [])
                target += [value] if equals else []
            else:
                target = plain if arg.startswith("--") else target
                target.append(arg)
        lists |= own
    return [*plain, *(arg for flag, of in lists.items() for arg in (flag, *of)), *typed[end:]]


def _lists_of(config: type[Any]) -> Iterator[str]:
    """Dotted names of the settings that take any number of values behind their flag."""
    hints = typing.get_type_hints(config, include_extras=True)
    for name in (f.name for f in dataclasses.fields(config)):
        hint = hints[name]
        if typing.get_origin(hint) is tuple:
            yield name
        elif isinstance(hint, type) and dataclasses.is_dataclass(hint):
            yield from (f"{name}.{inner}" for inner in _lists_of(hint))


def _parse(command: Command, prog: str, args: list[str]) -> Any:
    extra = "Also: --config FILE.yaml, --log-format auto|json|text"
    if command.presets:
        extra += f", --preset {'|'.join(command.presets)}"
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(
                command.config,
                prog=f"python -m {prog}",
                description=f"{command.help}\n\n{extra}.",
                args=args,
                config=(tyro.conf.AvoidSubcommands,),
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        known = _known(stop)
        raise known or InputError(_flatten(complaint.getvalue())) from None


def _flatten(box: str) -> str:
    """One line of the parser's framed message, without the frame's title."""
    body = "\n".join(line for line in box.splitlines() if not line.startswith("\u256d"))
    words = " ".join(re.sub(r"[\u2500-\u257f]|-{3,}", " ", body).split())
    words = words.replace(" Argument helptext: ", "; expected ").replace(" Perhaps", "; perhaps")
    return re.sub(r"\.? For full helptext,.*", "; see --help.", words)


def _preset_flags(command: Command, preset: str | None, rest: list[str]) -> list[str]:
    if preset is None:
        return []
    if preset not in command.presets:
        valid = ", ".join(command.presets) or "none"
        raise ConfigError(f"Preset {preset!r} is unknown; presets of this command: {valid}.")
    if _wants_help(rest):
        return []
    settings = configs.to_dict(command.presets[preset]())
    required = {f.name for f in dataclasses.fields(command.config) if _is_required(f)}
    kept = {k: v for k, v in settings.items() if k not in required}
    return _flags(kept, command.config)


def _wants_help(args: Sequence[str]) -> bool:
    return any(arg in ("-h", "--help") for arg in args)


def _is_required(f: dataclasses.Field[object]) -> bool:
    missing = dataclasses.MISSING
    return f.default is missing and f.default_factory is missing


def _flags(values: Mapping[str, object], cls: type[Any], prefix: str = "") -> list[str]:
    """Settings as command-line flags, so that all sources are checked by one parser."""
    hints = typing.get_type_hints(cls) if dataclasses.is_dataclass(cls) else {}
    flags: list[str] = []
    for key, value in values.items():
        if hints and key not in hints:
            configs.from_dict(cls, {key: value}, where=prefix)  # raises, naming the nearest setting
        flag = f"{prefix}{key}".replace("_", "-")
        if isinstance(value, Mapping):
            inner = cast(type[Any], hints.get(key, object))
            flags += _flags(cast(Mapping[str, object], value), inner, f"{prefix}{key}.")
        elif isinstance(value, bool):
            stem, _, leaf = flag.rpartition(".")
            no = f"{stem}.no-{leaf}" if stem else f"no-{leaf}"
            flags.append(f"--{flag if value else no}")
        elif isinstance(value, list | tuple):
            flags += [f"--{flag}", *(str(v) for v in cast(Sequence[object], value))]
        else:
            flags.append(f"--{flag}={value}")  # one word: a value may begin with a dash
    return flags


def _take(args: list[str], flag: str) -> str | None:
    """Remove `flag VALUE` or `flag=VALUE` from args and return the value."""
    for i, arg in enumerate(args):
        if arg == flag:
            if i + 1 == len(args):
                raise InputError(f"{flag} needs a value; see --help.")
            value = args[i + 1]
            del args[i : i + 2]
            return value
        if arg.startswith(flag + "="):
            del args[i]
            return arg.split("=", 1)[1]
    return None


def _known(error: BaseException) -> CriaError | None:
    """Our own error behind an exception; Ray wraps a task's error and keeps it as `cause`.

    A file that the system keeps from us is the user's to mend.
    """
    seen: BaseException | None = error
    while seen is not None:
        cause = getattr(seen, "cause", None)
        if isinstance(cause, CriaError):
            return cause
        if isinstance(seen, CriaError):
            return seen
        if isinstance(seen, PermissionError) and isinstance(seen.filename, str):
            return InputError(
                f"{seen.filename} may not be opened by this user; give another path, or change who "
                "may read and write it."
            )
        seen = cause if isinstance(cause, BaseException) else seen.__cause__ or seen.__context__
    return None


def rows(commands: Mapping[str, Command]) -> list[str]:
    """One line for each command."""
    width = max(len(name) for name in commands)
    return [f"  {name:<{width}}  {command.help}" for name, command in commands.items()]


def _usage(prog: str, commands: Mapping[str, Command]) -> str:
    head, end = f"usage: python -m {prog} COMMAND ...", "COMMAND --help lists its settings."
    return "\n".join([head, "", *rows(commands), "", end])
