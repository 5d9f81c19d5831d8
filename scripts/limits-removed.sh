#!/usr/bin/env bash
# Removes each limit on what a peer may ask of us, one at a time, and lists the
# tests that went red. A limit whose removal turns no test red is not tested:
# exits 1 when there is one.
set -euo pipefail

# package<TAB>limit: the keys of h2's table, the cases of listen's, and the names
# that code compares with directly.
limits=$(
	sed -nE '/^var removable/,/^}/s/^\t"(\w+)":.*/gateway\/h2\t\1/p' gateway/h2/limits.go
	sed -nE '/switch removed/,/^\t}/s/^\tcase "(\w+)":/gateway\/listen\t\1/p' gateway/listen/config.go
	grep -rHoE --include='*.go' 'removedLimit [!=]= "\w+"' gateway |
		sed -E 's|^(.*)/[^/]+:removedLimit .= "(\w+)"$|\1\t\2|'
)
for package in gateway/h2 gateway/listen; do
	if ! grep -q "^$package	" <<<"$limits"; then
		echo "limits-removed: no limit found in $package" >&2
		exit 1
	fi
done

# Where a limit of each package may be missed, and the tests to run there.
tests_of() {
	case $1 in
	gateway/h2) echo ./gateway/h2 '-run=Limits|Flood' ;;
	*) echo "./$1" ;;
	esac
}

untested=()
while IFS=$'\t' read -r package limit; do
	# shellcheck disable=SC2046 # words are arguments
	output=$(go test -count=1 -ldflags "-X sluice/$package.removedLimit=$limit" $(tests_of "$package") 2>&1) || true
	red=$(sed -nE 's/^ *--- FAIL: (\S+).*/  \1/p' <<<"$output")
	echo "$package $limit"
	if [ -z "$red" ]; then
		echo "  no test went red" >&2
		untested+=("$package $limit")
		tail -n 3 <<<"$output" | sed 's/^/  | /' >&2
		continue
	fi
	echo "$red"
done <<<"$limits"

if [ ${#untested[@]} != 0 ]; then
	printf 'limits-removed: not tested: %s\n' "${untested[@]}" >&2
	exit 1
fi
