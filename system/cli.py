"""What every script's command line shares: one-line errors, exit status 2, and the common types."""

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

from system.errors import InputError
from system.names import printable

LONGEST_SILENCE = 20  # seconds; processes start that far apart on a busy machine


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Gives defaults, keeps paragraphs, and does not wrap the example, which is to be copied."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        without = action.default is None or action.default is False
        return action.help if without else super()._get_help_string(action)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.startswith(("Example: ", "Details: ")):
            return text
        fill = super()._fill_text
        return "\n\n".join(fill(paragraph, width, indent) for paragraph in text.split("\n\n"))


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, without the usage text in front.

    Args:
        example: a command with these flags. The help ends with it, and with
        details: the page of docs/ about the script.
    """

    def __init__(
        self, *, example: str | None = None, details: str | None = None, **kwargs: Any
    ) -> None:
        kwargs.setdefault("formatter_class", _Help)
        kwargs.setdefault("prog", _command())
        ending = {"Example": example, "Details": details}
        if lines := [f"{name}: {text}" for name, text in ending.items() if text is not None]:
            kwargs["epilog"] = "\n".join(lines)
        super().__init__(**kwargs)

    def print_help(self, file: Any = None) -> None:
        if _is_first():
            super().print_help(file)

    def checked(self, saved: Mapping[Any, Any], source: str) -> dict[str, Any]:
        """Settings that were saved, for `set_defaults`: those that are flags here, each of which
        has to be what the flag takes.

        Raises:
            InputError: one is not; names the source.
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


def run(
    main: Callable[[argparse.Namespace], None],
    parse_args: Callable[[Sequence[str] | None], argparse.Namespace],
    argv: Sequence[str] | None = None,
) -> int:
    """Parse, work, and turn bad input into one line on stderr.

    Returns the exit status: 0, 2 for bad input and for files and disks that fail, 130 for Ctrl-C,
    141 where nobody reads what is printed any more.
    """
    print_any_text()
    try:
        main(parse_args(argv))
        sys.stdout.flush()
    except InputError as error:
        complain(f"{program()}: error: {error}")
        return 2
    except BrokenPipeError:
        close_stdout()
        return 141
    except OSError as error:
        where = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        complain(f"{program()}: error: {where}{error.strerror or error}")
        close_stdout()
        return 2
    except KeyboardInterrupt:
        complain(f"{program()}: interrupted")
        return 130
    finally:
        _end_workers()
    return 0


def program() -> str:
    """The name of the program in its messages: that of its file, or of its package."""
    file = Path(sys.argv[0])
    return file.parent.name if file.name == "__main__.py" else file.name


def _command() -> str:
    """What starts the program: `python -m` and its module, or the name of its file."""
    module = getattr(sys.modules["__main__"], "__spec__", None)
    return f"python -m {module.name.removesuffix('.__main__')}" if module else program()


def _end_workers() -> None:
    """End the workers of loaders that an error has left behind. Python would end them with a signal
    that they do not hear (see `parallel.signals.ignore_signals`), and wait for them for ever."""
    # not those of joblib, which ends its own, and uses them again
    children = multiprocessing.active_children()
    workers = [child for child in children if isinstance(child, multiprocessing.Process)]
    if not workers or threading.current_thread() is not threading.main_thread():
        return
    torchs = signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # it would raise that they were killed
    for worker in workers:
        worker.kill()
        worker.join()
    signal.signal(signal.SIGCHLD, torchs)


def close_stdout() -> None:
    """Let what is still to be printed go nowhere: it would fail once more at the program's end."""
    with contextlib.suppress(io.UnsupportedOperation):  # it may not be a file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def complain(message: str) -> None:
    """Say on stderr why the program ends. Of the processes that `torchrun` started, the first on
    this machine does, and its end is the end of the others; where it does not end, they speak."""
    if not _is_first():
        time.sleep(LONGEST_SILENCE)
    sys.stderr.write(f"{printable(message)}\n")
    sys.stderr.flush()


def warn(message: str) -> None:
    """Say on stderr what does not end the program; of many processes, the first on this machine
    does."""
    if _is_first():
        sys.stderr.write(f"warning: {printable(message)}\n")


def _is_first() -> bool:
    """Whether this is the only process on this machine, or the first of those that `torchrun`
    started."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def print_any_text() -> None:
    """Let no character stop a program that prints it: neither one that the terminal's encoding
    lacks, nor a byte in a file name that is not UTF-8."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def whole_number(least: int) -> Callable[[str], int]:
    """The type of a flag that takes a whole number of at least `least`."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of {least} or more")
        return value

    return parse


def number(text: str) -> float:
    """The type of a flag that takes a finite number."""
    value = _to_float(text)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number")
    return value


def positive_number(text: str) -> float:
    """The type of a flag that takes a finite number above 0."""
    value = _to_float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def number_from_zero(text: str) -> float:
    """The type of a flag that takes a finite number of 0 or more."""
    value = _to_float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 0 or more")
    return value


def fraction(text: str) -> float:
    """The type of a flag that takes a number from 0 up to, but not including, 1."""
    value = _to_float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to below 1")
    return value


def inner_fraction(text: str) -> float:
    """The type of a flag that takes a number between 0 and 1, neither of them."""
    value = _to_float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0 and below 1")
    return value


def _to_float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
