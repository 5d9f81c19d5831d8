#!/usr/bin/env bash
# The rules of this repository that no linter knows, as greps, each with its
# reason. Prints every breach and exits 1 when there is one.
set -euo pipefail

broken=0

# rule REASON LINES: LINES are the breaches, none when the rule is kept.
rule() {
	if [ -n "$2" ]; then
		printf '%s\n%s\n\n' "house rule: $1" "$2" >&2
		broken=1
	fi
}

# The Go files that are ours: not generated, and there.
mapfile -t files < <(git ls-files --cached --others --exclude-standard -- '*.go' | grep -vE '\.(pb|pb\.gw|connect)\.go$' | sort -u |
	while read -r file; do [ -f "$file" ] && echo "$file"; done)
mapfile -t tests < <(printf '%s\n' "${files[@]}" | grep '_test\.go$')
mapfile -t product < <(printf '%s\n' "${files[@]}" | grep -v -e '_test\.go$' -e '^bench/' -e '^conformance/')

search() { # PATTERN FILE...: the lines that match, none is no failure
	local pattern=$1
	shift
	grep -nE -e "$pattern" -- "$@" /dev/null || true
}

rule "gofumpt formats every file: run .tmp/bin/gofumpt -w on these" \
	"$("$BIN/gofumpt" -l "${files[@]}")"

# A sleep is either too short on a busy machine or a waste on an idle one. In
# a synctest bubble it costs no time and is exact. The exceptions, beside lines
# that poll and say allow:sleep:
#   gateway/h2/transport_test.go  real sockets at an uneven pace; no result
#                                 depends on how long a pause is
sleeping=()
for file in "${tests[@]}"; do
	grep -q '"testing/synctest"' "$file" || sleeping+=("$file")
done
rule "a test waits for something, it does not sleep; use testing/synctest, or poll with a deadline" \
	"$(search 'time\.Sleep\(' "${sleeping[@]}" | grep -v -e 'allow:sleep' -e '^gateway/h2/transport_test\.go:' || true)"

# x/net's HTTP/2 server and client are deprecated and cost many times what our
# engine costs; only its Framer and its HPACK coder are used.
rule "of golang.org/x/net/http2 only Framer and hpack are used" \
	"$(search 'http2\.(Server|Transport|ConfigureServer|ConfigureTransports?|NewPriorityWriteScheduler|NewRandomWriteScheduler|ServeConnOpts)\b|x/net/http2/h2c' "${product[@]}")"

# gopkg.in/yaml is archived; go.yaml.in/yaml/v3 is its living successor.
rule "YAML is go.yaml.in/yaml/v3" "$(search 'gopkg\.in/yaml' "${files[@]}")"

# log.Fatal skips every defer: files stay behind, streams are cut. Errors go up
# to main, which alone ends the process.
rule "an error is returned, it does not end the process" \
	"$(search '\blog\.(Fatal|Panic)' "${product[@]}"; search '\bos\.Exit\(' "${product[@]}" | grep -v '^main\.go:' || true)"

# The log is structured, with its facts as attributes.
rule "logs go through log/slog" "$(search '^\s*(import )?"log"$' "${product[@]}")"

# Output belongs to whoever called: the command line passes its writers down.
rule "nothing prints to the process's own output" \
	"$(search '\bfmt\.(Print|Printf|Println)\(|\bos\.(Stdout|Stderr)\b' "${product[@]}" | grep -v '^main\.go:' || true)"

exit $broken
