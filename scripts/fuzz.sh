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
echo "fuzz: $count targets, ${each} s each"
while IFS=$'\t' read -r package target; do
	go test -run='^$' -fuzz="^${target}\$" -fuzztime="${each}s" "$package"
done <<<"$targets"
