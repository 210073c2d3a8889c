"""The top of a run's page as a small PNG file, for a README: needs Chromium, and the run's report.html.

invoke report RUN --against BASELINE
python tools/report_picture.py runs/RUN/report.html docs/report.png
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image

WIDTH, HEIGHT = 1100, 860
COLOURS = 48
"""More are not seen in a page of text and two bars, and cost bytes."""


def main() -> None:
    page, picture = (Path(each).resolve() for each in sys.argv[1:3])
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        sys.exit("there is no Chromium here")
    options = ["--headless", "--no-sandbox", "--hide-scrollbars", f"--window-size={WIDTH},{HEIGHT}"]
    subprocess.run([browser, *options, f"--screenshot={picture}", page.as_uri()], check=True, capture_output=True)
    with Image.open(picture) as image:
        small = image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    small.save(picture, optimize=True)
    print(f"{picture}: {picture.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
