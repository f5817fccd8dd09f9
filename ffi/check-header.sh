#!/bin/sh
# Fails when include/flowmesh.h is not what the sources say; `--write` writes it.
set -eu
cd "$(dirname "$0")/.."
case "${1:-}" in
'') exec cargo test --quiet -p flowmesh-ffi --test header ;;
--write) FLOWMESH_WRITE=1 exec cargo test --quiet -p flowmesh-ffi --test header ;;
*) echo "usage: $0 [--write]" >&2; exit 2 ;;
esac
