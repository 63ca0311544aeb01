"""The one exception that means "what you gave me is wrong", as opposed to a bug."""


class InputError(ValueError):
    """Bad input from outside: a flag, a file, a folder.

    Its message is one line that names the flag or file, the value found and what would be right;
    the scripts print just that line and exit with status 2 (see `cli.run`).
    """
