#!/bin/sh
# The scenarios of tests/behaviour/ through the C API, after `ffi/link.sh`. Without arguments: all of them.
set -eu
cd "$(dirname "$0")/../.."

built=$(cd "${CARGO_TARGET_DIR:-target}/c" && pwd)
mkdir -p "$built/tests"
export PKG_CONFIG_PATH="$built:${PKG_CONFIG_PATH:-}"
# shellcheck disable=SC2046
${CC:-gcc} -std=c11 -D_GNU_SOURCE -g -Wall -Wextra -Wpedantic -Werror -o "$built/tests/behaviour" ffi/tests/behaviour.c \
	$(pkg-config --cflags --libs flowmesh libcjson) -pthread
[ $# -gt 0 ] || set -- tests/behaviour/*.json
exec "$built/tests/behaviour" "$@"
