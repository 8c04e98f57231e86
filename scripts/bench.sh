#!/usr/bin/env bash
# Times Cairn beside restic and borg on the project's own workload.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH:$HOME/.cargo/bin"
folder=${CAIRN_BENCH_DIR:-target/bench}
size_mib=${CAIRN_BENCH_SIZE_MIB:-4096}
python3 bench/workload.py "$folder" --size-mib "$size_mib"
exec cargo run --release --locked --quiet --package xtask -- bench "$folder"
