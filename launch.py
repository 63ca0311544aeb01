"""torchrun, as the scripts here start it: the same arguments, and less to read when it fails.

`python launch.py --standalone --nproc_per_node 8 main.py DIR …` ends with the exit status of the
process that failed first. What was wrong with the input, that process has said, and torchrun's
report would only bury it; of any other failure, as when the kernel killed a process, it is shown.
"""

import logging
import sys
from collections.abc import Sequence

from torch.distributed import run
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

BAD_INPUT = 2  # the exit status for it, see cli.py


def main(argv: Sequence[str] | None = None) -> int:
    """Start the processes and wait for them. Returns the exit status."""
    # what it says of each process that ends is in the report, too
    logging.getLogger("torch.distributed.elastic.multiprocessing.api").setLevel(logging.CRITICAL)
    try:
        run.run(run.parse_args(argv))
    except ChildFailedError as failed:
        _, first = failed.get_first_failure()
        if first.exitcode != BAD_INPUT:
            sys.stderr.write(f"{failed}\n")
        return first.exitcode if first.exitcode > 0 else 128 - first.exitcode  # as a shell has it
    except SignalException as stopped:
        return 128 + stopped.sigval
    return 0


if __name__ == "__main__":
    sys.exit(main())
