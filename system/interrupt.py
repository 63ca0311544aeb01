"""Ctrl-C while packages are imported, which takes seconds: one line instead of a traceback.

Scripts import this before the packages. Later `cli.run` does the same.
"""

import os
import sys
from types import TracebackType


def _say_interrupted(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    if os.environ.get("LOCAL_RANK", "0") == "0":
        sys.stderr.write(f"{os.path.basename(sys.argv[0])}: interrupted\n")  # noqa: PTH119
    raise SystemExit(130)


sys.excepthook = _say_interrupted
