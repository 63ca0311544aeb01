"""The exceptions that aren't bugs: the input is bad, the machine failed, or a signal came."""

from typing import NoReturn

from system.names import printable


class InputError(ValueError):
    """Bad input: a flag, a file, a folder.

    The message is one line: the flag or file, the value found, and what would be right. Scripts
    print only that line and exit with status 2 (see `cli.run`).
    """


class Fault(Exception):  # noqa: N818 (nothing is wrong with the program)
    """The machine failed this process: memory ran out, or a worker was killed.

    Scripts print the message, which is one line, and exit with status 2. Other ranks don't raise
    it: they are ended when this process ends.
    """


class Stopped(Exception):  # noqa: N818 (nothing is wrong)
    """A signal came; the message is its name."""


def shorten(value: object, most: int = 200) -> str:
    """A value or an error as part of a message: the beginning of its first line, with unprintable
    characters as escapes."""
    line = (str(value).splitlines() or [""])[0]
    return printable(line if len(line) <= most else line[:most] + "…")


def raise_unlistable(error: OSError) -> NoReturn:
    """The `onerror` of `os.walk`.

    Raises:
        InputError: always, naming the folder.
    """
    raise InputError(f"{error.filename}: cannot list this folder: {error.strerror}") from error
