#!/bin/sh
# Installs the C library that `ffi/link.sh` built.
#
#   ffi/install.sh [PREFIX]     or PREFIX=/usr/local DESTDIR= ffi/install.sh
set -eu
cd "$(dirname "$0")/.."

prefix=${1:-${PREFIX:-/usr/local}}
case $prefix in
/*) ;;
*) prefix=$(pwd)/$prefix ;;
esac
root=${DESTDIR:-}$prefix
from=${CARGO_TARGET_DIR:-target}/c
[ -e "$from/flowmesh.pc" ] || { echo "nothing to install: run ffi/link.sh first" >&2; exit 1; }

install -d "$root/include" "$root/lib/pkgconfig"
install -m 644 include/flowmesh.h "$root/include/flowmesh.h"
install -m 644 "$from/libflowmesh.a" "$root/lib/libflowmesh.a"
install -m 644 "$from/flowmesh.pc" "$root/lib/pkgconfig/flowmesh.pc"
for library in "$from"/libflowmesh.so.*.*.*; do
	name=$(basename "$library")
	version=${name#libflowmesh.so.}
	install -m 755 "$library" "$root/lib/$name"
	ln -sf "$name" "$root/lib/libflowmesh.so.${version%%.*}"
	ln -sf "libflowmesh.so.${version%%.*}" "$root/lib/libflowmesh.so"
done
case $root in /usr | /usr/local) system=yes ;; *) system=no ;; esac
if [ $system = yes ] && [ "$(id -u)" = 0 ] && command -v ldconfig >/dev/null 2>&1; then
	ldconfig
fi
echo "installed FlowMesh $(sed -n 's/^Version: //p' "$from/flowmesh.pc") in $root"
