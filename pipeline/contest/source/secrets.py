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

_BEGINNINGS = (
    *("hf_", "gho_", "ghp_", "ghr_", "ghs_", "ghu_", "github_pat_", "glpat-"),
    *("nvapi-", "sk-", "xox", "AKIA", "AIza", "eyJ", "-----BEGIN"),
)
"""A text without any of them need not be searched by TOKENS, which is what takes time."""


def tokens_in(text: str) -> int:
    """How many things that look like an access token a text holds."""
    return len(TOKENS.findall(text)) if any(each in text for each in _BEGINNINGS) else 0
