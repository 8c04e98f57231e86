#!/usr/bin/env bash
# Runs a command beside an S3 server of its own, which is gone afterwards.
#
#   scripts/with_s3.sh COMMAND...
#
# tests/seaweed.py says what the command finds.
set -euo pipefail
folder=$(cd "$(dirname "$0")/.." && pwd)
exec "$folder/.venv/bin/python" "$folder/tests/seaweed.py" "$@"
