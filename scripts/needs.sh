#!/usr/bin/env bash
# Installs what `make test` needs beside Go: a C compiler, for the race detector,
# curl and jq, which the documents use.
set -euo pipefail

missing=()
command -v "$(go env CC)" >/dev/null || missing+=(gcc libc6-dev)
for tool in curl jq; do
	command -v "$tool" >/dev/null || missing+=("$tool")
done
if [ ${#missing[@]} = 0 ]; then
	exit 0
fi
if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
	echo "make test: missing on this machine: ${missing[*]}; install them and try again" >&2
	exit 1
fi
apt-get update -q
DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"
