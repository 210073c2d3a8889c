"""Access tokens in a text, known by the beginnings that their makers gave them."""

from __future__ import annotations

import re

TOKENS = re.compile(
    r"\bhf_[A-Za-z0-9]{16,}|\bgh[oprsu]_[A-Za-z0-9]{20,}|\bgithub_pat_\w{20,}|\bglpat-[\w-]{16,}|\bnvapi-[\w-]{20,}"
    r"|\bsk-[\w-]{20,}|\bxox[abposr]-[\w-]{10,}|\bAKIA[0-9A-Z]{16}\b|\bAIza[\w-]{35}"
    r"|(?<![\w-])eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]*"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----(?:(?!-----).)*(?:-----END [A-Z ]*PRIVATE KEY-----)?",
    re.DOTALL,
)
"""Things that open something. Each letter is looked at once: what would be read to its end in vain begins no word."""

_INSIDE = (b"eyJ", b"-----BEGIN")
_WORDS = (
    *(b"hf_", b"gho_", b"ghp_", b"ghr_", b"ghs_", b"ghu_", b"github_pat_", b"glpat-"),
    *(b"nvapi-", b"sk-", b"xox", b"AKIA", b"AIza"),
)
"""A text without any of them, each at the beginning of a word, need not be searched by TOKENS, which is what takes
time: `sk-` stands in every text with a task-force in it."""
_LETTER = re.compile(rb"[A-Za-z0-9_]")


def tokens_in(content: bytes) -> int:
    """How many things that look like an access token a text holds, as UTF-8 as far as it is that."""
    if any(each in content for each in _INSIDE) or any(_begins(content, each) for each in _WORDS):
        return len(TOKENS.findall(content.decode("utf-8", "replace")))
    return 0


def _begins(content: bytes, word: bytes) -> bool:
    """Whether it stands anywhere in the content behind no letter."""
    at = content.find(word)
    while at >= 0:
        if at == 0 or not _LETTER.match(content, at - 1):
            return True
        at = content.find(word, at + 1)
    return False
