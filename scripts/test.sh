#!/usr/bin/env bash
# Everything a change must pass; `make test` has installed what it needs.
#
#   scripts/test.sh [debug|release]
#
# The program's own tests run what was built for the crates' tests, with its checks of
# arithmetic, or, more slowly, what is released.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:$HOME/.cargo/bin"
profile=${1:-debug}
export CAIRN_BINARY=${CARGO_TARGET_DIR:-$PWD/target}/$profile/cairn

step() { printf '\n== %s (%s s)\n' "$1" "$SECONDS"; }

step "format"
cargo fmt --all --check
step "lints"
cargo clippy --workspace --all-targets --locked --quiet -- -D warnings
step "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items --locked --quiet
step "build"
cargo build --workspace --bins --lib --tests --locked --quiet
[ "$profile" != release ] || cargo build --release --locked --quiet --package cairn
# No documentation has code to run, and to look for it takes minutes.
step "tests of the crates, beside PostgreSQL and an S3 server"
scripts/with_postgres.sh scripts/with_s3.sh cargo test --workspace --bins --lib --tests --locked --quiet
step "tests of the program"
scripts/with_postgres.sh .venv/bin/pytest -n 2 tests
step "all passed"
