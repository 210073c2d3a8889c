"""`python -m invoke …` and the organiser's script as processes of their own, without the seconds that importing torch
and transformers takes.

A server of each test process has the heavy packages of other people imported and nothing of ours. Asked for a command,
it forks: the child takes the folder, the environment and the three streams that it was given, and runs invoke as
`python -m invoke` (or the script as `python test_script.py`) does, importing our code anew. What a test sees is what it
would see of a process begun in the usual way: a pid to send signals to, an exit status, its own memory. Whatever the
imports depend on (threads, offline mode, locale) must be as it is here; else, and for options of Popen that are not
passed on, a process is begun in the usual way. So it is for tests marked `alone`, which look at times and memory.

The server begins with the environment that the session began with, not that of the test which happens to be the first
to want a command: after a test that has changed one of these variables no command would be forked any more.
"""

from __future__ import annotations

import array
import contextlib
import inspect
import os
import pickle
import runpy
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

IMPORTED = (
    "numpy",
    "torch",
    "tokenizers",
    "safetensors.torch",
    "pydantic",
    "transformers",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.phi3.modeling_phi3",
    "transformers.generation.utils",
    "transformers.pipelines",
)
FIXED = (
    "HF_",
    "TRANSFORMERS_",
    "PYTHON",
    "OMP_",
    "MKL_",
    "LD_",
    "CUDA_VISIBLE",
    "TORCH",
    "LC_",
    "LANG",
    "TOKENIZERS_",
    "TMPDIR",
)
"""How the names of variables begin that importing reads: with another value a process begins in the usual way. Of
CUDA's, CUDA_HOME is read by torch.utils.cpp_extension alone, which the server has not imported."""
SET_BY_TORCH = {"TORCHINDUCTOR_CACHE_DIR"}
"""By importing it, in this process and in the server alike."""
LARGEST_REQUEST = 150_000
NOT_PASSED_ON = ("executable", "preexec_fn", "pass_fds", "shell", "gid", "gids", "uid")

RealPopen: Any = subprocess.Popen


class Server:
    """The other end of the fork server of this process; it ends when this process does."""

    def __init__(self) -> None:
        self.socket, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.owner = os.getpid()
        with its:
            self.process = RealPopen(
                [sys.executable, __file__, str(its.fileno())],
                env=ForkingPopen.environment,
                pass_fds=[its.fileno()],
                stdin=subprocess.DEVNULL,
            )

    def fork(
        self, arguments: list[str], folder: str, environment: dict[str, str], new_session: bool, fds: list[int]
    ) -> Any:
        """The child's pid, and the socket on which its exit status will come."""
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        request = pickle.dumps((arguments, folder, environment, new_session))
        with its:
            passed = array.array("i", [*fds, its.fileno()])
            self.socket.sendmsg([request], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, passed)])
        pid = int(ours.recv(32) or b"0")
        if not pid:
            raise OSError("the fork server has ended")
        return pid, ours


class ForkingPopen(RealPopen):  # type: ignore[misc]
    """subprocess.Popen, which has such a command forked where that comes to the same."""

    enabled = True
    server: Server | None = None
    environment: Mapping[str, str] = {}
    """As the session began."""

    def __class_getitem__(cls, item: Any) -> Any:
        return RealPopen[item]

    def _execute_child(self, *given: Any, **named: Any) -> None:
        self._status: socket.socket | None = None
        told = inspect.signature(RealPopen._execute_child).bind(self, *given, **named).arguments
        arguments = arguments_of(told["args"])
        environment = {os.fsdecode(k): os.fsdecode(v) for k, v in (told["env"] or os.environ).items()}
        plain = not any(told.get(name) for name in NOT_PASSED_ON if told.get(name) not in (None, -1))
        folder = os.path.abspath(os.fsdecode(told["cwd"] or "."))
        if not (self.enabled and plain and arguments is not None and _alike(environment, folder)):
            super()._execute_child(*given, **named)
            return
        streams = zip(("p2cread", "c2pwrite", "errwrite"), (0, 1, 2), strict=True)
        fds = [told[name] if told[name] != -1 else number for name, number in streams]
        os.stat(folder)  # FileNotFoundError, as usual
        self.pid, self._status = _server().fork(arguments, folder, environment, told["start_new_session"], fds)
        self._child_created = True
        pipes = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        self._close_pipe_fds(*(told[name] for name in pipes))

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        if self._status is None:
            return super()._try_wait(wait_flags)  # type: ignore[no-any-return]
        if wait_flags & os.WNOHANG and not select.select([self._status], [], [], 0)[0]:
            return 0, 0
        status = self._status.recv(32)
        return self.pid, int(status) if status else signal.SIGKILL

    def _internal_poll(self, *given: Any, **named: Any) -> int | None:
        if self._status is None:
            return super()._internal_poll(*given, **named)  # type: ignore[no-any-return]
        if self.returncode is None:
            pid, status = self._try_wait(os.WNOHANG)
            if pid:
                self._handle_exitstatus(status)
        return self.returncode  # type: ignore[no-any-return]


def arguments_of(command: Any) -> list[str] | None:
    """`invoke` or the organiser's script and the arguments of `python -m invoke ARGUMENTS`, also behind
    `heeding_interrupts`, or `python test_script.py ARGUMENTS`; None: it is another command."""
    if not isinstance(command, (list, tuple)):
        return None
    words = [os.fsdecode(word) for word in command]
    if words[:2] == [sys.executable, "-c"] and "os.execv(sys.argv[1]" in words[2]:
        words = words[3:]
    if words[:1] == [sys.executable] and os.path.basename(words[1]) == "test_script.py":
        return words[1:]
    return words[2:] if words[:3] == [sys.executable, "-m", "invoke"] else None


def _alike(environment: Mapping[str, str], folder: str) -> bool:
    """Whether all that imports depend on is as it was when the session began."""
    here = ForkingPopen.environment
    # A PYTHONPATH of the working folder adds nothing: `-m` puts that first by itself.
    ours = (
        {**environment, "PYTHONPATH": here.get("PYTHONPATH")}
        if environment.get("PYTHONPATH") == folder
        else environment
    )
    return len(pickle.dumps(environment)) < LARGEST_REQUEST and all(
        ours.get(name) == here.get(name) for name in {*ours, *here} - SET_BY_TORCH if name.startswith(FIXED)
    )


def _server() -> Server:
    server = ForkingPopen.server
    if server is None or server.owner != os.getpid():
        server = ForkingPopen.server = Server()
    return server


def install() -> None:
    ForkingPopen.environment = dict(os.environ)
    subprocess.Popen = ForkingPopen  # type: ignore[misc]


# The server's own side


def serve(asked: socket.socket) -> list[str]:
    """Returns in each child, with its program and arguments; the server itself ends here."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for pytest, which ends and so ends this
    running: dict[int, socket.socket] = {}
    while True:
        ready, _, _ = select.select([asked, woken], [], [])
        if woken in ready:
            os.read(woken, 1000)
            for pid, told in list(running.items()):
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    with contextlib.suppress(BrokenPipeError, ConnectionResetError), running.pop(pid):
                        told.send(str(status).encode())
        if asked in ready:
            request, fds = receive(asked)
            if not request:
                os._exit(0)
            told = socket.socket(fileno=fds.pop())
            pid = os.fork()
            if not pid:
                for each in (*running.values(), told, asked):
                    each.close()
                signal.set_wakeup_fd(-1)
                os.close(woken), os.close(wake)
                return become(*pickle.loads(request), fds)
            running[pid] = told
            told.send(str(pid).encode())
            for fd in fds:
                os.close(fd)


def receive(asked: socket.socket) -> tuple[bytes, list[int]]:
    fds = array.array("i")
    request, ancillary, _, _ = asked.recvmsg(2 * LARGEST_REQUEST, socket.CMSG_LEN(4 * fds.itemsize))
    for _, _, data in ancillary:
        fds.frombytes(data)
    return request, list(fds)


def become(
    arguments: list[str], folder: str, environment: dict[str, str], new_session: bool, fds: list[int]
) -> list[str]:
    """Make this child what it was asked to be."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if new_session:
        os.setsid()
    kept = [os.dup(fd) if fd < 3 else fd for fd in fds]
    for number, fd in enumerate(kept):
        os.dup2(fd, number)
    for fd in {*kept, *fds} - {0, 1, 2}:
        os.close(fd)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        before = getattr(sys, name)
        line_wise = mode == "r" or number == 2 or os.isatty(number)
        stream = open(  # noqa: SIM115 - for the life of the process
            number,
            mode,
            buffering=1 if line_wise else -1,
            encoding=before.encoding,
            errors=before.errors,
            closefd=False,
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    sys.path[0] = folder if arguments[0] == "invoke" else os.path.dirname(os.path.abspath(arguments[0]))
    return arguments


if __name__ == "__main__":
    import gc
    import importlib

    for module in IMPORTED:
        importlib.import_module(module)
    ours = [name for name in sys.modules if name.partition(".")[0] in {"pipeline", "tasks", "support", "invoke"}]
    assert not ours, f"they must be imported anew by each command: {ours}"
    assert "torch.utils.cpp_extension" not in sys.modules, "it reads CUDA_HOME, which is each test's own"
    gc.freeze()
    program, *rest = serve(socket.socket(fileno=int(sys.argv[1])))
    sys.argv = [program, *rest]
    if program == "invoke":
        runpy.run_module("invoke", run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(program, run_name="__main__")
