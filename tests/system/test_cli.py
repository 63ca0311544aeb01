"""All command lines: one line for bad input and exit status 2, devices, progress."""

import argparse
import errno
import io
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
import torch

from system import cli
from system import progress as progress_module
from system.device import Compute, full_float32, select_compute
from system.errors import InputError
from system.files import atomic_write
from system.progress import progress

ROOT = Path(__file__).parents[2]


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = cli.Parser(prog="x.py")
    parser.add_argument("--whole", type=cli.whole_number(2), default=2)
    parser.add_argument("--positive", type=cli.positive_number, default=1.0)
    parser.add_argument("--fraction", type=cli.fraction, default=0.5)
    parser.add_argument("--number", type=cli.number, default=0.0)
    return parser.parse_args(argv)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--whole 1", "argument --whole: '1' is not a whole number of 2 or more"),
        ("--whole 2.5", "argument --whole: '2.5' is not a whole number of 2 or more"),
        ("--positive 0", "argument --positive: '0' is not a number above 0"),
        ("--positive inf", "argument --positive: 'inf' is not a number above 0"),
        ("--fraction 1", "argument --fraction: '1' is not a number from 0 to below 1"),
        ("--number nan", "argument --number: 'nan' is not a number"),
        ("--number x", "argument --number: 'x' is not a number"),
        ("--what 3", "unrecognized arguments: --what 3"),
    ],
)
def test_a_bad_flag_is_one_line_and_status_2(
    flags: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        parse(flags.split())
    assert stop.value.code == 2
    assert capsys.readouterr().err == f"x.py: error: {message} (see --help)\n"


def test_good_flags() -> None:
    args = parse(["--whole", "3", "--positive", "1e-3", "--fraction", "0", "--number", "-7"])
    assert (args.whole, args.positive, args.fraction, args.number) == (3, 1e-3, 0.0, -7.0)


def test_bad_input_is_one_line_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(args: argparse.Namespace) -> None:
        raise InputError("that file: is bad")

    assert cli.run(fail, parse, []) == 2
    assert capsys.readouterr().err.endswith("error: that file: is bad\n")


@pytest.mark.parametrize(
    ("encoding", "text", "printed"),
    [
        ("ascii", "0.5 → 0.6 – \udcff.png", b"0.5 \\u2192 0.6 \\u2013 \\udcff.png"),
        ("utf-8", "0.5 → \udcff.png", "0.5 → \\udcff.png".encode()),
    ],
)
def test_characters_that_the_terminal_lacks_are_printed_as_escapes(
    monkeypatch: pytest.MonkeyPatch, encoding: str, text: str, printed: bytes
) -> None:
    terminals = [io.TextIOWrapper(io.BytesIO(), encoding) for _ in range(2)]
    monkeypatch.setattr("sys.stdout", terminals[0])
    monkeypatch.setattr("sys.stderr", terminals[1])

    def speak(args: argparse.Namespace) -> None:
        for terminal in terminals:
            terminal.write(text)
            terminal.flush()

    assert cli.run(speak, parse, []) == 0
    assert [terminal.buffer.getvalue() for terminal in terminals] == [printed, printed]


def test_ctrl_c_shows_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(args: argparse.Namespace) -> None:
        raise KeyboardInterrupt

    assert cli.run(interrupt, parse, []) == 130
    assert "interrupted" in capsys.readouterr().err


def test_a_bug_keeps_its_traceback() -> None:
    def bug(args: argparse.Namespace) -> None:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        cli.run(bug, parse, [])


@pytest.mark.parametrize(
    ("avx512_bf16", "amx", "precision"),
    [(False, False, "fp32"), (True, False, "bf16"), (False, True, "bf16")],
)
def test_auto_precision_follows_the_cpu(
    monkeypatch: pytest.MonkeyPatch, avx512_bf16: bool, amx: bool, precision: str
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert select_compute("cpu", "auto").precision == precision
    for asked in ("fp32", "bf16"):
        assert select_compute("cpu", asked).precision == asked


@pytest.fixture
def _backends_as_before() -> Iterator[None]:
    before = torch.backends.cudnn.benchmark, torch.backends.cuda.matmul.allow_tf32
    yield
    torch.backends.cudnn.benchmark, torch.backends.cuda.matmul.allow_tf32 = before


@pytest.mark.usefixtures("_backends_as_before")
@pytest.mark.parametrize(("capability", "precision"), [((7, 5), "fp32"), ((8, 0), "bf16")])
def test_auto_precision_follows_the_gpu(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], precision: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
    assert select_compute() == Compute(torch.device("cuda"), precision)


@pytest.mark.usefixtures("_backends_as_before")
@pytest.mark.parametrize(
    ("kernels", "capability", "runs"),
    [
        (["sm_75", "sm_80", "sm_90"], (7, 0), False),
        (["sm_75", "sm_80", "sm_90"], (7, 5), True),
        (["sm_75", "sm_80", "sm_90"], (8, 9), True),  # those of the same generation
        (["sm_80", "sm_90a"], (10, 0), False),
        (["sm_80", "sm_90", "compute_90"], (10, 0), True),  # it compiles them
        (["sm_80", "compute_90"], (7, 5), False),
        (["sm_100", "sm_120"], (12, 0), True),
        (["gfx90a"], (9, 4), True),  # of AMD: not compared
    ],
)
def test_a_gpu_without_kernels_is_one_line(
    monkeypatch: pytest.MonkeyPatch, kernels: list[str], capability: tuple[int, int], runs: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "Fake V100")
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: kernels)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    assert select_compute("cpu").device.type == "cpu"
    if runs:
        assert select_compute().device.type == "cuda"
        return
    with pytest.raises(InputError) as error:
        select_compute()
    assert str(error.value) == (
        f"--device cuda: torch {torch.__version__} has kernels for {', '.join(kernels)}, and not "
        f"for the Fake V100, which needs sm_{capability[0]}{capability[1]}; install a torch that "
        "has them (for an older card: a build for an older CUDA, such as 12.6), or give --device "
        "cpu"
    )
    assert not torch.backends.cudnn.benchmark, "nothing was set"


@pytest.mark.usefixtures("_backends_as_before")
def test_full_float32_turns_tf32_off() -> None:
    """Also in a program that has used torch's newer names, after which reading the old one raises;
    both are set together."""
    matmul = torch.backends.cuda.matmul
    ways: list[tuple[str, object, bool]] = [
        ("allow_tf32", True, True),
        ("allow_tf32", False, False),
    ]
    ways += [("fp32_precision", "tf32", True), ("fp32_precision", "ieee", False)]
    for name, value, allowed in ways:
        setattr(matmul, name, value)
        with full_float32():
            assert (matmul.allow_tf32, matmul.fp32_precision) == (False, "ieee")
            with full_float32():
                pass
            assert not matmul.allow_tf32
        assert matmul.allow_tf32 == allowed
        assert matmul.fp32_precision == ("tf32" if allowed else "ieee")


DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float}


@pytest.mark.parametrize(("precision", "dtype"), DTYPES.items())
def test_forward_passes_run_in_the_precision_asked_for(precision: str, dtype: torch.dtype) -> None:
    with select_compute("cpu", precision).autocast():
        assert torch.nn.Linear(2, 2)(torch.zeros(1, 2)).dtype == dtype


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA GPU")
def test_a_device_that_is_not_there() -> None:
    with pytest.raises(InputError, match=r"--device cuda: not on this machine, which has: .*cpu"):
        select_compute("cuda")


@pytest.mark.gpu
def test_auto_takes_the_gpu() -> None:
    capable = torch.cuda.get_device_capability() >= (8, 0)
    assert select_compute() == Compute(torch.device("cuda"), "bf16" if capable else "fp32")


def test_progress_prints_plain_lines_off_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: float(next(clock)))
    lines = io.StringIO()
    monkeypatch.setattr("sys.stderr", lines)
    with progress("features", 100, "images") as advance:
        for _ in range(4):
            advance(25)
    # 25 images after 10 s, 50 after 20 s: the first line, more than 15 s in
    assert lines.getvalue() == "  features: 50 of 100 images, 2.5 images/s, 00:20 left\n"


def test_progress_can_be_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("x", 2, "y", enabled=False) as advance:
        advance(2)
    assert capsys.readouterr() == ("", "")


def test_progress_is_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with progress("training", 8, "images") as advance:
        advance(8)
    assert "training:   0%" in terminal.getvalue()


def test_a_disk_that_fails_is_one_line_and_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fill(args: argparse.Namespace) -> None:
        with atomic_write(tmp_path / "table.csv"):
            raise OSError(errno.ENOSPC, "No space left on device")

    assert cli.run(fill, parse, []) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"error: {tmp_path}/table.csv: No space left on device: " in error
    assert error.endswith(" MB are free on its disk\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "said",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.11 GiB",
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",
    ],
)
def test_a_full_gpu_is_one_line_and_status_2(capsys: pytest.CaptureFixture[str], said: str) -> None:
    def fill(args: argparse.Namespace) -> None:
        raise torch.OutOfMemoryError(said)

    assert cli.run(fill, parse, []) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert (
        f": error: GPU memory ran out: {said.splitlines()[0]}; give a smaller --batch, or" in error
    )


def test_other_errors_of_torch_have_their_traceback() -> None:
    def fail(args: argparse.Namespace) -> None:
        raise RuntimeError("no kernel image is available")

    with pytest.raises(RuntimeError, match="no kernel image"):
        cli.run(fail, parse, [])


@pytest.mark.parametrize(("reader", "status"), [("head -n 1", 141), (">/dev/full", 2)])
def test_the_exit_status_if_the_output_cannot_be_written(reader: str, status: int) -> None:
    code = (
        "import argparse, sys; from system import cli; "
        "parse = argparse.ArgumentParser().parse_args; "
        "sys.exit(cli.run(lambda args: print('line\\n' * 100_000), parse, []))"
    )
    pipe = reader if reader.startswith(">") else f"| {reader}"
    script = f'"{sys.executable}" -c "{code}" {pipe}; echo "${{PIPESTATUS[0]}}"'
    done = subprocess.run(
        ["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines()[-1] == str(status)
    assert done.stderr == ("" if status == 141 else "-c: error: No space left on device\n")


def test_a_help_shows_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    parser = cli.Parser()
    parser.add_argument("--size", default=3, help="pixels")
    parser.add_argument("--exp", help="folder")
    parser.add_argument("--verbose", action="store_true", help="tell more")
    parser.print_help()
    text = capsys.readouterr().out
    assert "pixels (default: 3)" in text
    assert text.count("default") == 1


def test_a_help_ends_with_the_example_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """The example stays in one line on a narrow terminal; other paragraphs are wrapped."""
    example = "python x.py " + " ".join(f"--flag-{number} value" for number in range(20))
    about = "One. " * 40 + "\n\nTwo."
    parser = cli.Parser(prog="x.py", description=about, example=example, details="docs/using.md")
    parser.print_help()
    text = capsys.readouterr().out
    assert text.endswith(f"\n\nExample: {example}\nDetails: docs/using.md\n")
    one, two = text.split("\n\n")[1:3]
    assert " ".join(one.split()) == about.split("\n\n")[0].strip()
    assert one.count("\n") >= 1
    assert two == "Two."


@pytest.mark.parametrize(
    ("file", "module", "command", "name"),
    [
        ("/x/eval_knn.py", None, "eval_knn.py", "eval_knn.py"),
        ("/x/tools/export.py", "tools.export", "python -m tools.export", "export.py"),
        ("/x/benchmarks/__main__.py", "benchmarks.__main__", "python -m benchmarks", "benchmarks"),
    ],
)
def test_the_usage_shows_the_command_and_errors_the_file(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    file: str,
    module: str | None,
    command: str,
    name: str,
) -> None:
    spec = None if module is None else ModuleSpec(module, None)
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", spec)
    monkeypatch.setattr(sys, "argv", [file])
    parser = cli.Parser()
    parser.add_subparsers().add_parser("part")
    parser.print_help()
    assert capsys.readouterr().out.startswith(f"usage: {command} [-h]")
    with pytest.raises(SystemExit):
        parser.parse_args(["part", "--help"])
    assert capsys.readouterr().out.startswith(f"usage: {command} part [-h]")
    for argv in (["--what"], ["part", "--what"]):
        with pytest.raises(SystemExit):
            parser.parse_args(argv)
        error = f"{name}: error: unrecognized arguments: --what (see --help)\n"
        assert capsys.readouterr().err == error

    def fail(args: argparse.Namespace) -> None:
        raise InputError("bad")

    assert cli.run(fail, parser.parse_args, ["part"]) == 2
    assert capsys.readouterr().err == f"{name}: error: bad\n"


def test_a_pattern_without_quotes_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [tmp_path / f"{number}.tar" for number in range(3)]
    for file in files:
        file.touch()
    parser = cli.Parser(prog="x.py")
    parser.add_argument("dir")
    with pytest.raises(SystemExit):
        parser.parse_args(list(map(str, files)))
    assert f"2 files too many, such as {files[1]}; put a pattern in quotes" in (
        capsys.readouterr().err
    )
