#!/usr/bin/env bash
# Runs a command beside a PostgreSQL server of its own, which is gone afterwards.
#
#   scripts/with_postgres.sh COMMAND...
#
# The command finds the server's URL in CAIRN_TEST_POSTGRES. The server listens
# on a free port of the loopback address and keeps its data in a temporary folder.
set -euo pipefail
bin=$(find /usr/lib/postgresql -mindepth 2 -maxdepth 2 -name bin | sort -V | tail -n 1)
[ -n "$bin" ] || { echo "PostgreSQL is not installed" >&2; exit 1; }
folder=$(mktemp -d "${TMPDIR:-/tmp}/cairn-postgres-XXXXXX")

# The server refuses to run as root.
as_owner=()
if [ "$(id -u)" = 0 ]; then
  chown postgres "$folder"
  as_owner=(setpriv --reuid=postgres --regid=postgres --init-groups --)
fi
stop() {
  (cd /; "${as_owner[@]}" "$bin/pg_ctl" -D "$folder/data" -m immediate -w stop >/dev/null 2>&1) || true
  rm -rf "$folder"
}
trap stop EXIT

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
(
  cd /
  "${as_owner[@]}" "$bin/initdb" -D "$folder/data" -U cairn -A trust -E UTF8 -N >/dev/null
  "${as_owner[@]}" "$bin/pg_ctl" -D "$folder/data" -l "$folder/log" -w -t 120 start \
    -o "-p $port -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off -c max_connections=300" \
    >/dev/null || { cat "$folder/log" >&2; exit 1; }
)
CAIRN_TEST_POSTGRES="postgres://cairn@127.0.0.1:$port/postgres" "$@"
