#!/usr/bin/env bash
# Runs every fuzz target for a short while: scripts/fuzz.sh EACH TOTAL, both in
# seconds. EACH is cut when all targets together would take more than TOTAL.
set -euo pipefail

each=$1
total=$2

# package<TAB>target, found in the tests themselves, so that none is forgotten.
targets=$(grep -rHoE --include='*_test.go' --exclude-dir=.tmp --exclude-dir=conformance '^func Fuzz\w+' . |
	sed -E 's|^(.*)/[^/]+:func (Fuzz\w+)$|\1\t\2|' | sort -u)
if [ -z "$targets" ]; then
	echo "fuzz: no target found" >&2
	exit 1
fi
count=$(wc -l <<<"$targets")
if ((each * count > total)); then
	each=$((total / count > 0 ? total / count : 1))
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
run() { go test -run='^$' -fuzz="^$2\$" -fuzztime="$3" "$1" 2>&1 | tee "$log"; }
echo "fuzz: $count targets, ${each} s each"
while IFS=$'\t' read -r package target; do
	run "$package" "$target" "${each}s" && continue
	# When the seeds take all of its time, go test may call that a failure.
	if ! grep -q 'context deadline exceeded' "$log" || grep -q 'Failing input' "$log"; then
		exit 1
	fi
	run "$package" "$target" "$((10 * each))s"
done <<<"$targets"
