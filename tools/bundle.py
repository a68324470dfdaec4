"""Build dist/moe-lesson-bundle.zip, which brings the course to a machine that cannot reach it: python tools/bundle.py

In it lie the wheel, the lessons, the data, and bootstrap.py as __main__.py, which a lesson's first cell runs. The same
files give the same bytes. Any Python from 3.10 on with pip can build it: nothing of the course need be installed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
BUNDLE = "moe-lesson-bundle.zip"
NEW_YEAR_1980 = (1980, 1, 1, 0, 0, 0)  # the earliest date that a zip file can hold


def build_wheel(folder: Path) -> Path:
    """Build the package's wheel into a folder, with the setuptools that is here, or else one that pip fetches."""
    with tempfile.TemporaryDirectory() as source:
        # From a copy: setuptools would leave its build/ in the repository, and take deleted modules from there next time.
        for name in ("pyproject.toml", "README.md", "LICENSE"):  # the latter two are named in the first
            shutil.copy(REPO / name, source)
        shutil.copytree(REPO / "moe_lesson", Path(source, "moe_lesson"), ignore=shutil.ignore_patterns("__pycache__"))
        subprocess.run(
            [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps",
             *(["--no-build-isolation"] if find_spec("setuptools") else []), "--wheel-dir", str(folder), source],
            check=True, env=os.environ | {"SOURCE_DATE_EPOCH": "315619200"},  # 2 January 1980, for the same reason
        )  # fmt: skip
    (wheel,) = folder.glob("*.whl")
    return wheel


def contents(wheel: Path) -> dict[str, Path]:
    """What goes into the bundle: name there -> file here."""
    files = [path for pattern in ("notebooks/**/*", "data/**/*") for path in REPO.glob(pattern)
             if path.is_file() and not any(part.startswith(".") for part in path.relative_to(REPO).parts)]  # fmt: skip
    files = {path.relative_to(REPO).as_posix(): path for path in sorted(files)}
    return {"__main__.py": REPO / "tools" / "bootstrap.py", wheel.name: wheel} | files


def build(bundle: Path) -> Path:
    """Write the bundle, whole or not at all."""
    bundle.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=bundle.parent) as folder:
        partial = Path(folder, bundle.name)
        with zipfile.ZipFile(partial, "w") as archive:
            for name, path in contents(build_wheel(Path(folder))).items():
                archive.writestr(zipfile.ZipInfo(name, NEW_YEAR_1980), path.read_bytes(), zipfile.ZIP_DEFLATED)
        os.replace(partial, bundle)
    return bundle


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()  # --help tells, and does nothing
    built = build(REPO / "dist" / BUNDLE)
    print(f"{built.relative_to(REPO)}, {built.stat().st_size / 1e6:.1f} MB: upload it to Colab beside a lesson of notebooks/")
