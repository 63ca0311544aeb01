"""download_model.sh, against a server on the loopback."""

import contextlib
import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parent.parent / "download_model.sh"
NAMES = ("checkpoint.pth.tar", "model.caffemodel", "model.prototxt")
SIZE = 200_000


class Server(ThreadingHTTPServer):
    """Serves `files` by path, and records the requests.

    Attributes:
        ranges: whether it supports range requests.
        cuts: for each of the next downloads, the number of bytes after which it breaks off.
        half: set when half of a file has been sent; downloads then wait for `rest`.
        asked: (name, first byte) of each request.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.ranges = True
        self.cuts: list[int] = []
        self.half = threading.Event()
        self.rest = threading.Event()
        self.rest.set()
        self.asked: list[tuple[str, int]] = []

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/deepcluster"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server = self.server
        start = int(self.headers.get("Range", "bytes=0-")[len("bytes=") : -1])
        server.asked.append((Path(self.path).name, start))
        content = server.files.get(self.path.removeprefix("/deepcluster/"))
        if content is None:
            self.send_error(404)
            return
        if not server.ranges:
            start = 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end = server.cuts.pop(0) if server.cuts else len(content)
        with contextlib.suppress(ConnectionError):  # the client may be gone
            self.wfile.write(content[start : len(content) // 2])
            self.wfile.flush()
            server.half.set()
            server.rest.wait()
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
        it.rest.set()
        it.shutdown()
        thread.join()


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path, server: Server) -> Start:
    """Start the script with flags and environment variables."""

    def run(*flags: str, **variables: str) -> subprocess.Popen[str]:
        clean = {n: v for n, v in os.environ.items() if "proxy" not in n.lower()}
        base = {"BASE": server.base, "MODELROOT": str(tmp_path / "my models")}
        return subprocess.Popen(
            [str(shutil.which("bash")), str(SCRIPT), *flags], cwd=tmp_path, text=True,
            env={**clean, **base, **variables}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True,
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
    tools = "wget awk basename dirname flock grep head mkdir mv rm sed sha256sum sleep touch wc"
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
    status, out, _ = download(**variables)
    assert (status, len(out.splitlines())) == (0, 6)
    assert everything_below(root) == {*server.files, "alexnet/SHA256SUMS", "vgg16/SHA256SUMS"}
    for path, content in server.files.items():
        assert (root / path).read_bytes() == content
        line = f"{hashlib.sha256(content).hexdigest()}  {Path(path).name}"
        assert line in (root / path).with_name("SHA256SUMS").read_text().splitlines()

    server.asked.clear()
    assert download(**variables)[0] == 0
    assert server.asked == [], "complete files are not downloaded again"


@CLIENTS
def test_an_interrupted_transfer_resumes(
    root: Path, server: Server, download: Callable, variables: dict[str, str]
) -> None:
    server.cuts = [150_000]
    assert download(ARCHS="alexnet", **variables)[0] == 0
    names = ["checkpoint.pth.tar", *NAMES]
    assert server.asked == list(zip(names, [0, 150_000, 0, 0], strict=True))
    for name in NAMES:
        assert (root / "alexnet" / name).read_bytes() == server.files[f"alexnet/{name}"]


@CLIENTS
def test_a_server_that_cannot_resume_sends_the_file_again(
    root: Path, server: Server, download: Callable, variables: dict[str, str]
) -> None:
    server.ranges = False
    server.cuts = [150_000]
    assert download(ARCHS="alexnet", **variables)[0] == 0
    name = "alexnet/checkpoint.pth.tar"
    assert (root / name).read_bytes() == server.files[name]


@CLIENTS
def test_a_transfer_is_tried_five_times(
    root: Path, server: Server, download: Callable, variables: dict[str, str]
) -> None:
    server.cuts = [150_000] * 20
    status, out, errors = download(**variables)
    assert (status, out) == (1, "")
    address = f"{server.base}/alexnet/checkpoint.pth.tar"
    assert errors.splitlines()[-1].startswith(
        f"download_model.sh: error: {address}: the download failed, see above; the same command"
    )
    assert not (root / "alexnet/checkpoint.pth.tar").exists()
    assert [start for _, start in server.asked] == [0, 150_000, 150_000, 150_000, 150_000]


@CLIENTS
def test_being_offline_is_reported(
    root: Path, download: Callable, variables: dict[str, str]
) -> None:
    with socket.socket() as closed:  # bound, not listening
        closed.bind(("127.0.0.1", 0))
        base = f"http://127.0.0.1:{closed.getsockname()[1]}"
        status, out, errors = download(BASE=base, **variables)
    assert (status, out) == (1, "")
    assert re.search("connect|refused", errors)
    assert f"error: {base}/alexnet/checkpoint.pth.tar: the download failed" in errors
    assert not list(root.rglob("checkpoint.pth.tar"))


@CLIENTS
def test_a_missing_file_is_named_with_the_variables(
    download: Callable, server: Server, variables: dict[str, str]
) -> None:
    status, _, errors = download(
        "--assignments", ARCHS="", ASSIGNMENTS="a/gone.pickle", **variables
    )
    assert status == 1
    assert "404" in errors
    assert f"error: {server.base}/a/gone.pickle: the download failed" in errors
    assert "ASSIGNMENTS" in errors
    assert len(server.asked) == 1, "no second attempt"


def test_a_login_page_is_not_kept(root: Path, server: Server, download: Callable) -> None:
    server.files["alexnet/checkpoint.pth.tar"] = b"\n<!DOCTYPE html>\n<html>"
    status, _, errors = download()
    assert (status, errors.count("\n")) == (1, 1)
    assert "a web page comes instead of the file" in errors
    assert everything_below(root) == {"alexnet/SHA256SUMS"}


def test_a_file_with_another_checksum_never_gets_its_name(root: Path, download: Callable) -> None:
    (root / "alexnet").mkdir(parents=True)
    (root / "alexnet/SHA256SUMS").write_text(f"{'0' * 64}  checkpoint.pth.tar\n")
    status, _, errors = download()
    assert (status, errors.count("\n")) == (2, 1)
    assert f"not {'0' * 64} as in {root}/alexnet/SHA256SUMS" in errors
    assert everything_below(root) == {"alexnet/SHA256SUMS"}


def test_a_changed_file_is_noticed(root: Path, download: Callable) -> None:
    download()
    file = root / "vgg16/model.caffemodel"
    recorded = hashlib.sha256(file.read_bytes()).hexdigest()
    changed = b"x" + file.read_bytes()[1:]
    file.write_bytes(changed)
    status, _, errors = download()
    assert (status, errors) == (
        2,
        f"download_model.sh: error: {file}: its SHA-256 is not {recorded} as in SHA256SUMS beside "
        "it; remove the file to download it again\n",
    )
    assert file.read_bytes() == changed, "not removed"


def test_a_file_that_is_already_there_is_kept_and_recorded(
    root: Path, server: Server, download: Callable
) -> None:
    (root / "alexnet").mkdir(parents=True)
    (root / "alexnet/checkpoint.pth.tar").write_bytes(b"mine")
    assert download(ARCHS="alexnet")[0] == 0
    line = f"{hashlib.sha256(b'mine').hexdigest()}  checkpoint.pth.tar\n"
    assert line in (root / "alexnet/SHA256SUMS").read_text()
    assert "checkpoint.pth.tar" not in [name for name, _ in server.asked]


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_a_killed_download_resumes(
    root: Path, server: Server, start: Start, download: Callable, sent: signal.Signals
) -> None:
    server.rest.clear()
    process = start(ARCHS="alexnet")
    assert server.half.wait(20)
    status, _, errors = download(ARCHS="alexnet")
    assert (status, errors.count("\n")) == (2, 1)
    assert "alexnet: another download into it is under way" in errors

    os.killpg(process.pid, sent)  # the whole group, like a terminal
    process.communicate(timeout=60)
    server.rest.set()
    assert not (root / "alexnet/checkpoint.pth.tar").exists()
    assert download(ARCHS="alexnet")[0] == 0
    for name in NAMES:
        assert (root / "alexnet" / name).read_bytes() == server.files[f"alexnet/{name}"]
    assert everything_below(root) == {f"alexnet/{n}" for n in (*NAMES, "SHA256SUMS")}


@pytest.mark.parametrize(
    ("flag", "ending"),
    [("--assignments", "cluster_assignment.pickle"), ("--features", "features.pkl")],
)
def test_assignments_and_features_are_downloaded(
    root: Path, server: Server, download: Callable, flag: str, ending: str
) -> None:
    names = {f"{arch}/{arch}_{ending}" for arch in ("alexnet", "vgg16")}
    server.files |= dict.fromkeys(names, b"content")
    assert download(flag, ARCHS="")[0] == 0
    assert everything_below(root) == {*names, "alexnet/SHA256SUMS", "vgg16/SHA256SUMS"}


@pytest.mark.parametrize(
    ("flag", "name"),
    [
        ("--swav", "swav_800ep_pretrain"),
        ("--swav", "swav_RN50w2_400ep_pretrain"),
        ("--deepclusterv2", "deepclusterv2_400ep_2x224_pretrain"),
        ("--selav2", "selav2_400ep_pretrain"),
    ],
)
def test_a_published_name_brings_this_file_alone(
    root: Path, server: Server, download: Callable, flag: str, name: str
) -> None:
    server.files[f"{name}.pth.tar"] = b"content"
    status, out, _ = download(flag, name)
    assert (status, out.split(":")[0]) == (0, f"{root / name}.pth.tar")
    assert everything_below(root) == {f"{name}.pth.tar", "SHA256SUMS"}


OF_DEEPERCLUSTER = [
    "ours/ours.pth",
    "deepcluster/deepcluster_flickr.pth",
    "rotnet/rotnet_flickr.pth",
    "rotnet/rotnet_imagenet.pth",
]


@pytest.mark.parametrize(
    ("flags", "paths"),
    [
        (["--deepercluster"], OF_DEEPERCLUSTER),
        (["--deepercluster", "--swav", "swav_100ep_pretrain"], OF_DEEPERCLUSTER),
        *((["--deepercluster", Path(path).stem], [path]) for path in OF_DEEPERCLUSTER),
    ],
)
def test_deeperclusters_files_are_in_their_published_folders(
    root: Path, server: Server, download: Callable, flags: list[str], paths: list[str]
) -> None:
    server.files |= dict.fromkeys([*OF_DEEPERCLUSTER, "swav_100ep_pretrain.pth.tar"], b"content")
    assert download(*flags)[0] == 0
    more = {"swav_100ep_pretrain.pth.tar"} if "--swav" in flags else set()
    assert {path for path in everything_below(root) if "SHA" not in path} == {*paths, *more}


def test_several_names_and_the_networks_of_archs(
    root: Path, server: Server, download: Callable
) -> None:
    names = ["swav_100ep_pretrain", "swav_200ep_pretrain"]
    server.files |= {f"{name}.pth.tar": b"content" for name in names}
    assert download("--swav", names[0], "--swav", names[1], ARCHS="alexnet")[0] == 0
    assert {path for path in everything_below(root) if "SHA" not in path} == {
        *(f"{name}.pth.tar" for name in names), *(f"alexnet/{name}" for name in NAMES),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "variables", "message"),
    [
        (
            ["--all"],
            {},
            "--all: not one of --assignments, --features, --swav NAME, --deepclusterv2 NAME, "
            "--selav2 NAME, --deepercluster [NAME], --help",
        ),
        (
            ["--selav2", "800ep"],
            {},
            "--selav2 800ep: not a published name; give one of selav2_400ep_pretrain "
            "selav2_400ep_2x224_pretrain",
        ),
        (
            ["--deepclusterv2"],
            {},
            "--deepclusterv2 : not a published name; give one of deepclusterv2_400ep_pretrain "
            "deepclusterv2_400ep_2x224_pretrain deepclusterv2_800ep_pretrain",
        ),
        (
            ["--deepercluster", "theirs"],
            {},
            "--deepercluster theirs: not a published name; give one of ours deepcluster_flickr "
            "rotnet_flickr rotnet_imagenet",
        ),
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
