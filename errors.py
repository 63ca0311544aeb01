"""The one exception that means "what you gave me is wrong", as opposed to a bug."""


class InputError(ValueError):
    """Bad input from outside: a flag, a file, a folder.

    Its message is one line that names the flag or file, the value found and what would be right;
    the scripts print just that line and exit with status 2 (see `cli.run`).
    """


def shorten(value: object, most: int = 200) -> str:
    """A text, or what an error says, as it stands in a message: the beginning of its first line,
    with escapes for what a terminal would not print."""
    line = (str(value).splitlines() or [""])[0]
    shown = line if len(line) <= most else line[:most] + "…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)
