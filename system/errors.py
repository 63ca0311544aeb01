"""The exceptions that mean something else than a bug: what you gave me is wrong, and stop."""

from system.names import printable


class InputError(ValueError):
    """Bad input from outside: a flag, a file, a folder.

    Its message is one line that names the flag or file, the value found and what would be right;
    the scripts print just that line and exit with status 2 (see `cli.run`).
    """


class Stopped(Exception):  # noqa: N818 (nothing is wrong)
    """A signal has asked the program to stop; the message is its name."""


def shorten(value: object, most: int = 200) -> str:
    """A text, or what an error says, as it stands in a message: the beginning of its first line,
    with escapes for what a terminal would not print."""
    line = (str(value).splitlines() or [""])[0]
    return printable(line if len(line) <= most else line[:most] + "…")
