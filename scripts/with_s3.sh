#!/usr/bin/env bash
# Runs a command beside an S3 server of its own (SeaweedFS), which is gone afterwards.
#
#   scripts/with_s3.sh COMMAND...
#
# The command finds the server's address in CAIRN_TEST_S3, the key pair in
# AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and a bucket with the name
# cairn. The server listens on free ports of the loopback address and keeps its data in a temporary folder.
set -euo pipefail
weed=${CAIRN_WEED:-$(dirname "$0")/../.venv/bin/weed}
[ -x "$weed" ] || { echo "SeaweedFS is not installed: run scripts/setup.sh test" >&2; exit 1; }
folder=$(mktemp -d "${TMPDIR:-/tmp}/cairn-s3-XXXXXX")
server=
stop() {
  if [ -n "$server" ]; then
    kill -KILL "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
  fi
  rm -rf "$folder"
}
trap stop EXIT

# Every part of the server has a port for HTTP and one for its own calls.
read -r -a ports < <(python3 - <<'PYTHON'
import socket
held = [socket.socket() for _ in range(8)]
for one in held:
    one.bind(("127.0.0.1", 0))
print(*(one.getsockname()[1] for one in held))
PYTHON
)
export AWS_ACCESS_KEY_ID=cairn-test AWS_SECRET_ACCESS_KEY=cairn-test-secret
cat > "$folder/s3.json" <<JSON
{"identities": [{"name": "cairn", "actions": ["Admin"],
  "credentials": [{"accessKey": "$AWS_ACCESS_KEY_ID", "secretKey": "$AWS_SECRET_ACCESS_KEY"}]}]}
JSON
mkdir "$folder/data"
"$weed" -logdir="$folder" server -ip=127.0.0.1 -ip.bind=127.0.0.1 -dir="$folder/data" \
  -master.port="${ports[0]}" -master.port.grpc="${ports[1]}" \
  -volume.port="${ports[2]}" -volume.port.grpc="${ports[3]}" \
  -filer -filer.port="${ports[4]}" -filer.port.grpc="${ports[5]}" \
  -s3 -s3.port="${ports[6]}" -s3.port.grpc="${ports[7]}" -s3.port.iceberg=0 -s3.port.lance=0 -s3.autoCreateBucket=false \
  -s3.config="$folder/s3.json" -volume.max=100 -master.volumeSizeLimitMB=128 \
  -master.telemetry=false > "$folder/log" 2>&1 &
server=$!

# Ready is who can store something: for that all parts must have found each other.
python3 - "${ports[4]}" "${ports[6]}" "$server" <<'PYTHON' || { cat "$folder/log" >&2; exit 1; }
import http.client, os, sys, time
filer, s3, server = (int(argument) for argument in sys.argv[1:])
end = time.monotonic() + 120
def answers(port, method, path, body, statuses):
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request(method, path, body)
        return connection.getresponse().status in statuses
    except OSError:
        return False
while not (answers(filer, "PUT", "/ready", b"x", {200, 201})
           and answers(filer, "POST", "/buckets/cairn/", b"", {200, 201, 409})
           and answers(s3, "GET", "/", None, {200, 403})):
    os.kill(server, 0)
    if time.monotonic() > end:
        sys.exit("SeaweedFS did not start within 120 s")
    time.sleep(0.1)
PYTHON
CAIRN_TEST_S3="http://127.0.0.1:${ports[6]}" "$@"
