"""Calls in a process apart, within limits: what a stranger wrote may make a parser slow, greedy, or crash.

One process makes the calls in turn and hands on each result at once. A call that passes a limit, or ends the process,
is known by its place: a new process goes on behind it. Limits are the kernel's: nothing in a call can put them off.
"""

from __future__ import annotations

import contextlib
import gc
import math
import os
import pickle
import resource
import select
import signal
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, NoReturn

from pipeline.errors import PipelineError

CPU_S, WAITING_S = 120, 900.0
"""Processor time of one call; and how much longer it may take on a busy machine, or where it waits."""
MEMORY_BYTES = 4 << 30
"""What a call may take beside what the program had before."""

_LENGTH = struct.Struct(">Q")
_NO_MEMORY = 77
_QUIET = "TOKENIZERS_PARALLELISM"


@dataclass(frozen=True)
class Call:
    id: str
    make: Callable[[], Any]
    """Returns what can be pickled."""
    cpu_s: int = CPU_S
    memory_bytes: int = MEMORY_BYTES
    waiting_s: float = WAITING_S

    @property
    def most_s(self) -> float:
        return self.cpu_s + self.waiting_s


@dataclass(frozen=True)
class Stopped:
    """A call that gave no result."""

    why: str


@dataclass(frozen=True)
class _Raised:
    error: type[BaseException]
    fields: dict[str, Any]
    words: tuple[Any, ...]

    def again(self) -> BaseException:
        error = self.error.__new__(self.error, *self.words)
        error.__dict__.update(self.fields)
        return error


def each(calls: Sequence[Call]) -> Iterator[tuple[Call, Any]]:
    """Every call with its result, or with `Stopped`. What a call raises is raised here."""
    done = 0
    while done < len(calls):
        for call, result in _in_one_process(calls[done:]):
            done += 1
            yield call, result
            if isinstance(result, Stopped):
                break


def _in_one_process(calls: Sequence[Call]) -> Iterator[tuple[Call, Any]]:
    """The results up to the first call that is stopped, this one too."""
    ours, theirs = os.pipe()
    process = _fork(calls, ours, theirs)
    os.close(theirs)
    status: int | None = None
    try:
        with os.fdopen(ours, "rb") as results:
            for call in calls:
                if not select.select([results], [], [], call.most_s)[0]:
                    yield call, Stopped(f"it did not end in {call.most_s:,.0f} s")
                    return
                content = _read(results)
                if content is None:
                    _, status = os.waitpid(process, 0)
                    yield call, Stopped(_why(status, call))
                    return
                result = pickle.loads(content)  # written by ourselves, in the other process
                if isinstance(result, _Raised):
                    raise result.again()
                yield call, result
    finally:
        if status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)


def _read(results: BinaryIO) -> bytes | None:
    """One result; None where the process has ended instead."""
    head = results.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(head)
    content = results.read(length)
    return content if len(content) == length else None


def _why(status: int, call: Call) -> str:
    ended = os.waitstatus_to_exitcode(status)
    if ended == -signal.SIGXCPU:
        return f"it took more than {call.cpu_s:,} s of processor time"
    if ended == _NO_MEMORY:
        return f"it took more than {call.memory_bytes / 2**30:.0f} GiB of memory"
    return f"its process was ended by signal {-ended}" if ended < 0 else f"its process ended with status {ended}"


def _fork(calls: Sequence[Call], ours: int, theirs: int) -> int:
    # Said before the fork: tokenizers warns on stderr of its own threads, which a forked process does without.
    before = os.environ.get(_QUIET)
    os.environ[_QUIET] = "false"
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    try:
        process = os.fork()
        if process == 0:
            _work(calls, ours, theirs)
    finally:
        if before is None:
            del os.environ[_QUIET]
        else:
            os.environ[_QUIET] = before
    return process


def _work(calls: Sequence[Call], ours: int, theirs: int) -> NoReturn:
    """In the new process: nothing of it may go on behind the last call, also none of what waits for its end."""
    try:
        os.close(ours)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the other one's to hear, which ends this one
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGXCPU, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        gc.freeze()  # a collection that looks at what was there before would copy all of it
        if (torch := sys.modules.get("torch")) is not None:
            torch.set_num_threads(1)  # the threads of before are not in this process, and waiting for them has no end
        with os.fdopen(theirs, "wb") as results:
            for call in calls:
                _limit(call)
                content = pickle.dumps(_result(call))
                results.write(_LENGTH.pack(len(content)))
                results.write(content)
                results.flush()
        os._exit(0)
    except MemoryError:
        os._exit(_NO_MEMORY)
    except BaseException as error:
        print(f"a call apart ended: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)


def _limit(call: Call) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = math.ceil(used.ru_utime + used.ru_stime) + call.cpu_s
    _lower(resource.RLIMIT_CPU, seconds)
    _lower(resource.RLIMIT_DATA, _data_bytes() + call.memory_bytes)


def _lower(kind: int, most: int) -> None:
    hard = resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _data_bytes() -> int:
    """The bytes of this process that RLIMIT_DATA counts: the program's own memory, not what it maps to share."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[5]) * resource.getpagesize()


def _result(call: Call) -> Any:
    try:
        return call.make()
    except (PipelineError, KeyboardInterrupt) as error:
        return _Raised(type(error), dict(error.__dict__), error.args)
    except MemoryError:
        raise
    except Exception as error:  # a fault of ours: its words are all that is known of it outside
        return Stopped(f"{type(error).__name__}: {error}")
