#!/usr/bin/env bash
# Starts a server with its data in ./cairn-data and prints what to do with it.
set -euo pipefail
cd "$(dirname "$0")/.."
data=cairn-data
cairn=target/release/cairn

umask 077
mkdir -p "$data"
chmod 700 "$data"
scripts/make_sample.sh "$data/images"
if [ ! -e "$data/cairn.toml" ]; then
  cat > "$data/cairn.toml" <<'T'
# Every *.raw, *.img and *.qcow2 below the folder is a volume.
[[source]]
kind = "images"
name = "lab"
path = "images"

[[source.server]]
name = "web-1"
disks = ["web-root.img", "web-data.qcow2"]   # the first is the system disk
T
fi

cat <<T

Cairn starts on http://127.0.0.1:8774 with its data in ./$data; Ctrl-C ends it.
Try it from another terminal, in this folder:

$(awk '/^## /{here = /A first restore/} /^```/{code = !code && here; next} code{print "  " $0}' README.md)

T
exec "$cairn" server --config "$data/cairn.toml" --data-dir "$data"
