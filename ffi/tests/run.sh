#!/bin/sh
# Everything that is promised of the C library, after `ffi/link.sh`: the header compiles, the library exports what
# it declares, and the programs beside this script pass: shared, static, installed, under valgrind, with sanitizers.
set -eu
cd "$(dirname "$0")/../.."

built=$(cd "${CARGO_TARGET_DIR:-target}/c" && pwd)
out=$built/tests
header=include/flowmesh.h
tests="arguments events calls queues waiting processes full"
warnings="-Wall -Wextra -Wpedantic -Werror"
CC=${CC:-gcc}
CXX=${CXX:-g++}
rm -rf "$out"
mkdir -p "$out"
export PKG_CONFIG_PATH="$built"

fail() {
	echo "FAILED: $*" >&2
	exit 1
}
step() {
	echo "-- $*"
}
# compile OUTPUT SOURCE FLAG...
compile() {
	output=$1 source=$2
	shift 2
	# shellcheck disable=SC2086
	$CC -std=c11 -D_GNU_SOURCE -g $warnings -o "$output" "$source" "$@" -pthread ||
		fail "$source does not compile"
}

step "the header, alone and in use, in each language"
cmp -s "$header" "$built/include/flowmesh.h" || fail "the library is older than the header: run ffi/link.sh"
for standard in c99 c11 c17; do
	# shellcheck disable=SC2086
	$CC -x c -std=$standard $warnings -fsyntax-only "$header" || fail "$header as $standard"
	# shellcheck disable=SC2046,SC2086
	$CC -x c -std=$standard $warnings -o "$out/header-$standard" ffi/tests/header.c $(pkg-config --cflags --libs flowmesh) ||
		fail "header.c as $standard"
	"$out/header-$standard" || fail "header-$standard returned $?"
done
for standard in c++11 c++17 c++20; do
	# shellcheck disable=SC2086
	$CXX -x c++ -std=$standard $warnings -fsyntax-only "$header" || fail "$header as $standard"
	# shellcheck disable=SC2046,SC2086
	$CXX -x c++ -std=$standard $warnings -o "$out/header-$standard" ffi/tests/header.c $(pkg-config --cflags --libs flowmesh) ||
		fail "header.c as $standard"
	"$out/header-$standard" || fail "header-$standard returned $?"
done
if grep -n 'Safety\|TODO\|§' "$header"; then fail "the header says what is not for C"; fi

step "what the library exports is what the header declares, and each function is tested with bad arguments"
sed -n 's/^[a-z].*[ *]\(flowmesh_[a-z0-9_]*\)(.*/\1/p' "$header" | grep -v '^flowmesh_\(drop\|interrupt\|event_handler\|request_handler\|job_handler\)$' | sort >"$out/declared"
nm -D --defined-only "$built/libflowmesh.so" | sed -n 's/.* T \(.*\)@@FLOWMESH_0$/\1/p' | sort >"$out/exported"
diff "$out/declared" "$out/exported" >&2 || fail "declared (<) and exported (>) differ"
[ "$(nm -D --defined-only "$built/libflowmesh.so" | grep -vc ' A FLOWMESH_0$')" = "$(wc -l <"$out/exported")" ] ||
	fail "the library exports more than flowmesh_*"
while read -r name; do
	grep -q "$name\|${name%_init}, FLOWMESH" ffi/tests/arguments.c ffi/tests/check.h || fail "$name is not in arguments.c"
done <"$out/declared"
readelf -d "$built/libflowmesh.so" >"$out/dynamic"
grep -q 'SONAME.*\[libflowmesh\.so\.0\]' "$out/dynamic" || fail "no soname"
grep -q 'NODELETE' "$out/dynamic" || fail "the library can be unloaded"

step "the programs, against the shared library"
for test in $tests; do
	# shellcheck disable=SC2046
	compile "$out/$test" "ffi/tests/$test.c" $(pkg-config --cflags --libs flowmesh)
	"$out/$test" || fail "$test"
done

step "against the static library"
static=$(pkg-config --static --libs flowmesh | sed 's/-lflowmesh/-l:libflowmesh.a/')
for test in events calls; do
	# shellcheck disable=SC2046,SC2086
	compile "$out/$test-static" "ffi/tests/$test.c" $(pkg-config --cflags flowmesh) $static
	if readelf -d "$out/$test-static" | grep -q 'NEEDED.*flowmesh'; then fail "$test-static needs the shared library"; fi
	"$out/$test-static" || fail "$test-static"
done

step "the examples, against an installed copy that was moved"
ffi/install.sh "$out/prefix"
mv "$out/prefix" "$out/moved"
(
	PKG_CONFIG_PATH=$out/moved/lib/pkgconfig
	LD_LIBRARY_PATH=$out/moved/lib
	export PKG_CONFIG_PATH LD_LIBRARY_PATH
	pkg-config --validate flowmesh || fail "flowmesh.pc"
	[ "$(pkg-config --modversion flowmesh)" = "$(sed -n 's/^Version: //p' "$built/flowmesh.pc")" ] || fail "another flowmesh.pc is in the way"
	for example in examples/c/*.c; do
		# shellcheck disable=SC2046
		compile "$out/example-$(basename "$example" .c)" "$example" $(pkg-config --cflags --libs flowmesh)
	done
	CHECK_BIN="$out/example-" examples/c/run
) || fail "examples"

# Rust's standard library keeps the middle of a thread's handle, so what is only possibly lost says nothing.
step "under valgrind"
for test in $tests; do
	leaks=full
	# What the parent's other threads held is lost in a forked child by nobody's fault.
	[ "$test" != processes ] || leaks=no
	valgrind --log-file="$out/$test.valgrind" --error-exitcode=99 --leak-check=$leaks --errors-for-leak-kinds=definite \
		--show-leak-kinds=definite --child-silent-after-fork=yes --fair-sched=yes "$out/$test" || {
		cat "$out/$test.valgrind" >&2
		fail "$test under valgrind"
	}
done

step "with the address and undefined-behaviour sanitizers"
for test in $tests; do
	# shellcheck disable=SC2046
	compile "$out/$test-asan" "ffi/tests/$test.c" -fsanitize=address,undefined -fno-sanitize-recover=all $(pkg-config --cflags --libs flowmesh)
	"$out/$test-asan" || fail "$test with sanitizers"
done
echo "ok: the C library"
