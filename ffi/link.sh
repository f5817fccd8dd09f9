#!/bin/sh
# Builds the C library: libflowmesh.a with cargo, and from it libflowmesh.so with the C compiler.
#
#   ffi/link.sh [OUT]     OUT: default target/c
#
# rustc ignores a version script for a library of its own making, so the shared library is linked here: only
# flowmesh_* is exported, each name with the version FLOWMESH_0. OUT can be built against as it is, with
# PKG_CONFIG_PATH=OUT; `ffi/install.sh` copies it to where it belongs.
set -eu
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-target}
out=${1:-$target/c}
mkdir -p "$out/include"
out=$(cd "$out" && pwd)
log=$(mktemp)
trap 'rm -f "$log"' EXIT

version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
major=${version%%.*}

# rustc tells which libraries of the system its own library needs; cargo repeats that when nothing changed.
cargo rustc --release -p flowmesh-ffi --lib -- --print native-static-libs 2>"$log" || { cat "$log" >&2; exit 1; }
system=$(sed -n 's/^note: native-static-libs: //p' "$log" | tail -n 1)
[ -n "$system" ] || { cat "$log" >&2; echo "rustc did not say which libraries it needs" >&2; exit 1; }
cp "$target/release/libflowmesh.a" "$out/libflowmesh.a"
cp include/flowmesh.h "$out/include/flowmesh.h"

# nodelete: threads of the library may still run when a program calls dlclose.
# shellcheck disable=SC2086
${CC:-cc} -shared -o "$out/libflowmesh.so.$version" \
	-Wl,-soname,"libflowmesh.so.$major" -Wl,--version-script,ffi/flowmesh.map \
	-Wl,-z,nodelete -Wl,-z,relro -Wl,-z,now -Wl,-z,defs -Wl,--gc-sections -Wl,-O1 \
	-Wl,--whole-archive "$out/libflowmesh.a" -Wl,--no-whole-archive $system
ln -sf "libflowmesh.so.$version" "$out/libflowmesh.so.$major"
ln -sf "libflowmesh.so.$major" "$out/libflowmesh.so"

describe() {
	cat <<EOF
prefix=$1
libdir=$2
includedir=$3

Name: FlowMesh
Description: Events and calls between the programs of one machine, over shared memory
Version: $version
Libs: -L\${libdir} $4-lflowmesh
Libs.private: $system
Cflags: -I\${includedir}
EOF
}
# shellcheck disable=SC2016
{
	# Says where it is by where it lies, so an installed tree can be moved.
	describe '${pcfiledir}/../..' '${prefix}/lib' '${prefix}/include' '' >"$out/flowmesh.pc"
	# pkg-config prefers this one where it finds it: here, before installing.
	describe '${pcfiledir}' '${prefix}' '${prefix}/include' '-Wl,-rpath,${libdir} ' >"$out/flowmesh-uninstalled.pc"
}
