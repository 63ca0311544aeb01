"""The download script, against a server on the loopback that cuts, lies and is absent as told."""

import contextlib
import fcntl
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parent.parent / "download_model.sh"
NAMES = ("checkpoint.pth.tar", "model.caffemodel", "model.prototxt")
SIZE = 200_000


class Server(ThreadingHTTPServer):
    """Serves `files` by path, and records what it is asked for.

    Attributes:
        ranges: whether it answers a request for the rest of a file with the rest.
        cuts: for each of the next downloads, the bytes of the file after which it breaks off.
        errors: statuses that the next requests get.
        kind: content type of its answers.
        held: downloads wait, half done, until it is set.
        asked: (method, path, first byte) of each request.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.ranges = True
        self.cuts: list[int] = []
        self.errors: list[int] = []
        self.kind = "application/octet-stream"
        self.held = threading.Event()
        self.held.set()
        self.asked: list[tuple[str, str, int]] = []

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/deepcluster"

    def downloads(self) -> list[tuple[str, int]]:
        """What was asked for: names and first bytes."""
        return [(Path(path).name, start) for method, path, start in self.asked if method == "GET"]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        server = self.server
        start = int(self.headers.get("Range", "bytes=0-")[len("bytes=") : -1])
        server.asked.append((self.command, self.path, start))
        content = server.files.get(self.path.removeprefix("/deepcluster/"))
        if server.errors or content is None:
            self.send_error(server.errors.pop(0) if server.errors else 404)
            return
        if not server.ranges:
            start = 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Type", server.kind)
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("ETag", f'"{hashlib.md5(content).hexdigest()}"')
        self.end_headers()
        if body:
            end = server.cuts.pop(0) if server.cuts else len(content)
            with contextlib.suppress(ConnectionError):  # who asked may be gone
                self.wfile.write(content[start : len(content) // 2])
                self.wfile.flush()
                server.held.wait()
                self.wfile.write(content[max(start, len(content) // 2) : end])

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    """A server with both networks."""
    with Server() as it:
        rng = np.random.default_rng(0)
        for arch in ("alexnet", "vgg16"):
            it.files |= {f"{arch}/{name}": rng.bytes(SIZE) for name in NAMES}
        thread = threading.Thread(target=it.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield it
        it.held.set()
        it.shutdown()
        thread.join()


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path, server: Server) -> Start:
    """Start the script, with flags and further variables."""

    def run(*flags: str, **variables: str) -> subprocess.Popen[str]:
        clean = {n: v for n, v in os.environ.items() if "proxy" not in n.lower()}
        base = {"BASE": server.base, "MODELROOT": str(tmp_path / "my models"), "WAIT": "0"}
        return subprocess.Popen(
            [str(shutil.which("bash")), str(SCRIPT), *flags], cwd=tmp_path, text=True,
            env={**clean, **base, **variables}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    return run


@pytest.fixture
def download(start: Start) -> Callable[..., tuple[int, str, str]]:
    """Run the script to its end; returns its exit status, output and errors."""

    def run(*flags: str, **variables: str) -> tuple[int, str, str]:
        process = start(*flags, **variables)
        out, errors = process.communicate(timeout=60)
        return process.returncode, out, errors

    return run


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "my models"


def everything_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def only_wget(tmp_path: Path) -> str:
    """A PATH without curl."""
    tools = (
        "wget awk basename cat cksum cut dirname flock mkdir mv rm sed sha256sum sleep tail tr wc"
    )
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in tools.split():
        if found := shutil.which(tool):
            (folder / tool).symlink_to(found)
    if not (folder / "wget").exists():
        pytest.skip("there is no wget here")
    return str(folder)


CLIENTS = pytest.mark.parametrize("client", ["curl", "wget"])


@pytest.fixture
def variables(client: str, request: pytest.FixtureRequest) -> dict[str, str]:
    if client == "wget":
        return {"PATH": request.getfixturevalue("only_wget")}
    if not shutil.which("curl"):
        pytest.skip("there is no curl here")
    return {}


@CLIENTS
def test_both_networks_arrive_with_their_checksums(
    root: Path, server: Server, download: Callable, variables: dict[str, str]
) -> None:
    status, out, errors = download(**variables)
    assert (status, errors) == (0, "")
    assert len(out.splitlines()) == 6
    assert everything_below(root) == {*server.files, "alexnet/SHA256SUMS", "vgg16/SHA256SUMS"}
    for path, content in server.files.items():
        assert (root / path).read_bytes() == content
        line = f"{hashlib.sha256(content).hexdigest()}  {Path(path).name}"
        assert line in (root / path).with_name("SHA256SUMS").read_text().splitlines()


@CLIENTS
def test_a_whole_download_is_checked_and_not_asked_for_again(
    server: Server, download: Callable, variables: dict[str, str]
) -> None:
    download(**variables)
    server.asked.clear()
    status, out, _ = download(**variables)
    assert status == 0
    assert out.count("there already, its SHA-256 as recorded") == 6
    assert server.asked == []


@CLIENTS
def test_a_cut_transfer_goes_on_where_it_was(
    root: Path, server: Server, download: Callable, variables: dict[str, str]
) -> None:
    server.cuts = [150_000]
    status, _, errors = download(ARCHS="alexnet", **variables)
    assert (status, errors) == (0, "")
    assert server.downloads() == [
        ("checkpoint.pth.tar", 0),
        ("checkpoint.pth.tar", 150_000),
        ("model.caffemodel", 0),
        ("model.prototxt", 0),
    ]
    for name in NAMES:
        assert (root / "alexnet" / name).read_bytes() == server.files[f"alexnet/{name}"]


@CLIENTS
def test_a_server_that_cannot_resume_is_asked_for_all_of_it(
    root: Path, server: Server, download: Callable, variables: dict[str, str]
) -> None:
    server.ranges = False
    server.cuts = [150_000]
    status, _, errors = download(ARCHS="alexnet", **variables)
    assert (status, errors) == (0, "")
    name = "alexnet/checkpoint.pth.tar"
    assert (root / name).read_bytes() == server.files[name]


@CLIENTS
def test_transfers_that_always_end_early_give_up(
    root: Path, server: Server, download: Callable, variables: dict[str, str]
) -> None:
    server.cuts = [150_000] * 20
    status, _, errors = download(RETRIES="3", **variables)
    assert status == 1
    assert errors.startswith(
        f"download_model.sh: error: {server.base}/alexnet/checkpoint.pth.tar: the transfer broke "
        "off after 150000 of 200000 bytes"
    )
    assert errors.count("\n") == 1
    assert not (root / "alexnet/checkpoint.pth.tar").exists()
    assert [start for _, start in server.downloads()] == [0, 150_000, 150_000]


@CLIENTS
def test_offline_is_one_line(root: Path, download: Callable, variables: dict[str, str]) -> None:
    with socket.socket() as closed:  # bound, but nobody listens
        closed.bind(("127.0.0.1", 0))
        base = f"http://127.0.0.1:{closed.getsockname()[1]}"
        status, out, errors = download(BASE=base, RETRIES="2", **variables)
    assert (status, out) == (1, "")
    assert errors.startswith(
        f"download_model.sh: error: {base}/alexnet/checkpoint.pth.tar: no answer, is this machine "
        "online? ("
    )
    assert errors.count("\n") == 1
    assert everything_below(root) == set()


@CLIENTS
def test_a_file_that_the_server_does_not_have_is_named_with_the_variable(
    download: Callable, server: Server, variables: dict[str, str]
) -> None:
    status, _, errors = download(
        "--assignments", ARCHS="", ASSIGNMENTS="a/gone.pickle", **variables
    )
    assert status == 1
    assert errors == (
        f"download_model.sh: error: {server.base}/a/gone.pickle: the server has no such file (it "
        "answers 404); if it is elsewhere, set BASE or ASSIGNMENTS\n"
    )
    assert len(server.asked) == 1, "no second attempt"


def test_the_page_of_a_network_that_wants_a_login_is_no_file(
    root: Path, server: Server, download: Callable
) -> None:
    server.kind = "text/html; charset=utf-8"
    status, _, err = download()
    assert (status, err.count("\n")) == (1, 1)
    assert "a web page comes instead of the file" in err
    assert not list(root.rglob("checkpoint.pth.tar"))


def test_a_part_of_another_version_is_not_gone_on_with(
    root: Path, server: Server, download: Callable
) -> None:
    name = "alexnet/checkpoint.pth.tar"
    server.cuts = [150_000]
    assert download(RETRIES="1")[0] == 1
    assert len(everything_below(root)) == 1
    server.files[name] = server.files[name][::-1]
    server.asked.clear()
    status, _, errors = download()
    assert (status, errors) == (0, "")
    assert (root / name).read_bytes() == server.files[name]
    assert all(start == 0 for _, start in server.downloads())


def test_parts_that_do_not_make_up_what_was_recorded_are_downloaded_again(
    root: Path, server: Server, download: Callable
) -> None:
    name = "alexnet/checkpoint.pth.tar"
    content = server.files[name]
    (root / "alexnet").mkdir(parents=True)
    sums = f"{hashlib.sha256(content).hexdigest()}  checkpoint.pth.tar\n"
    (root / "alexnet/SHA256SUMS").write_text(sums)
    server.cuts = [150_000]
    download(RETRIES="1")
    (part,) = (root / "alexnet").glob(".*.part")
    part.write_bytes(b"x" + content[1:150_000])
    status, _, errors = download(ARCHS="alexnet")
    assert (status, errors) == (0, "")
    assert (root / name).read_bytes() == content


def test_what_is_not_as_recorded_never_gets_its_name(
    root: Path, server: Server, download: Callable
) -> None:
    (root / "alexnet").mkdir(parents=True)
    (root / "alexnet/SHA256SUMS").write_text(f"{'0' * 64}  checkpoint.pth.tar\n")
    status, _, errors = download()
    assert status == 2
    assert f"not {'0' * 64} as {root}/alexnet/SHA256SUMS has it" in errors
    assert errors.count("\n") == 1
    assert everything_below(root) == {"alexnet/SHA256SUMS"}


def test_a_file_that_was_changed_is_noticed(root: Path, server: Server, download: Callable) -> None:
    download()
    file = root / "vgg16/model.caffemodel"
    changed = b"x" + file.read_bytes()[1:]
    file.write_bytes(changed)
    status, _, errors = download()
    recorded = hashlib.sha256(server.files["vgg16/model.caffemodel"]).hexdigest()
    assert status == 2
    assert errors == (
        f"download_model.sh: error: {file}: its SHA-256 is {hashlib.sha256(changed).hexdigest()}, "
        f"not {recorded} as SHA256SUMS beside it has it; remove the file to download it again\n"
    )
    assert file.read_bytes() == changed, "it is not ours to remove"


def test_a_file_from_elsewhere_is_checked_by_its_size(
    root: Path, server: Server, download: Callable
) -> None:
    (root / "alexnet").mkdir(parents=True)
    file = root / "alexnet/checkpoint.pth.tar"
    file.write_bytes(server.files["alexnet/checkpoint.pth.tar"][:-1])
    status, _, errors = download(ARCHS="alexnet")
    assert status == 2
    assert errors.endswith(
        "checkpoint.pth.tar: has 199999 bytes, not 200000 as on the server; remove the file to "
        "download it again\n"
    )
    file.write_bytes(server.files["alexnet/checkpoint.pth.tar"])
    status, out, _ = download(ARCHS="alexnet")
    assert status == 0
    assert "of the server's size; its SHA-256 is now recorded" in out
    assert "checkpoint.pth.tar" not in [name for name, _ in server.downloads()]


def test_errors_of_the_server_are_tried_again(server: Server, download: Callable) -> None:
    server.errors = [503, 500]
    assert download(ARCHS="alexnet")[0] == 0
    server.errors = [503] * 9
    status, _, errors = download(ARCHS="vgg16", RETRIES="3")
    assert status == 1
    assert "model" in errors or "checkpoint" in errors
    assert "the server answers 503" in errors


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_download_leaves_no_file_under_the_final_name(
    root: Path, server: Server, start: Start, download: Callable, sent: signal.Signals
) -> None:
    server.held.clear()
    process = start(ARCHS="alexnet")
    name = "alexnet/checkpoint.pth.tar"

    def some_is_there() -> bool:
        return any(part.stat().st_size > 0 for part in root.glob("alexnet/.*.part"))

    wait_for(some_is_there)
    status, _, errors = download(ARCHS="alexnet")
    assert (status, errors.count("\n")) == (2, 1)
    assert "alexnet: another download into it is under way" in errors

    process.send_signal(sent)
    process.wait(timeout=10)
    assert not (root / name).exists()
    if sent == signal.SIGTERM:  # then the transfer ends, too
        wait_for(lambda: is_free(root / "alexnet"))
    server.held.set()
    wait_for(lambda: is_free(root / "alexnet"))
    assert not (root / name).exists()

    assert download(ARCHS="alexnet")[0] == 0
    assert (root / name).read_bytes() == server.files[name]
    assert everything_below(root) == {f"alexnet/{n}" for n in (*NAMES, "SHA256SUMS")}


def is_free(folder: Path) -> bool:
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(handle)
    return True


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("flag", "ending"),
    [("--assignments", "cluster_assignment.pickle"), ("--features", "features.pkl")],
)
def test_assignments_and_features_have_names_of_their_own(
    root: Path, server: Server, download: Callable, flag: str, ending: str
) -> None:
    names = {f"{arch}/{arch}_{ending}" for arch in ("alexnet", "vgg16")}
    server.files |= dict.fromkeys(names, b"content")
    assert download(flag, ARCHS="")[0] == 0
    assert everything_below(root) == {*names, "alexnet/SHA256SUMS", "vgg16/SHA256SUMS"}


def test_assignments_and_features_come_beside_the_networks(
    root: Path, server: Server, download: Callable
) -> None:
    server.files |= {"alexnet/c.pickle": b"clusters", "vgg16/f.pkl": b"features"}
    paths = {"ASSIGNMENTS": "alexnet/c.pickle", "FEATURES": "vgg16/f.pkl"}
    assert download("--features", ARCHS="", **paths)[0] == 0
    assert everything_below(root) == {"vgg16/f.pkl", "vgg16/SHA256SUMS"}
    assert download("--assignments", **paths)[0] == 0
    assert (root / "alexnet/c.pickle").read_bytes() == b"clusters"
    assert (root / "alexnet/checkpoint.pth.tar").exists()


@pytest.mark.parametrize(
    ("flags", "variables", "message"),
    [
        (["--all"], {}, "--all: not one of --assignments, --features, --help"),
        ([], {"RETRIES": "0"}, "RETRIES=0: not a whole number of 1 or more"),
        ([], {"WAIT": "soon"}, "WAIT=soon: not a number of seconds"),
        ([], {"BASE": "/models"}, "BASE=/models: not an address that begins with http(s)://"),
        ([], {"PATH": "nowhere"}, "neither curl nor wget is installed; install one of them"),
    ],
)
def test_bad_settings_are_one_line_and_status_2(
    root: Path, download: Callable, flags: list[str], variables: dict[str, str], message: str
) -> None:
    status, out, errors = download(*flags, **variables)
    assert (status, out) == (2, "")
    assert errors == f"download_model.sh: error: {message}\n"
    assert not root.exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, download: Callable) -> None:
    (tmp_path / "file").write_text("")
    status, _, errors = download(MODELROOT=str(tmp_path / "file"))
    assert status == 2
    assert f"{tmp_path}/file/alexnet: cannot write there; give another folder: MODELROOT=" in errors


def test_help_explains_with_an_example(download: Callable) -> None:
    status, out, _ = download("--help")
    assert status == 0
    assert "MODELROOT=/data/models ARCHS=alexnet ./download_model.sh" in out
    assert "CC BY-NC 4.0" in out
    assert "set -euo" not in out
