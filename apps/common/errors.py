"""Errors a user can act on.

    CriaError                     exit code 1
    ├── InputError                exit code 2: bad input; also a ValueError
    │   ├── ConfigError           a setting is wrong or unknown
    │   ├── TemplateError         a chat template cannot be used
    │   └── NotFoundError         also a FileNotFoundError
    ├── StorageError              exit code 1: disk or bucket failed; also an OSError
    │   └── UnusablePathError     exit code 2: a local path is kept from us, or of the wrong kind
    └── CorruptError              exit code 1: a file is not what its writer left; also a ValueError

Every message is one sentence or two: the offending value, what was expected, how to mend it.
Instances hold only their message, so that they pickle between Ray processes unchanged.
"""


class CriaError(Exception):
    """Base of all errors that end a command with a sentence instead of a traceback."""

    exit_code = 1

    @property
    def sentence(self) -> str:
        return str(self.args[0]) if self.args else type(self).__name__

    def __str__(self) -> str:
        return self.sentence


class InputError(CriaError, ValueError):
    """Something the user gave is wrong."""

    exit_code = 2


class ConfigError(InputError):
    """A setting is unknown, out of range or contradicts another."""


class TemplateError(InputError):
    """A chat template lacks what training or serving needs."""


class NotFoundError(InputError, FileNotFoundError):
    """A path, bucket, run or model does not exist."""


class StorageError(CriaError, OSError):
    """Reading or writing storage failed."""


class UnusablePathError(StorageError):
    """A path of this machine may not be opened, or is a folder where a file is wanted."""

    exit_code = 2


class CorruptError(CriaError, ValueError):
    """A file exists but is not what its writer left."""


def in_one_line(error: BaseException, most_chars: int = 300) -> str:
    """All that an error of others says; its kind where it says nothing."""
    return " ".join(str(error).split())[:most_chars] or type(error).__name__


def first_line(error: BaseException, most_chars: int = 200) -> str:
    """What an error of others says first; its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:most_chars]
