#!/usr/bin/env bash
# A libvirtd of its own, for tests: its configuration, its sockets and its state are below a folder, and
# it and all its domains end with this script. If it is killed it is started again.
#
#   scripts/libvirtd.sh FOLDER     then virsh -c "qemu:///session?socket=FOLDER/run/libvirt/libvirt-sock"
set -euo pipefail
folder=${1:?usage: scripts/libvirtd.sh FOLDER}

mkdir -p "$folder"/{run,config/libvirt,cache,data}
cat > "$folder/config/libvirt/qemu.conf" <<CONF
security_driver = "none"
stdio_handler = "file"
cgroup_controllers = []
namespaces = []
CONF
# Processes in a namespace of their own end with the first of them. Root's libvirtd would take the
# places of the machine's own: so it runs as somebody else.
alone=(unshare --pid --fork --kill-child --mount-proc)
if [ "$(id -u)" = 0 ]; then
  chmod 755 "$folder"
  chown -R nobody "$folder"/{run,config,cache,data}
  # To become somebody else undoes that the first ends with its parent.
  alone+=(setpriv --pdeathsig KILL --reuid nobody --regid nogroup --clear-groups)
else
  alone=("${alone[@]:0:1}" --user --map-current-user "${alone[@]:1}")
fi
cd /
exec "${alone[@]}" env -i PATH="$PATH:/usr/sbin" LC_ALL=C HOME="$folder/data" XDG_RUNTIME_DIR="$folder/run" \
  XDG_CONFIG_HOME="$folder/config" XDG_CACHE_HOME="$folder/cache" XDG_DATA_HOME="$folder/data" \
  sh -c 'while :; do libvirtd --timeout=0; done'
