"""What every page of ours must be, as far as its text shows it."""

from __future__ import annotations

import re
from html.parser import HTMLParser

EMPTY = {"meta", "link", "input", "br", "hr", "img", "path", "use", "rect"}


class Checker(HTMLParser):
    """Collects what a page is made of, and what is wrong with its nesting."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.wrong: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in {"href", "src", "xlink:href", "action"}:
                self.addresses.append(value or "")
            if name.startswith("on"):
                self.wrong.append(f"a handler: {name}")
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in EMPTY:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag in EMPTY:
            return
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"</{tag}> closes another one")


def check(page: str) -> Checker:
    """Well nested, no id twice, one script, and nothing that is fetched from elsewhere."""
    found = Checker()
    found.feed(page)
    found.close()
    assert found.wrong == []
    assert found.open == []
    assert len(found.ids) == len(set(found.ids))
    assert found.tags.count("script") == 1
    assert all(address.startswith(("#", "data:")) for address in found.addresses), found.addresses
    assert not re.search(r"url\((?!#)|@import", page)
    return found
