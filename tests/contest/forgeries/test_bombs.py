"""What is small and never ends, or fills the memory: judged within bounds, by a process with limits of its own.

Its processor time is bounded and not the clock's, so that a busy machine changes nothing. Every bomb also has a size
that an honest file may have, which is read within the same bounds.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

import pytest

from pipeline import paths

pytestmark = pytest.mark.checkout

SECONDS = 6
LIMITS = f"""
import resource
resource.setrlimit(resource.RLIMIT_CPU, ({SECONDS}, {SECONDS + 1}))
resource.setrlimit(resource.RLIMIT_AS, ({{0}}, {{0}}))
"""

READERS = {
    "json": """
from pipeline.contest.archive import strict_json
try:
    strict_json.loads({})
except ValueError:
    pass
""",
    "citations": """
from pipeline.contest.source import third_party
try:
    third_party.parse({})
except ValueError:
    pass
""",
    "source": """
from pipeline.contest.source import third_party as it
it.uncited({{"x.py": {}}}, it.ThirdParty(code=(), ideas=(), models=(), data=(), packages=()))
""",
    "lock": """
from pipeline.contest.source import third_party as it
it.uncited({{"requirements/x.lock": ({}).encode()}}, it.ThirdParty(code=(), ideas=(), models=(), data=(), packages=()))
""",
    "secrets": """
from pipeline.contest.source import secrets
secrets.tokens_in(({}).encode())
""",
    "answers": """
import tempfile, pathlib
from pipeline.contest.checks import read_submitted
with tempfile.TemporaryDirectory() as folder:
    pathlib.Path(folder, "outputs.jsonl").write_bytes({})
    read_submitted.read_answers(pathlib.Path(folder))
""",
    "similarity": """
import numpy
from pipeline.contest.similarity import prints
from pipeline.contest.similarity.source_tree import Tree
prints.of_tree(Tree("a", {{{}: ({}).encode()}}, None), numpy.zeros(0, numpy.int64))
""",
}
"""Programs that read what a stranger wrote, by what it is."""


@dataclass(frozen=True)
class Bomb:
    reader: str
    honest: int
    """A size that may come in earnest, n in the expressions."""
    hostile: int
    content: str
    """An expression of n."""
    memory_bytes: int = 1 << 30
    """Of address space."""

    def fits(self, n: int) -> str:
        """Empty where it is judged in the bounds, otherwise how the process ended."""
        code = (
            f"{LIMITS.format(self.memory_bytes)}n = {n}\n{READERS[self.reader].format(*self.content.split(' from '))}"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=paths.ROOT, capture_output=True, text=True, check=False)
        return "" if done.returncode == 0 else f"status {done.returncode}: {done.stderr[-300:]}"


KEYS = """b'{"a": 1' + b"".join(b', "k%d": 1' % i for i in range(n))"""
ROW = """b'{"index":0,"output":[{"generated_text":""}],"token_ids":[],"at_s":0}' + b'\\n'"""
BOMBS = {
    "a key twice among many": Bomb("json", 1_000, 60_000, f"{KEYS} + b', \"k%d\": 2}}' % (n - 1)"),
    "keys by the hundred thousand": Bomb("json", 1_000, 300_000, f"{KEYS} + b'}}'"),
    "brackets by the million": Bomb("json", 100, 8_000_000, "b'[' * n"),
    "halves of letters": Bomb("json", 1_000, 500_000, """b'["' + b"\\\\ud800" * n + b'"]'"""),
    "a long list in YAML": Bomb("citations", 1_000, 300_000, "b'ideas: [' + b'a,' * n + b']'"),
    "many lists in YAML": Bomb("citations", 500, 100_000, "b'code: []' + b'\\n- {a: b}' * n"),
    "a deep list in YAML": Bomb("citations", 100, 50_000, "b'a: ' + b'[' * n"),
    "lists in one line of YAML": Bomb("citations", 60, 120_000, "b'a: ' + b'- ' * n"),
    "a deep but whole list in YAML": Bomb("citations", 100, 900, "b'a: ' + b'[' * n + b']' * n"),
    "a long list in Python": Bomb("source", 20_000, 4_000_000, "b'x=[' + b'1,' * n + b']'", 4 << 30),
    "a sum without end": Bomb("source", 100, 300_000, "b'x=1' + b'+1' * n"),
    "a name without end": Bomb("source", 100, 300_000, "b'x=a' + b'.b' * n"),
    "signs without end": Bomb("source", 50, 300_000, "b'x=' + b'-' * n + b'1'"),
    "calls without end": Bomb("source", 50, 200_000, "b'x=f' + b'()' * n"),
    "branches without end": Bomb("source", 50, 100_000, "b'if x: pass' + b'\\nelif x: pass' * n"),
    "a header again and again": Bomb("source", 20, 200_000, "b'Copyright ' * n"),
    "a line without end in a lock": Bomb("lock", 1_000, 8_000_000, "'a' * n"),
    "a lock of a million lines": Bomb("lock", 1_000, 1_000_000, "'a==1\\n' * n"),
    "beginnings of a token": Bomb("secrets", 500, 32_000, "'-eyJaaaaaaaaaa' * n"),
    "beginnings of a key": Bomb("secrets", 500, 32_000, "'-----BEGIN A PRIVATE KEY' * n"),
    "empty lines by the million": Bomb("answers", 2_000, 20_000_000, "b'\\n' * n"),
    "rows by the million": Bomb("answers", 5_000, 1_400_000, f"({ROW}) * n"),
    "different pieces by the million": Bomb(
        "similarity",
        400,
        60_000,
        "'m.py' from ''.join('x=(a%s(b%s1))' % ('+-*/%'[i % 5], '+-*/%'[i // 5 % 5]) for i in range(n))",
    ),
    "quotes in Python": Bomb("similarity", 200, 300_000, "'m.py' from '\"' * n"),
    "letters apart in C++": Bomb("similarity", 200, 60_000, "'m.cpp' from 'a ' * n"),
    "names without end in C++": Bomb("similarity", 200, 20_000, "'m.cpp' from 'a::' * n"),
    "brackets in JavaScript": Bomb("similarity", 200, 100_000, "'m.js' from '/[' * n"),
    "brackets in a shell": Bomb("similarity", 200, 50_000, "'m.sh' from '$((' * n"),
}


@pytest.mark.parametrize("name", sorted(BOMBS))
def test_an_honest_size_is_read(name: str) -> None:
    assert BOMBS[name].fits(BOMBS[name].honest) == ""


QUICK = {"brackets in JavaScript"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in sorted(BOMBS)]
)
def test_it_is_judged_within_bounds(name: str) -> None:
    assert BOMBS[name].fits(BOMBS[name].hostile) == ""
