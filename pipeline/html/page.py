"""Pages of one file: style and script inside, nothing fetched, and nothing from the data can run.

Every value is escaped by the templates. Beside that the page forbids itself (Content-Security-Policy) to load anything
and to run any script but the one of `page.js`, whose hash it names: also text that slipped through would stay text.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pipeline.files import write_atomically

HERE = Path(__file__).parent


def render(template: str, **values: Any) -> str:
    """A whole page from a template of this folder. The same values give the same bytes."""
    style, script = ((HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = _ENVIRONMENT.get_template(template)
    # Both are files of this folder, not data.
    return page.render(style=Markup(style), script=Markup(script), script_sha256=digest, **values)


def write(path: Path, page: str) -> None:
    """Write the page to `path`, whole or not at all. Raises ResourceError (R101, R102)."""
    with write_atomically(path) as file:
        file.write(page.encode("utf-8", "replace"))


def percent(share: float | None, digits: int = 1) -> str:
    return "–" if share is None else f"{100 * share:.{digits}f} %"


def amount(count: int) -> tuple[str, str]:
    """Bytes as a number and a unit."""
    return (f"{count / 2**30:,.2f}", "GiB") if count >= 2**30 else (f"{count / 2**20:,.0f}", "MiB")


def bytes_text(count: int | None) -> str:
    return "–" if count is None else " ".join(amount(count))


def decimals(seconds: float) -> str:
    """Seconds as text, with as many digits as a run's time deserves."""
    return f"{seconds:.3f}" if seconds < 10 else f"{seconds:,.2f}"


_ENVIRONMENT = Environment(
    loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
_ENVIRONMENT.filters |= {"percent": percent, "bytes": bytes_text, "amount": amount, "decimals": decimals}
