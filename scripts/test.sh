#!/usr/bin/env bash
# Everything a change must pass; `make test` has installed what it needs.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:$HOME/.cargo/bin"

step() { printf '\n== %s (%s s)\n' "$1" "$SECONDS"; }

step "format"
cargo fmt --all --check
step "lints"
cargo clippy --workspace --all-targets --locked --quiet -- -D warnings
step "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items --locked --quiet
step "tests of the crates, beside PostgreSQL and an S3 server"
scripts/with_postgres.sh scripts/with_s3.sh cargo test --workspace --locked --quiet
step "release build"
cargo build --release --locked --package cairn
step "tests of the program"
scripts/with_postgres.sh .venv/bin/pytest tests
step "all passed"
