#!/usr/bin/env python3
"""Times Cairn beside restic and borg on the images of bench/workload.py.

    bench/compare.py FOLDER [--tools cairn,restic,borg]

Each tool makes a full backup of gen1.img, then one of gen2.img in its place,
without a hint of what changed, and restores that into an empty file; all with
encryption, zstd or the tool's own choice of compression, a warm page cache and
a repository on the same disk. Cairn is timed as its users have it: a server,
driven through the API, from the request to the acknowledgement.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from harness import Server  # noqa: E402  (the tests' way to speak to a server)

MIB = 1 << 20
STEPS = ("full", "incremental", "restore")


class Tool:
    """One tool at work in a folder of its own."""

    def __init__(self, folder):
        self.folder = folder
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.disk = folder / "images/disk.img"
        self.disk.parent.mkdir()
        self.repository = folder / "repository"
        self.peak_kib = 0

    def place(self, image):
        """Puts an image where the tool's disk is, and into the page cache."""
        part = self.disk.with_suffix(".part")
        subprocess.run(["cp", "--sparse=always", image, part], check=True)
        part.rename(self.disk)
        with open(self.disk, "rb") as file:
            while file.read(16 * MIB):
                pass
        os.sync()

    def run(self, *command, **kwargs):
        """Runs a program; returns its seconds and remembers its peak memory."""
        start = time.monotonic()
        with open(self.folder / "log", "ab") as log:
            child = subprocess.Popen(
                command, stdout=log, stderr=log, env=self.environment(), **kwargs
            )
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.monotonic() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode != 0:
            sys.exit(f"{command} failed, see {self.folder}/log")
        self.peak_kib = max(self.peak_kib, usage.ru_maxrss)
        return seconds

    def environment(self):
        return os.environ

    def close(self):
        """Ends what the tool has running."""


class Cairn(Tool):
    def __init__(self, folder):
        super().__init__(folder)
        config = '[[source]]\nkind = "images"\nname = "bench"\npath = "images"\n'
        self.server = Server(folder, config=config)
        self.repository = self.server.data / "repository"

    def start(self):
        self.server.start()

    def seconds_of(self, log):
        """From the request to the acknowledgement."""
        begun, ended = (datetime.fromisoformat(log[key]) for key in ("created_at", "ended_at"))
        return (ended - begun).total_seconds()

    def back_up(self):
        if not self.server.ok("GET", "/vaults")["vaults"]:
            disk = self.server.protectables("disk")["disk.img"]
            self.vault = self.server.create_vault("bench", "disk", [disk])
        self.backup = self.server.back_up(self.vault)
        query = f"operation_type=backup&resource_id={self.backup['resource_id']}"
        logs = self.server.ok("GET", f"/operation-logs?{query}")["operation_logs"]
        newest = max(logs, key=lambda log: log["created_at"])
        return self.seconds_of(self.server.finished(newest["id"]))

    def restore(self):
        size = self.disk.stat().st_size
        self.disk.unlink()
        with open(self.disk, "wb") as file:
            file.truncate(size)
        return self.seconds_of(self.server.restore(self.backup)), self.disk

    def close(self):
        status = Path(f"/proc/{self.server.process.pid}/status").read_text(encoding="ascii")
        self.peak_kib = int(status.split("VmHWM:")[1].split()[0])
        self.server.stop()


class Restic(Tool):
    def environment(self):
        return {**os.environ, "RESTIC_PASSWORD": "bench", "RESTIC_CACHE_DIR": str(self.folder / "cache")}

    def start(self):
        self.run("restic", "-r", self.repository, "init", "--repository-version", "2")

    def back_up(self):
        return self.run("restic", "-r", self.repository, "backup", "disk.img", cwd=self.disk.parent)

    def restore(self):
        target = self.folder / "restored"
        seconds = self.run("restic", "-r", self.repository, "restore", "latest", "--target", target)
        return seconds, target / "disk.img"


class Borg(Tool):
    def environment(self):
        base = str(self.folder / "borg")
        return {**os.environ, "BORG_PASSPHRASE": "bench", "BORG_BASE_DIR": base}

    def start(self):
        self.backups = 0
        self.run("borg", "init", "--encryption=repokey-blake2", self.repository)

    def back_up(self):
        self.backups += 1
        name = f"{self.repository}::{self.backups}"
        return self.run("borg", "create", "--compression=zstd,3", name, "disk.img", cwd=self.disk.parent)

    def restore(self):
        target = self.folder / "restored"
        target.mkdir()
        name = f"{self.repository}::{self.backups}"
        return self.run("borg", "extract", "--sparse", name, cwd=target), target / "disk.img"


TOOLS = {"cairn": Cairn, "restic": Restic, "borg": Borg}


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def measure(name, images):
    """All that is told of one tool."""
    tool = TOOLS[name](images / name)
    tool.start()
    try:
        tool.place(images / "gen1.img")
        told = {"full": tool.back_up()}
        tool.place(images / "gen2.img")
        told["incremental"] = tool.back_up()
        os.sync()
        told["restore"], restored = tool.restore()
        if digest(restored) != digest(images / "gen2.img"):
            sys.exit(f"{name} did not restore what it had backed up")
    finally:
        tool.close()
    du = subprocess.run(["du", "-sk", tool.repository], capture_output=True, text=True, check=True)
    told["repository_mib"] = int(du.stdout.split()[0]) // 1024
    told["peak_mib"] = tool.peak_kib // 1024
    shutil.rmtree(images / name)
    return told


def show(results):
    print(f"{'':12}{'full s':>10}{'incr. s':>10}{'restore s':>10}{'repo MiB':>10}{'peak MiB':>10}")
    for name, told in results.items():
        times = "".join(f"{told[step]:10.2f}" for step in STEPS)
        print(f"{name:12}{times}{told['repository_mib']:10}{told['peak_mib']:10}")
    own = results.get("cairn")
    for name, told in results.items():
        if own and name != "cairn":
            ratios = "".join(f"{told[step] / own[step]:9.2f}x" for step in STEPS)
            print(f"{name + '/cairn':12}{ratios}{told['repository_mib'] / own['repository_mib']:9.2f}x")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tools", default="cairn,restic,borg")
    options = parser.parse_args()
    images = options.folder.resolve()
    results = {name: measure(name, images) for name in options.tools.split(",")}
    (images / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    show(results)


if __name__ == "__main__":
    main()
