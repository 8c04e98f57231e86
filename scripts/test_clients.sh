#!/usr/bin/env bash
# Builds the documentation's samples with the vendor's SDKs and runs them against
# a server; `make test-clients` has installed what it needs but Maven and Go.
set -euo pipefail
cd "$(dirname "$0")/.."
for tool in go javac mvn; do
  command -v "$tool" >/dev/null || {
    echo "$tool is missing: the samples need a JDK, Maven and Go." >&2
    exit 1
  }
done
exec .venv/bin/pytest tests/clients/test_samples.py
