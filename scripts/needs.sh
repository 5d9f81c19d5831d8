#!/usr/bin/env bash
# Installs what `make test` needs beside Go: a C compiler, for the race detector,
# curl and jq, which the documents use. `needs.sh conformance` installs what the
# suites need: Node with npm, and a browser.
set -euo pipefail

missing=()
if [ "${1:-}" = conformance ]; then
	command -v node >/dev/null || missing+=(nodejs)
	command -v npm >/dev/null || missing+=(npm)
	command -v chromium >/dev/null || missing+=(chromium)
fi
command -v "$(go env CC)" >/dev/null || missing+=(gcc libc6-dev)
for tool in curl jq; do
	command -v "$tool" >/dev/null || missing+=("$tool")
done
if [ ${#missing[@]} = 0 ]; then
	exit 0
fi
if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
	echo "make ${1:-test}: missing on this machine: ${missing[*]}; install them and try again" >&2
	exit 1
fi
apt-get update -q
DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"
