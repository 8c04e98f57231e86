#!/usr/bin/env bash
# Times Cairn beside restic, rustic and borg on the project's own workload, and how many
# requests a second its API answers on each database.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/target/tools/usr/bin:$PWD/.venv/bin:$PATH:$HOME/.cargo/bin"
folder=${CAIRN_BENCH_DIR:-target/bench}
size_mib=${CAIRN_BENCH_SIZE_MIB:-4096}
python3 bench/workload.py "$folder" --size-mib "$size_mib"
xtask() { cargo run --release --locked --quiet --package xtask -- "$@"; }
xtask bench "$folder"
cargo build --release --locked --quiet --package cairn-meta --examples
echo "SQLite:"
xtask load
echo "PostgreSQL:"
# shellcheck disable=SC2016
scripts/with_postgres.sh bash -c \
  'CAIRN_LOAD_CATALOGUE=$CAIRN_TEST_POSTGRES cargo run --release --locked --quiet --package xtask -- load'
