"""The types of base, moe, lm and measure are right, as mypy reads them (pyproject.toml says what)."""

import subprocess
import sys
from pathlib import Path


def test_mypy_has_no_complaint():
    # here and not before the tests, where it would keep one core busy for half a minute and let the others wait
    done = subprocess.run([sys.executable, "-m", "mypy"], cwd=Path(__file__).resolve().parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
