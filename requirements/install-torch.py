"""Install one torch wheel, by address and sha256, and pin it: install-torch.py URL SHA256 [CONSTRAINTS]

For Dockerfile.l4t, whose torch lies outside of any index. An empty SHA256 is for a wheel that nobody has published a
hash of; either way the hash is written down beside the constraint. Imports nothing that is installed.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
from pathlib import Path

url, expected = sys.argv[1:3]
constraints = Path(sys.argv[3] if len(sys.argv) > 3 else Path(sys.prefix, "constraints.txt"))
# A fixed place: pip writes down where the wheel lay, and two builds are to give one image.
folder = Path(tempfile.gettempdir(), "torch-wheel")
folder.mkdir()
try:
    wheel = folder / urllib.parse.unquote(url.rsplit("/", 1)[1])
    urllib.request.urlretrieve(url, wheel)
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if expected and found != expected:
        sys.exit(f"{wheel.name}: sha256 {found}, not {expected}")
    if not expected:
        print(f"NOT PINNED: build with TORCH_SHA256={found} from now on", file=sys.stderr)
    options = ["--no-deps", "--no-cache-dir", "--no-compile", "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(wheel)], check=True)
    version = wheel.name.split("-")[1]
finally:
    shutil.rmtree(folder)
constraints.write_text(f"torch=={version}  # {url} sha256 {found}\n", encoding="utf-8")
