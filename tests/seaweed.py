"""An S3 server (SeaweedFS) in a process of its own, on free ports of the loopback address.

    tests/seaweed.py COMMAND...

runs a command beside one, which is gone afterwards. The command finds its address in
CAIRN_TEST_S3, the key pair in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and a
bucket with the name `cairn`. Needs no package but the server's own.
"""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WEED = Path(os.environ.get("CAIRN_WEED", Path(sys.executable).parent / "weed"))
ACCESS_KEY, SECRET_KEY = "cairn-test", "cairn-test-secret"
BUCKET = "cairn"

# How long a start may take, on a machine with other work.
PATIENCE_S = 120


class S3Server:
    """A server with its data in `folder`; it may be killed and started again, at the same address."""

    def __init__(self, folder, certificate=None):
        self.folder = Path(folder)
        (self.folder / "data").mkdir(parents=True)
        held = [socket.socket() for _ in range(9)]
        for one in held:
            one.bind(("127.0.0.1", 0))
        self.ports = [one.getsockname()[1] for one in held]
        for one in held:
            one.close()
        identity = {
            "name": "cairn", "actions": ["Admin"],
            "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        }
        (self.folder / "s3.json").write_text(json.dumps({"identities": [identity]}), encoding="utf-8")
        # A pair of paths: certificate and key.
        self.certificate = certificate
        self.process = None

    @property
    def endpoint(self):
        if self.certificate:
            return f"https://localhost:{self.ports[8]}"
        return f"http://127.0.0.1:{self.ports[6]}"

    def start(self):
        ports = dict(zip(
            ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc",
             "filer.port", "filer.port.grpc", "s3.port", "s3.port.grpc"),
            self.ports,
        ))
        options = {
            **ports, "ip": "127.0.0.1", "ip.bind": "127.0.0.1", "dir": self.folder / "data",
            "filer": "true", "s3": "true", "s3.config": self.folder / "s3.json",
            "s3.autoCreateBucket": "false", "s3.port.iceberg": 0, "s3.port.lance": 0,
            "volume.max": 100, "master.volumeSizeLimitMB": 128, "master.telemetry": "false",
        }
        if self.certificate:
            certificate, key = self.certificate
            options |= {"s3.port.https": self.ports[8], "s3.cert.file": certificate, "s3.key.file": key}
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                [WEED, f"-logdir={self.folder}", "server", *(f"-{name}={value}" for name, value in options.items())],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )
        end = time.monotonic() + PATIENCE_S
        # Ready is who can store something: for that all of its parts must have found each other.
        while not (self.filer("PUT", "/ready", {201}) and self.create_bucket(BUCKET) and self.answers()):
            if self.process.poll() is not None or time.monotonic() > end:
                log = (self.folder / "log").read_text(encoding="utf-8", errors="replace")
                raise RuntimeError(f"SeaweedFS did not start:\n{log[-4000:]}")
            time.sleep(0.05)
        return self

    def filer(self, method, path, statuses, body=b"x"):
        """A request to the file server behind the S3 server, which asks nobody who he is."""
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.ports[4], timeout=30)
            connection.request(method, path, body, {"Accept": "application/json"})
            answer = connection.getresponse()
            return (answer.read() or b"{}") if answer.status in statuses else None
        except OSError:
            return None

    def answers(self):
        try:
            with socket.create_connection(("127.0.0.1", self.ports[8 if self.certificate else 6]), timeout=30):
                return True
        except OSError:
            return False

    def create_bucket(self, name):
        return self.filer("POST", f"/buckets/{name}/", {201, 409}, b"") is not None

    def objects(self, folder=f"/buckets/{BUCKET}"):
        """The paths of all objects below a folder of the bucket."""
        listed = json.loads(self.filer("GET", f"{folder}/?limit=100000", {200}) or b"{}")
        found = []
        for entry in listed.get("Entries") or []:
            if entry["Mode"] >> 31:
                # Parts of uploads that are under way.
                if not entry["FullPath"].endswith("/.uploads"):
                    found += self.objects(entry["FullPath"])
            else:
                found.append(entry["FullPath"].removeprefix(f"/buckets/{BUCKET}/"))
        return sorted(found)

    def uploads(self):
        """Parts of uploads that are under way or were given up."""
        listed = json.loads(self.filer("GET", f"/buckets/{BUCKET}/.uploads/?limit=100000", {200}) or b"{}")
        return listed.get("Entries") or []

    def kill(self):
        """Ends the server as a power cut would, but for what the system still writes."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.kill()


def main(command):
    with tempfile.TemporaryDirectory(prefix="cairn-s3-") as folder, S3Server(folder) as server:
        environment = {
            **os.environ, "CAIRN_TEST_S3": server.endpoint,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        }
        return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
