"""A `cairn server` in a process of its own, and what a test wants of it.

Nothing here knows the inside of Cairn: it is started, spoken to and killed as
its users do. Waiting is always for a condition, with a limit.
"""

import hashlib
import hmac
import json
import os
import random
import re
import secrets
import signal
import socket
import subprocess
import threading
import time
import urllib.parse
from datetime import datetime, timedelta, timezone
from pathlib import Path

import requests

ROOT = Path(__file__).resolve().parent.parent
CAIRN = Path(os.environ.get("CAIRN_BINARY", ROOT / "target/release/cairn"))
MIB = 1 << 20

# How long anything may take: far more than it does, on a machine with other work.
PATIENCE_S = 120
# How long a program may run: some do a lot.
LONG_S = 900
FINAL = {"success", "skipped", "failed", "timeout"}

CONFIG = """\
[[source]]
kind = "images"
name = "lab"
path = "images"

[[source.server]]
name = "web-1"
disks = ["web-root.qcow2", "web-data.img"]
"""


def wait_for(what, ask, limit_s=PATIENCE_S):
    """Asks until the answer is true and returns it."""
    pause, end = threading.Event(), time.monotonic() + limit_s
    while True:
        answer = ask()
        if answer:
            return answer
        assert time.monotonic() < end, f"{what} did not happen within {limit_s} s"
        pause.wait(0.02)


def run(*command, check=True, **kwargs):
    """Runs a program; an error shows all it printed."""
    done = subprocess.run(
        [str(part) for part in command],
        **{"capture_output": True, "text": True, "check": False, "timeout": LONG_S, **kwargs},
    )
    if check and done.returncode != 0:
        raise AssertionError(
            f"{' '.join(map(str, command))}: {done.returncode}\n{done.stdout}{done.stderr}"
        )
    return done


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def canonical_request(method, path, query, headers, names, body_hash):
    """The text whose digest is signed."""
    encoded = "/".join(urllib.parse.quote(part, safe="-_.~") for part in path.split("/"))
    pairs = sorted(urllib.parse.parse_qsl(query, keep_blank_values=True))
    return "\n".join(
        [
            method,
            encoded if encoded.endswith("/") else encoded + "/",
            urllib.parse.urlencode(pairs, quote_via=urllib.parse.quote, safe="-_.~"),
            *(f"{name}:{headers.get(name, '')}" for name in names),
            "",
            ";".join(names),
            body_hash,
        ]
    )


def authorization(
    method, path, query, headers, data, access_key, secret_key, *, names=None,
    algorithm="SDK-HMAC-SHA256", body_hash=None,
):
    """The header that signs a request; it covers all these headers unless `names` are given."""
    names = sorted(headers) if names is None else names
    body_hash = body_hash or hashlib.sha256(data).hexdigest()
    canonical = canonical_request(method, path, query, headers, names, body_hash)
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    text = f"{algorithm}\n{headers.get('x-sdk-date', '')}\n{digest}"
    mac = hmac.new(secret_key.encode(), text.encode(), hashlib.sha256).hexdigest()
    return f"{algorithm} Access={access_key}, SignedHeaders={';'.join(names)}, Signature={mac}"


class Server:
    """A server with its data in `folder`, and images in `folder/images`."""

    def __init__(self, folder, config=CONFIG, wrapper=()):
        self.folder = Path(folder)
        self.images = self.folder / "images"
        self.images.mkdir(parents=True, exist_ok=True)
        self.data = self.folder / "data"
        self.config = self.folder / "cairn.toml"
        self.config.write_text(config, encoding="utf-8")
        self.port = free_port()
        self.log = self.folder / "server.log"
        self.temporary = self.folder / "tmp"
        self.temporary.mkdir(exist_ok=True)
        self.wrapper = tuple(wrapper)
        self.process = None

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def credentials_file(self):
        return self.data / "credentials.json"

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [
                    *self.wrapper, CAIRN, "server", "--config", self.config,
                    "--data-dir", self.data, "--listen", f"127.0.0.1:{self.port}",
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**os.environ, "TMPDIR": str(self.temporary)},
            )
        wait_for("the server's start", self.is_ready)
        self.credentials = json.loads(self.credentials_file.read_text(encoding="utf-8"))
        return self

    def repository(self):
        """The options that name the repository to `cairn repo`."""
        return [
            "--repository", self.data / "repository",
            "--master-key-file", self.data / "master.key",
        ]

    def objects(self):
        """The files of the repository that belong to backups: all but its configuration, keys and log."""
        folder = self.data / "repository"
        names = (str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
        others = re.compile(r"\.lock|config|log/.*|.*/keys/.*|.*/losses")
        return sorted(name for name in names if not others.fullmatch(name))

    def is_ready(self):
        if self.process.poll() is not None:
            raise AssertionError(f"the server ended by itself:\n{self.log_tail()}")
        try:
            return requests.get(f"{self.endpoint}/readyz", timeout=5).status_code == 200
        except requests.ConnectionError:
            return False

    def log_tail(self):
        return self.log.read_text(encoding="utf-8", errors="replace")[-4000:]

    def kill(self):
        """Ends the server as a power cut would."""
        self.process.kill()
        self.process.wait()

    def stop(self):
        """Asks the server to end and waits until it has; returns its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)

    def __enter__(self):
        return self.start()

    def __exit__(self, kind, *_):
        if self.process.poll() is None:
            self.kill()
        if kind is not None:
            print(f"--- the server's log\n{self.log_tail()}")

    # -- the API, by hand -------------------------------------------------

    @property
    def project(self):
        return self.credentials["project_id"]

    def token(self, scope="project"):
        """A token by password."""
        known = self.credentials
        scopes = {
            "project": {"project": {"id": known["project_id"]}},
            "domain": {"domain": {"name": known["domain_name"]}},
        }
        user = {
            "name": known["user_name"],
            "password": known["password"],
            "domain": {"name": known["domain_name"]},
        }
        body = {
            "auth": {
                "identity": {"methods": ["password"], "password": {"user": user}},
                "scope": scopes[scope],
            }
        }
        answer = requests.post(
            f"{known['iam_endpoint'].rstrip('/').removesuffix('/v3')}/v3/auth/tokens",
            json=body, timeout=PATIENCE_S,
        )
        assert answer.status_code == 201, answer.text
        return answer.headers["X-Subject-Token"]

    def call(self, method, path, body=None, *, raw=None, sign=None, headers=None, project=None):
        """One signed request below `/v3/{project}`; returns the whole response.

        `raw` is sent as it stands; `sign` changes the parts that are signed.
        """
        path, _, query = path.partition("?")
        data = raw if raw is not None else (b"" if body is None else json.dumps(body).encode())
        url = f"/v3/{project or self.project}{path}"
        signed = self.signature(method, url, query, data, **(sign or {}))
        return requests.request(
            method, f"{self.endpoint}{url}{'?' + query if query else ''}",
            data=data, headers={**signed, **(headers or {})}, timeout=PATIENCE_S,
        )

    def signature(
        self, method, path, query, data, *, at=None, access_key=None, secret_key=None, signed_data=None,
        signed_path=None,
    ):
        """The headers of a request signed by SDK-HMAC-SHA256."""
        at = at or datetime.now(timezone.utc)
        stamp = at.strftime("%Y%m%dT%H%M%SZ")
        headers = {
            "content-type": "application/json",
            "host": f"127.0.0.1:{self.port}",
            # The same request signed twice in a second would be taken for a retry.
            "x-nonce": secrets.token_hex(8),
            "x-project-id": self.project,
            "x-sdk-date": stamp,
        }
        data = data if signed_data is None else signed_data
        headers["authorization"] = authorization(
            method, signed_path or path, query, headers, data,
            access_key or self.credentials["access_key"], secret_key or self.credentials["secret_key"],
        )
        return headers

    def ok(self, method, path, body=None, **kwargs):
        """A request that must succeed; returns the body."""
        answer = self.call(method, path, body, **kwargs)
        assert answer.status_code < 300, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    # -- what tests do often ----------------------------------------------

    def protectables(self, kind="disk"):
        """Protectables by name."""
        listed = self.ok("GET", f"/protectables/{kind}/instances?limit=50")["instances"]
        return {one["name"]: one for one in listed}

    def create_vault(self, name, kind, resources=(), size=100):
        """A vault that protects these protectables; returns its id."""
        types = {"disk": "OS::Cinder::Volume", "server": "OS::Nova::Server", "turbo": "OS::Sfs::Turbo", "file": "OS::Native::Server"}
        body = {
            "vault": {
                "name": name,
                "billing": {
                    "object_type": kind, "protect_type": "backup", "size": size,
                    "consistent_level": "crash_consistent", "charging_mode": "post_paid",
                },
                "resources": [
                    {"id": one["id"], "type": types[kind], "name": one["name"]} for one in resources
                ],
            }
        }
        return self.ok("POST", "/vaults", body)["vault"]["id"]

    def start_backup(self, vault, name=None, resources=None, incremental=True):
        """Begins a checkpoint and returns its id."""
        parameters = {"incremental": incremental}
        if name:
            parameters["name"] = name
        if resources:
            parameters["resources"] = [one["id"] for one in resources]
        body = {"checkpoint": {"vault_id": vault, "parameters": parameters}}
        return self.ok("POST", "/checkpoints", body)["checkpoint"]["id"]

    def backups(self, query=""):
        return self.ok("GET", f"/backups?limit=1000{'&' + query if query else ''}")["backups"]

    def back_up(self, vault, name=None, **kwargs):
        """Backs up a vault with one resource; returns the backup when it is available."""
        checkpoint = self.start_backup(vault, name, **kwargs)
        [backup] = self.backups(f"checkpoint_id={checkpoint}")
        return self.settled_backup(backup["id"], "available")

    def settled_backup(self, backup_id, wanted):
        """Waits until a backup is available or has failed, which must be as wanted."""

        def settled():
            backup = self.ok("GET", f"/backups/{backup_id}")["backup"]
            return backup if backup["status"] in ("available", "error") else None

        backup = wait_for(f"the end of backup {backup_id}", settled)
        assert backup["status"] == wanted, f"{backup['status']}: {self.failures()}"
        return backup

    def failures(self):
        """What the failed operations say."""
        logs = self.ok("GET", "/operation-logs?status=failed")["operation_logs"]
        return [log["error_info"] for log in logs]

    def start_restore(self, backup, mappings=None):
        """Begins a restore onto the backup's own resource; returns the operation log's id."""
        if backup["resource_type"] == "OS::Sfs::Turbo":
            body = {"restore": {"resource_id": backup["resource_id"]}}
        elif backup["resource_type"] == "OS::Cinder::Volume":
            body = {"restore": {"volume_id": backup["resource_id"]}}
        else:
            own = [
                {"backup_id": child["id"], "volume_id": child["resource_id"]}
                for child in backup["children"]
            ]
            body = {"restore": {"server_id": backup["resource_id"], "mappings": mappings or own}}
        return self.ok("POST", f"/backups/{backup['id']}/restore", body)["job_id"]

    def finished(self, log_id):
        """Waits for the end of an operation and returns its log."""

        def final():
            log = self.ok("GET", f"/operation-logs/{log_id}")["operation_log"]
            return log if log["status"] in FINAL else None

        return wait_for(f"the end of operation {log_id}", final)

    def restore(self, backup, mappings=None):
        log = self.finished(self.start_restore(backup, mappings))
        assert log["status"] == "success", log
        return log

    def delete_backup(self, backup_id):
        """Deletes a backup and waits until it is gone."""
        self.ok("DELETE", f"/backups/{backup_id}")
        wait_for(
            f"the deletion of {backup_id}",
            lambda: self.call("GET", f"/backups/{backup_id}").status_code == 404,
        )

    def all_operations_finished(self):
        """Waits until no operation waits or runs."""

        def none_left():
            asked = (f"/operation-logs?limit=1&status={status}" for status in ("waiting", "running"))
            return all(self.ok("GET", path)["count"] == 0 for path in asked)

        wait_for("the end of every operation", none_left)

    def create_project(self, name):
        """Makes another project with a user of its own; returns its credentials."""
        options = ["--config", self.config, "--data-dir", self.data]
        return json.loads(run(CAIRN, "project", "create", name, *options).stdout)

    def cli(self, *arguments, check=True):
        """Runs `cairn` as a client with the server's own credentials."""
        environment = {**os.environ, "CAIRN_CREDENTIALS": str(self.credentials_file)}
        return run(CAIRN, *arguments, check=check, env=environment)


# -- disks ---------------------------------------------------------------


class Disk:
    """A disk image of a test, raw or qcow2 by its name, that is changed and compared."""

    def __init__(self, path):
        self.path = Path(path)
        self.format = "qcow2" if self.path.suffix == ".qcow2" else "raw"

    def create(self, size, seed, share=0.6):
        """Makes an image with noise in about this share of its 64 KiB blocks and holes elsewhere."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        raw = self.path if self.format == "raw" else self.path.with_suffix(".tmp")
        rng, block = random.Random(seed), 65536
        with open(raw, "wb") as file:
            file.truncate(size)
            for at in range(0, size, block):
                if rng.random() < share:
                    file.seek(at)
                    file.write(rng.randbytes(min(block, size - at)))
        if self.format == "qcow2":
            run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, self.path)
            raw.unlink()
        return self

    def content(self):
        """Every byte that a guest would see."""
        if self.format == "raw":
            return self.path.read_bytes()
        copy = self.path.with_suffix(".content")
        run("qemu-img", "convert", "-f", self.format, "-O", "raw", self.path, copy)
        content = copy.read_bytes()
        copy.unlink()
        return content

    def digest(self):
        return hashlib.sha256(self.content()).hexdigest()

    def write(self, writes):
        """Overwrites (offset, length, byte) runs as a guest would."""
        commands = [f"write -P {byte} {offset} {length}" for offset, length, byte in writes]
        for at in range(0, len(commands), 200):
            arguments = [part for command in commands[at : at + 200] for part in ("-c", command)]
            run("qemu-io", "-f", self.format, *arguments, self.path)

    def change(self, share, seed):
        """Overwrites this share of the disk in 4 KiB pieces."""
        rng, size = random.Random(seed), len(self.content())
        pages = max(1, int(size * share) // 4096)
        self.write(
            [(rng.randrange(size // 4096) * 4096, 4096, rng.randrange(1, 256)) for _ in range(pages)]
        )

    def wreck(self, seed):
        """Spoils a third of the disk, holes too, and clears another part."""
        rng, size = random.Random(seed), len(self.content())
        third = size // 3 // 512 * 512
        self.write([(rng.randrange(2) * third, third, rng.randrange(1, 256))])
        run("qemu-io", "-f", self.format, "-c", f"write -z {size - third} {third // 2}", self.path)


def ago(**kwargs):
    """The time before now."""
    return datetime.now(timezone.utc) - timedelta(**kwargs)
