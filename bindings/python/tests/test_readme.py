"""The programs of the package's README do what it says."""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve()
README = HERE.parents[1] / "README.md"
SNIPPETS = HERE.parents[3] / "tools" / "snippets.py"


def test_the_programs_of_the_readme_run() -> None:
    done = subprocess.run([sys.executable, str(SNIPPETS), str(README)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("ok ") == README.read_text(encoding="utf-8").count("```python")
