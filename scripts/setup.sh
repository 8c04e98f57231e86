#!/usr/bin/env bash
# Installs what a make target needs and is missing, then builds.
#
#   scripts/setup.sh run|test|test-clients|bench
#
# Debian packages need root or sudo; they are not touched when all are there.
# Python packages go into .venv, by exact version. Nothing is built where CAIRN_BINARY names a program.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${1:?usage: scripts/setup.sh run|test|test-clients|bench}

packages=(build-essential ca-certificates e2fsprogs python3 qemu-utils)
requirements=
case $target in
  run) ;;
  # Clients of exported disks; what makes file systems that files are read out of.
  test)
    packages+=(btrfs-progs dosfstools fdisk libnbd-bin mount mtools postgresql python3-venv util-linux xfsprogs)
    requirements=tests/requirements.txt
    ;;
  test-clients) packages+=(python3-venv) requirements=tests/requirements.txt ;;
  # borg is built here; the libraries are what it is built upon.
  bench)
    packages+=(libacl1-dev liblz4-dev libssl-dev libxxhash-dev libzstd-dev pkg-config postgresql
      python3-dev python3-venv)
    requirements=bench/requirements.txt
    ;;
  *) echo "no such target: $target" >&2; exit 2 ;;
esac

# Installs those of the packages that are missing, with these options of apt-get.
install_missing() {
  local options=$1 package missing=() as_root=()
  shift
  for package in "$@"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q ' installed$' || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || {
      echo "These Debian packages are missing; install them as root: ${missing[*]}" >&2
      exit 1
    }
    as_root=(sudo)
  fi
  echo "Installing ${missing[*]}"
  [ -z "$options" ] || add_backports "${as_root[@]}"
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -qq
  # All of them are named: an older version of one could have others removed.
  # shellcheck disable=SC2086 # The options are words.
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends $options "$@" >/dev/null </dev/null
}

# Debian 12 has its newer QEMU in a suite of its own, on the mirror that this machine uses.
add_backports() {
  local mirror
  [ -z "$(apt-get indextargets --format '$(RELEASE)' 'Created-By: Packages' | grep -x "$VERSION_CODENAME-backports")" ] || return 0
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' "Codename: $VERSION_CODENAME" | head -n 1)
  echo "deb $mirror $VERSION_CODENAME-backports main" |
    "$@" tee /etc/apt/sources.list.d/backports.list >/dev/null
}

install_missing "" "${packages[@]}"
if [ "$target" = test ]; then
  # shellcheck disable=SC1091
  . /etc/os-release
  [ "${VERSION_CODENAME:-}" = bookworm ] && suite="-t bookworm-backports" || suite=
  install_missing "$suite" busybox-static libvirt-clients libvirt-daemon-driver-qemu libvirt-daemon-system qemu-system-x86 \
    qemu-utils
  scripts/guest_image.sh
fi

# rustup installs here without telling the shells that are open.
export PATH="$PATH:$HOME/.cargo/bin"
command -v cargo >/dev/null || {
  echo "Rust is missing: install rustup (https://rustup.rs), then repeat this command." >&2
  exit 1
}

# Packages of a file, by exact version, in an environment; nothing if they are there.
install_python() {
  local file=$1 folder=$2
  local stamp wanted
  wanted=$(sha256sum "$file")
  stamp=$folder/$(basename "$(dirname "$file")").installed
  if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    [ -x "$folder/bin/pip" ] || python3 -m venv --clear "$folder"
    "$folder/bin/pip" install --quiet --disable-pip-version-check -r "$file"
    echo "$wanted" > "$stamp"
  fi
}

[ -z "$requirements" ] || install_python "$requirements" .venv
[ "$target" != test ] || install_python tools/requirements.txt .venv
[ "$target" != test ] || install_python tests/requirements-openstack.txt .venv/openstack

# The package of Debian's newest suite, from the mirror that this machine uses, unpacked and not
# installed: its dependencies are the C library alone.
unpack_newest() {
  local package=$1 folder=$2
  [ -x "$folder/usr/bin/$package" ] && return
  local work mirror
  work=$(mktemp -d)
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' "Codename: $VERSION_CODENAME" | head -n 1)
  mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$folder"
  echo "deb $mirror sid main" > "$work/sources.list"
  local options=(-o "Dir::Etc::SourceList=$work/sources.list" -o Dir::Etc::SourceParts=-
    -o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work/cache" -o APT::Sandbox::User=root)
  (cd "$work" && apt-get "${options[@]}" update -qq && apt-get "${options[@]}" download -qq "$package")
  dpkg-deb -x "$work/$package"_*.deb "$folder"
  rm -rf "$work"
}

if [ "$target" = bench ]; then
  unpack_newest restic target/tools
  cargo install rustic-rs --version 0.11.4 --locked --quiet --root target/tools/usr --target-dir target/tools/build
fi

if [ "$target" != test ] && [ -z "${CAIRN_BINARY:-}" ]; then
  cargo build --release --locked --package cairn
fi
