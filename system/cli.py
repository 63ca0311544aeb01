"""The command line of every script: one-line errors, exit status 2, types of flags, the help."""

import argparse
import contextlib
import io
import math
import multiprocessing
import os
import reprlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from system.errors import Fault, InputError, shorten
from system.names import printable

LONGEST_SILENCE = 20  # seconds; on a busy machine, ranks may start that far apart


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults, keeps paragraphs, and doesn't wrap the example, so that it can be copied."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        without = action.default is None or action.default is False
        return action.help if without else super()._get_help_string(action)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.startswith(("Example: ", "Details: ")):
            return text
        fill = super()._fill_text
        return "\n\n".join(fill(paragraph, width, indent) for paragraph in text.split("\n\n"))


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, without the usage text.

    Args:
        example: a command with these flags, at the end of the help.
        details: the script's page in docs/, below the example.
        owner_of: called with an unknown flag; returns what it belongs to, if that is known.
    """

    def __init__(
        self,
        *,
        example: str | None = None,
        details: str | None = None,
        owner_of: Callable[[str], str | None] = lambda flag: None,
        **kwargs: Any,
    ) -> None:
        self.owner_of = owner_of
        kwargs.setdefault("formatter_class", _Help)
        kwargs.setdefault("prog", _command())
        ending = {"Example": example, "Details": details}
        if lines := [f"{name}: {text}" for name, text in ending.items() if text is not None]:
            kwargs["epilog"] = "\n".join(lines)
        super().__init__(**kwargs)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        found, unknown = super().parse_known_args(args, namespace)
        for word in unknown:
            flag = word.partition("=")[0]
            if word.startswith("--") and (owner := self.owner_of(flag)):
                self.error(f"argument {flag}: belongs to {owner}")
        if len(unknown) > 1 and all(map(os.path.exists, unknown)):
            self.error(
                f"{len(unknown):,} files too many, such as {shorten(unknown[0])}; put a "
                "pattern in quotes, so that the shell doesn't expand it"
            )
        return found, unknown

    def print_help(self, file: Any = None) -> None:
        if _is_first():
            super().print_help(file)

    def flags(self) -> set[str]:
        """The names of all flags, such as `--seed`."""
        return set(self._option_string_actions)

    def checked(self, saved: Mapping[Any, Any], source: str) -> dict[str, Any]:
        """Convert saved settings for `set_defaults`; those that aren't flags here are left out.

        Args:
            source: the file that they come from, for messages.

        Raises:
            InputError: a flag doesn't take its saved value.
        """
        flags = [flag for flag in self._actions if flag.option_strings and flag.dest in saved]
        return {flag.dest: self._checked(flag, saved[flag.dest], source) for flag in flags}

    def _checked(self, flag: argparse.Action, value: Any, source: str) -> Any:
        if value is flag.default:  # such as None
            return value
        try:
            if isinstance(flag.default, bool) != isinstance(value, bool):
                raise ValueError(value)
            if isinstance(value, bool):
                return value
            if flag.nargs is not None:
                wrong = isinstance(flag.nargs, int) and len(value) != flag.nargs
                if not isinstance(value, list) or not value or wrong:
                    raise ValueError(value)
                return [self._get_value(flag, str(each)) for each in value]
            converted = self._get_value(flag, str(value))
            self._check_value(flag, converted)
        except (argparse.ArgumentError, ValueError, TypeError) as error:
            raise InputError(
                f"{source}: its setting {flag.dest} is {reprlib.repr(value)}, which "
                f"{flag.option_strings[-1]} does not take"
            ) from error
        return converted

    def error(self, message: str) -> NoReturn:
        name = self.prog.replace(_command(), program(), 1)
        complain(f"{name}: error: {message} (see --help)")
        self.exit(2)


def replace_helps(parser: argparse.ArgumentParser, helps: Mapping[str, str]) -> None:
    """Give flags another help, by their names such as `--seed`."""
    for flag, text in helps.items():
        change_flag(parser, flag, help=text)


def change_flag(parser: argparse.ArgumentParser, flag: str, **attributes: Any) -> None:
    """Give a flag other attributes, such as `type`, `default` or `help`."""
    for name, value in attributes.items():
        setattr(parser._option_string_actions[flag], name, value)


def run(
    main: Callable[[argparse.Namespace], None],
    parse_args: Callable[[Sequence[str] | None], argparse.Namespace],
    argv: Sequence[str] | None = None,
) -> int:
    """Parse the flags, call `main`, and turn bad input into one line on stderr.

    Returns the exit status: 0; 2 for bad input and for a machine, files and disks that fail, or
    a GPU's memory that runs out; 130 for Ctrl-C; 141 if the reader of the output has gone.
    """
    print_any_text()
    try:
        try:
            main(parse_args(argv))
        finally:
            end_workers()  # before their loaders are freed, which would wait for them
        sys.stdout.flush()
    except (InputError, Fault) as error:
        complain(f"{program()}: error: {error}")
        return 2
    except BrokenPipeError:
        close_stdout()
        return 141
    except OSError as error:
        complain(f"{program()}: error: {reason_of(error)}")
        close_stdout()
        return 2
    except RuntimeError as error:
        if "out of memory" not in str(error):  # as torch says of a GPU's
            raise
        advice = "give a smaller --batch, or end other programs on the GPU"
        complain(f"{program()}: error: GPU memory ran out: {shorten(error)}; {advice}")
        return 2
    except KeyboardInterrupt:
        complain(f"{program()}: interrupted")
        return 130
    return 0


def reason_of(error: OSError) -> str:
    """The file and the reason."""
    where = f"{os.fsdecode(error.filename)}: " if error.filename else ""
    reason = f"{where}{error.strerror or error}"
    if "temporary directory" in reason:
        reason += "; set TMPDIR to a folder that can be written"
    return reason


def program() -> str:
    """The program's name in its messages: its file, or its package for `__main__.py`."""
    file = Path(sys.argv[0])
    return file.parent.name if file.name == "__main__.py" else file.name


def _command() -> str:
    """The program's name in its usage: `python -m MODULE`, or its file."""
    module = getattr(sys.modules["__main__"], "__spec__", None)
    return f"python -m {module.name.removesuffix('.__main__')}" if module else program()


def end_workers() -> None:
    """Kill the loaders' workers that an error has left behind. Python would send them a signal that
    they ignore (see `parallel.signals.ignore_signals`), and wait forever; torch waits 5 seconds
    for each one that waits for a disk."""
    # joblib's workers are of another class: joblib reuses them, and ends them itself
    children = multiprocessing.active_children()
    workers = [child for child in children if isinstance(child, multiprocessing.Process)]
    if not workers or threading.current_thread() is not threading.main_thread():
        return
    torchs = signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler would raise
    for worker in workers:
        worker.kill()
        worker.join()
    signal.signal(signal.SIGCHLD, torchs)


def close_stdout() -> None:
    """Discard the rest of the output: writing it at exit would fail again."""
    with contextlib.suppress(io.UnsupportedOperation):  # stdout may not be a file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def complain(message: str) -> None:
    """Print on stderr why the program ends. Under torchrun, local rank 0 prints and exits, which
    ends the other ranks; they print only if that takes over `LONGEST_SILENCE`."""
    if not _is_first():
        time.sleep(LONGEST_SILENCE)
    sys.stderr.write(f"{printable(message)}\n")
    sys.stderr.flush()


def warn(message: str) -> None:
    """Print a warning on stderr, from the first process on this machine only."""
    if _is_first():
        sys.stderr.write(f"warning: {printable(message)}\n")


def note(message: str) -> None:
    """Print a note on stderr, from the first process on this machine only."""
    if _is_first():
        sys.stderr.write(f"note: {printable(message)}\n")


def _is_first() -> bool:
    """Whether this is the first process on this machine."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def print_any_text() -> None:
    """Print characters as escapes if the terminal's encoding lacks them, or if they are bytes of a
    file name that isn't UTF-8."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def whole_number(least: int) -> Callable[[str], int]:
    """The type of a flag that takes a whole number ≥ `least`."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of {least} or more")
        return value

    return parse


def truth(text: str) -> bool:
    """The type of a flag that takes true or false, or on, off, 1, 0."""
    known = {"true": True, "on": True, "1": True, "false": False, "off": False, "0": False}
    if text.lower() not in known:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return known[text.lower()]


def _number(wanted: str, fits: Callable[[float], bool]) -> Callable[[str], float]:
    """The type of a flag that takes some numbers; `wanted` names them in the error."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not fits(value):
            raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}")
        return value

    return parse


number = _number("a number", math.isfinite)
positive_number = _number("a number above 0", lambda value: 0 < value < math.inf)
number_from_zero = _number("a number of 0 or more", lambda value: 0 <= value < math.inf)
fraction = _number("a number from 0 to below 1", lambda value: 0 <= value < 1)
percentage = _number("a number above 0 and at most 100", lambda value: 0 < value <= 100)
inner_fraction = _number("a number above 0 and below 1", lambda value: 0 < value < 1)
