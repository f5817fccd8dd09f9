"""Runs the programs in a Markdown file, as they stand there.

    tools/snippets.py README.md

A fenced block of `python`, `js`, `c` or `rust` is a whole program. Each comment `prints: TEXT` in it names the next
line it must write to its standard output. Programs run in a fresh directory, against what `make build` made.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
TIMEOUT_S = 600


def run(command: list[str], directory: Path, **environment: str) -> str:
    done = subprocess.run(
        command,
        cwd=directory,
        env={**os.environ, **environment},
        timeout=TIMEOUT_S,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}:\n{done.stdout}")
    return done.stdout


def python(text: str, directory: Path) -> str:
    (directory / "snippet.py").write_text(text, encoding="utf-8")
    return run([sys.executable, "-W", "error", "snippet.py"], directory)


def js(text: str, directory: Path) -> str:
    (directory / "snippet.mjs").write_text(text, encoding="utf-8")
    (directory / "node_modules").mkdir()
    (directory / "node_modules/flowmesh").symlink_to(ROOT / "bindings/node")
    return run(["node", "snippet.mjs"], directory)


def c(text: str, directory: Path) -> str:
    (directory / "snippet.c").write_text(text, encoding="utf-8")
    flags = run(["pkg-config", "--cflags", "--libs", "flowmesh"], directory, PKG_CONFIG_PATH=str(BUILD / "c")).split()
    compiler = os.environ.get("CC", "cc")
    run([compiler, "-Wall", "-Wextra", "-Wno-unused-parameter", "-Werror", "-o", "snippet", "snippet.c", *flags], directory)
    return run(["./snippet"], directory)


def rust(text: str, directory: Path) -> str:
    manifest = '[package]\nname = "snippet"\nversion = "0.0.0"\nedition = "2024"\n[workspace]\n'
    manifest += f'[dependencies]\nflowmesh = {{ path = "{ROOT / "core"}" }}\n'
    (directory / "Cargo.toml").write_text(manifest, encoding="utf-8")
    shutil.copy(ROOT / "Cargo.lock", directory)
    (directory / "src").mkdir()
    (directory / "src/main.rs").write_text(text, encoding="utf-8")
    target = str(BUILD / "snippets")
    run(["cargo", "build", "--quiet"], directory, CARGO_TARGET_DIR=target)
    return run([str(BUILD / "snippets/debug/snippet")], directory)


RUNNERS = {"python": python, "js": js, "c": c, "rust": rust}


def main() -> None:
    failed = 0
    for document in sys.argv[1:]:
        text = Path(document).read_text(encoding="utf-8")
        blocks = re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        programs = [(language, program) for language, program in blocks if language in RUNNERS]
        if not programs:
            sys.exit(f"{document}: no programs found")
        for number, (language, program) in enumerate(programs, 1):
            name = f"{document}, program {number} ({language})"
            wanted = re.findall(r"prints: (.*?)(?: \*/)?$", program, re.MULTILINE)
            try:
                with tempfile.TemporaryDirectory(prefix="fm-") as directory:
                    output = RUNNERS[language](program, Path(directory))
                if output.splitlines() != wanted:
                    raise RuntimeError(f"it printed {output.splitlines()}, the page says {wanted}")
                print(f"ok {name}")
            except (RuntimeError, subprocess.TimeoutExpired) as error:
                failed += 1
                print(f"FAILED {name}: {error}")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
