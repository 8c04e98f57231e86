#!/usr/bin/env bash
# Starts a server with its data in ./cairn-data and prints what to do with it.
set -euo pipefail
cd "$(dirname "$0")/.."
data=cairn-data
cairn=target/release/cairn

mkdir -p "$data"
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

  export CAIRN_CREDENTIALS=$data/credentials.json PATH=\$PWD/target/release:\$PATH
  cairn protectable list                                   # what could be protected
  cairn vault create first --type disk --size 100 --resource web-root.img
  cairn checkpoint create first --name before --wait       # back it up
  cairn backup list
  cairn task list

  sha256sum $data/images/web-root.img                      # remember what it was
  dd if=/dev/urandom of=$data/images/web-root.img bs=1M seek=64 count=64 conv=notrunc
  e2fsck -fn $data/images/web-root.img                     # damaged

  cairn restore before --wait                              # bring it back
  sha256sum $data/images/web-root.img                      # as it was
  e2fsck -fn $data/images/web-root.img                     # clean

T
exec "$cairn" server --config "$data/cairn.toml" --data-dir "$data"
