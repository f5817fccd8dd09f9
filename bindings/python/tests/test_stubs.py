"""The stub of the native half says what the native half has."""

import subprocess
import sys
from pathlib import Path

# Python calls it by that name from 3.12 on; before, it is the same thing without a name.
ALLOWED = "flowmesh._native.Message.__buffer__\n" if sys.version_info < (3, 12) else ""


def test_the_stub_is_what_the_module_has(tmp_path: Path) -> None:
    allowed = tmp_path / "allowed"
    allowed.write_text(ALLOWED)
    command = [sys.executable, "-m", "mypy.stubtest", "flowmesh._native", "--allowlist", str(allowed)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
