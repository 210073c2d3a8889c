"""A model from the hub, over a server here that breaks off, stalls and lies, with the hub's real client."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from pipeline import paths
from pipeline.files import sha256_of
from pipeline.model import lock

REVISION = "0123456789abcdef" * 2 + "01234567"
SHARDS = [f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3)]
FILES = {
    "config.json": b"{}",
    "model.safetensors.index.json": b'{"metadata": {"total_size": 25600000}}',
    SHARDS[0]: b"0" * 25_000_000,  # the client writes 10 MiB at a time: less than that is not gone on with
    SHARDS[1]: b"1" * 300_000,
    SHARDS[2]: b"2" * 300_000,
}


class Hub(http.server.BaseHTTPRequestHandler):
    """One repository. What `server.spoil` says of a file happens to it so many times."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.answer(with_content=False)

    def do_GET(self) -> None:
        self.answer(with_content=True)

    def answer(self, with_content: bool) -> None:
        name = self.path.rsplit("/", 1)[1]
        if self.path != f"/a/b/resolve/{REVISION}/{name}" or name not in FILES:
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = FILES[name]
        blob = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
        self.send_response(206 if start else 200)
        self.send_header("X-Repo-Commit", REVISION)
        self.send_header("ETag", f'"{blob if name.endswith(".json") else hashlib.sha256(content).hexdigest()}"')
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if with_content:
            self.server.asked[name] += 1
            self.server.starts.append(start)
            self.give(name, content[start:])

    def give(self, name: str, content: bytes) -> None:
        how, times = self.server.spoil.get(name, ("", 0))
        if times:
            self.server.spoil[name] = (how, times - 1)
            if how == "cut":
                content, self.close_connection = content[: len(content) * 2 // 3], True
            elif how == "lie":
                content = bytes(len(content))
            elif how == "stall":
                self.wfile.write(content[: len(content) * 2 // 3])
                self.wfile.flush()
                self.server.patience.wait(30)
                return
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[http.server.ThreadingHTTPServer]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        server.daemon_threads, server.block_on_close = True, False
        server.spoil, server.asked, server.starts, server.patience = {}, Counter(), [], threading.Event()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.patience.set()
        server.shutdown()


@pytest.fixture
def setup(hub: http.server.ThreadingHTTPServer, tmp_path: Path) -> Setup:
    return Setup(hub.server_address[1], tmp_path)


class Setup:
    """`setup.ensure` of a model of that hub, in a fresh process: the client reads the hub's address when imported."""

    def __init__(self, port: int, folder: Path) -> None:
        self.folder, self.model, self.port = folder, folder / "models" / "ours", port
        configs = folder / "configs"
        shutil.copytree(paths.CONFIGS, configs)
        described = yaml.safe_load((configs / "models" / "phi3-medium.yaml").read_text())
        described["model"] |= {"name": "ours", "repo": "a/b", "revision": REVISION, "files": list(FILES)}
        (configs / "models" / "ours.yaml").write_text(yaml.safe_dump(described))

    def __call__(self) -> tuple[str, str]:
        """The error's code, or "ready"; and what was said."""
        do = (
            "import sys, pathlib\nfrom pipeline import errors, paths\nfrom pipeline.model import fetch\n"
            "paths.CONFIGS = pathlib.Path(sys.argv[1])\n"
            "try: fetch.ensure('ours'); print('ready')\n"
            "except errors.PipelineError as error: print(error, error.code, sep=chr(10))\n"
        )
        ours = {
            "HF_ENDPOINT": f"http://127.0.0.1:{self.port}",
            "HF_HOME": str(self.folder / "home"),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DOWNLOAD_TIMEOUT": "1",
            "HF_HUB_ETAG_TIMEOUT": "2",
            "HF_HUB_DISABLE_XET": "1",
            "PIPELINE_MODELS": str(self.folder / "models"),
        }
        others = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        ran = subprocess.run(
            [sys.executable, "-c", do, str(self.folder / "configs")],
            cwd=paths.ROOT,
            env={**others, **ours},
            capture_output=True,
            text=True,
            timeout=110,
            check=True,
        )
        return ran.stdout.split()[-1], ran.stdout

    def is_whole(self) -> bool:
        return {name: (self.model / name).read_bytes() for name in FILES} == FILES and lock.verify(self.model).files


def test_every_file_is_fetched_once_verified_and_locked(hub: http.server.ThreadingHTTPServer, setup: Setup) -> None:
    result, said = setup()
    assert result == "ready", said
    assert setup.is_whole()
    assert "MIT" in said
    assert hub.asked == dict.fromkeys(FILES, 1)
    assert setup()[0] == "ready"
    assert hub.asked == dict.fromkeys(FILES, 1)


def test_a_damaged_shard_is_fetched_by_itself(hub: http.server.ThreadingHTTPServer, setup: Setup) -> None:
    setup()
    (setup.model / SHARDS[1]).write_bytes(b"other" * 60_000)
    result, said = setup()
    assert result == "ready", said
    assert hub.asked == {**dict.fromkeys(FILES, 1), SHARDS[1]: 2}
    assert setup.is_whole()


@pytest.mark.parametrize("how", ["cut", "stall"])
def test_a_line_that_breaks_or_falls_silent_is_gone_on_with(
    hub: http.server.ThreadingHTTPServer, setup: Setup, how: str
) -> None:
    hub.spoil[SHARDS[0]] = (how, 1)
    result, said = setup()
    assert result == "ready", said
    assert hub.asked[SHARDS[0]] == 2
    assert max(hub.starts) > 0  # not from the beginning
    assert setup.is_whole()


def test_a_wrong_content_of_the_right_size_is_fetched_again(hub: http.server.ThreadingHTTPServer, setup: Setup) -> None:
    hub.spoil[SHARDS[2]] = ("lie", 1)
    result, said = setup()
    assert result == "ready", said
    assert "did not come as the hub lists it" in said
    assert setup.is_whole()


def test_who_goes_on_lying_is_told_of_and_leaves_nothing_behind(
    hub: http.server.ThreadingHTTPServer, setup: Setup
) -> None:
    hub.spoil[SHARDS[2]] = ("lie", 9)
    result, said = setup()
    assert result == "M221", said
    assert not (setup.model / SHARDS[2]).exists()
    assert not (setup.model / lock.NAME).exists()
    assert sha256_of(setup.model / SHARDS[0]) == hashlib.sha256(FILES[SHARDS[0]]).hexdigest()
    hub.spoil.clear()
    assert setup()[0] == "ready"
    assert hub.asked[SHARDS[0]] == 1  # kept


def test_a_hub_out_of_reach(tmp_path: Path) -> None:
    result, said = Setup(9, tmp_path)()
    assert result == "E201", said
    assert json.dumps("invoke setup --model ours goes on")[1:-1] in said
