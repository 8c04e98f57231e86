#!/usr/bin/env bash
# Builds a small Linux guest for the tests in target/guest: Debian's kernel for virtual machines, and a file
# system in memory with busybox and QEMU's guest agent, unpacked from Debian's packages and not installed.
#
# What the guest does is said in its init, below.
set -euo pipefail
cd "$(dirname "$0")/.."
guest=target/guest
# What this script says is what is built.
wanted=$(sha256sum "$0")
if [ "$(cat "$guest/built" 2>/dev/null)" = "$wanted" ]; then exit; fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
image=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
# The newest that needs no newer C library than this machine's: that of its own suite.
(cd "$work" && apt-get download -qq -o APT::Sandbox::User=root "$image" qemu-guest-agent)
for package in "$work"/*.deb; do dpkg-deb -x "$package" "$work/unpacked"; done

root=$work/root
mkdir -p "$root"/{bin,dev,mnt/a,mnt/b,proc,sys,modules,run,var/run}
cp "$(command -v busybox)" "$root/bin/"
copy_with_libraries() {
  cp "$1" "$root/bin/"
  ldd "$1" | grep -o '/[^ ]*' | while read -r library; do
    mkdir -p "$root$(dirname "$library")"
    cp -L "$library" "$root$library"
  done
}
copy_with_libraries "$work"/unpacked/usr/sbin/qemu-ga
modules=(virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk virtio_console)
for module in "${modules[@]}"; do
  # Debian names files with either sign.
  found=$(find "$work/unpacked" -name "${module//_/?}.ko*" | head -n 1)
  case $found in
    *.xz) xz -dc "$found" > "$root/modules/$module.ko" ;;
    *) cp "$found" "$root/modules/$module.ko" ;;
  esac
done
cat > "$root/init" <<'INIT'
#!/bin/busybox sh
# Two disks with ext4. On each, record after record goes to the end of a file, on the first disk before the
# second, and is written out and told on the console now and then; the agent listens meanwhile. What keeps the
# guest from running is told too.
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
for module in MODULES; do insmod "/modules/$module.ko"; done
while [ ! -b /dev/vdb ]; do sleep 0.1; done
mount -t ext4 /dev/vda /mnt/a && mount -t ext4 /dev/vdb /mnt/b || poweroff -f
qemu-ga -m virtio-serial -p /dev/vport*p1 -t /run > /dev/console 2>&1 &
echo "cairn guest: ready" > /dev/console
# How long it did not get to do anything, in hundredths of a second, of every second.
(
  longest=0 count=0
  read -r last _ < /proc/uptime
  last=${last%.*}${last#*.}
  while usleep 5000; do
    read -r now _ < /proc/uptime
    now=${now%.*}${now#*.}
    [ $((now - last)) -le $longest ] || longest=$((now - last))
    last=$now count=$((count + 1))
    [ $((count % 100)) != 0 ] || { echo "cairn guest: gap $longest" > /dev/console; longest=0; }
  done
) &
touch /mnt/b/records
number=$(wc -l < /mnt/b/records)
while :; do
  number=$((number + 1))
  echo "record $number" >> /mnt/a/records
  echo "record $number" >> /mnt/b/records
  [ $((number % 50)) != 0 ] || { sync; echo "cairn guest: flushed $number" > /dev/console; }
done
INIT
sed -i "s/MODULES/${modules[*]}/" "$root/init"
chmod +x "$root/init"
mkdir -p "$guest"
(cd "$root" && find . | busybox cpio -o -H newc 2>/dev/null) | gzip -1 > "$guest/initrd"
cp "$work"/unpacked/boot/vmlinuz-* "$guest/kernel"
echo "$wanted" > "$guest/built"
