"""The packages of the wheel; all else stands in pyproject.toml, which cannot say that a package lies elsewhere."""

from setuptools import find_packages, setup

ELSEWHERE = {"pipeline.configs": "configs", "pipeline.standin": "data/standin"}
"""What the checkout holds beside the package, and pipeline/paths.py looks for in it where there is no checkout."""

setup(packages=[*find_packages(include=["pipeline", "pipeline.*"]), *ELSEWHERE], package_dir=ELSEWHERE)
