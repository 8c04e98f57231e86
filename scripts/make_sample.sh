#!/usr/bin/env bash
# Makes the disk images that `make run` protects: a server's system disk with a
# real ext4 file system full of real files, and its empty data disk. No root.
#
#   scripts/make_sample.sh FOLDER
set -euo pipefail
folder=${1:?usage: scripts/make_sample.sh FOLDER}
size_mib=384
content_mib=160
export PATH="$PATH:/usr/sbin:/sbin"

[ ! -e "$folder/web-root.img" ] || exit 0
mkdir -p "$folder"
tree=$(mktemp -d)
trap 'rm -rf "$tree" "$folder/web-root.part"' EXIT

# Files of this machine, in a fixed order, until there are enough.
left=$((content_mib << 20))
while IFS= read -r -d '' entry; do
  bytes=${entry%% *} file=${entry#* }
  [ "$bytes" -le "$left" ] || continue
  left=$((left - bytes))
  printf '%s\0' "$file"
done < <(find /usr/bin /usr/share/doc /usr/share/perl5 /usr/lib/python3 /usr/lib/x86_64-linux-gnu \
    -xdev -type f -readable -size -8M -printf '%s %p\0' 2>/dev/null | sort -z -k 2) |
  tar --create --null --files-from=- --absolute-names --hard-dereference |
  tar --extract --directory="$tree" --strip-components=0 --no-same-owner --transform='s,^/,,'
mkdir -p "$tree/srv/notes"
echo "Made by scripts/make_sample.sh: damage this disk, then bring it back." > "$tree/srv/notes/read-me"

truncate -s "${size_mib}M" "$folder/web-root.part"
mke2fs -q -F -t ext4 -L sample -d "$tree" "$folder/web-root.part"
qemu-img create -q -f qcow2 "$folder/web-data.qcow2" 1G
mv "$folder/web-root.part" "$folder/web-root.img"
