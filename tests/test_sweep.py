"""A server that is killed at random moments of backup, restore and delete.

After each restart: every backup that was available still is, or was asked to
go; every backup that is available restores byte for byte; no task is without
an owner; in the end nothing is left in the repository that nobody refers to.

    CAIRN_SWEEP_KILLS   how many times (200)
    CAIRN_SWEEP_SEED    repeats a sweep's choices; a failure prints it
"""

import os
import random
import threading
from collections import Counter
from datetime import datetime, timezone
from pathlib import Path

import pytest
import requests
from harness import CAIRN, MIB, Disk, Server, run, wait_for

KILLS = int(os.environ.get("CAIRN_SWEEP_KILLS", "200"))
SEED = int(os.environ.get("CAIRN_SWEEP_SEED") or random.SystemRandom().getrandbits(32))
# Rounds between two looks at the whole repository.
VERIFY_EVERY = 20
# Backups of a resource before the oldest are deleted.
ENOUGH = 4


class Sweep:
    """What there should be, and the server that should have it."""

    def __init__(self, server):
        self.server = server
        self.rng = random.Random(SEED)
        self.disks = {
            name: Disk(server.images / name)
            for name in ("disk.img", "web-root.qcow2", "web-data.img")
        }
        self.disks["disk.img"].create(9 * MIB + 512, seed=SEED)
        self.disks["web-root.qcow2"].create(5 * MIB, seed=SEED + 1)
        self.disks["web-data.img"].create(4 * MIB + 4096, seed=SEED + 2)
        self.files = {"disk.img": ["disk.img"], "web-1": ["web-root.qcow2", "web-data.img"]}
        # What the disks held when a backup was made, by its id.
        self.expected = {}
        # How many operations a kill found at work, by what they did.
        self.interrupted = Counter()

    def prepare(self):
        """Vaults, a first backup of each resource, and how long things take undisturbed."""
        disk = self.server.protectables("disk")["disk.img"]
        web = self.server.protectables("server")["web-1"]
        self.vaults = {
            "disk.img": self.server.create_vault("disks", "disk", [disk]),
            "web-1": self.server.create_vault("servers", "server", [web]),
        }
        for name in self.vaults:
            digests = self.digests(name)
            self.expected[self.server.back_up(self.vaults[name])["id"]] = digests
        # How long each kind of operation takes undisturbed, from request to end.
        self.usual_s = {}
        for name in self.vaults:
            backup = self.server.back_up(self.vaults[name])
            self.server.restore(backup)
            self.server.delete_backup(backup["id"])
        for log in self.server.ok("GET", "/operation-logs")["operation_logs"]:
            begun, ended = times(log)
            longest = self.usual_s.get(log["operation_type"], 0.0)
            self.usual_s[log["operation_type"]] = max(longest, (ended - begun).total_seconds())

    def digests(self, name):
        return {file: self.disks[file].digest() for file in self.files[name]}

    def of(self, name):
        """The known backups of a resource, oldest first."""
        rows = self.server.backups("sort=created_at:asc")
        return [row for row in rows if row["resource_name"] == name and row["id"] in self.expected]

    # -- one round --------------------------------------------------------

    def round(self):
        """Starts one or two operations, kills the server in the midst of them, looks."""
        names = self.rng.sample(list(self.files), self.rng.choice([1, 1, 2]))
        operations = [self.choose(name) for name in names]
        threads = [threading.Thread(target=operation["start"]) for operation in operations]
        for thread in threads:
            thread.start()
        if self.rng.random() < 0.7:
            # In the midst of the work: after the answer.
            for thread in threads:
                thread.join()
            longest = max(self.usual_s[operation["kind"]] for operation in operations)
            moment = self.rng.uniform(0, longest)
        else:
            # At any time from the request on.
            moment = self.rng.uniform(0, 2 * max(self.usual_s.values()))
        threading.Event().wait(moment)
        self.server.kill()
        killed_at = datetime.now(timezone.utc).replace(tzinfo=None)
        for thread in threads:
            thread.join()
        self.no_server_of_disks_is_left()
        self.server.start()
        self.server.all_operations_finished()
        self.count_interrupted(killed_at)
        rows = self.rows_are_settled()
        for operation in operations:
            operation["check"](rows)
        self.clear_errors()
        name = self.rng.choice(list(self.files))
        self.restores(self.rng.choice(self.of(name)))

    def count_interrupted(self, killed_at):
        """Which of the newest operations were at work at the kill and ended after it."""
        for log in self.server.ok("GET", "/operation-logs?limit=5")["operation_logs"]:
            begun, ended = times(log)
            if begun < killed_at < ended:
                self.interrupted[log["operation_type"]] += 1

    def choose(self, name):
        """What is done to a resource in this round."""
        backups = self.of(name)
        kind = self.rng.choice(["backup", "backup", "restore", "delete"])
        if len(backups) < 2:
            kind = "backup"
        elif len(backups) > ENOUGH:
            kind = "delete"
        if kind == "backup":
            return self.backup(name)
        if kind == "restore":
            return self.restore(self.rng.choice(backups))
        return self.delete(self.rng.choice(backups))

    def backup(self, name):
        for file in self.files[name]:
            self.disks[file].change(0.05, seed=self.rng.random())
        digests, known = self.digests(name), set(self.expected)
        incremental = self.rng.random() < 0.8

        def check(rows):
            new = [
                row for row in rows.values()
                if row["resource_name"] == name and row["id"] not in known
            ]
            assert len(new) <= 1, new
            for row in new:
                if row["status"] == "available":
                    self.expected[row["id"]] = digests
                    self.restores(row)

        vault = self.vaults[name]
        start = cut_off(lambda: self.server.start_backup(vault, incremental=incremental))
        return {"kind": "backup", "start": start, "check": check}

    def restore(self, row):
        name = row["resource_name"]
        for file in self.files[name]:
            self.disks[file].wreck(seed=self.rng.random())

        def check(rows):
            assert rows[row["id"]]["status"] == "available", rows[row["id"]]
            query = f"operation_type=restore&resource_id={row['resource_id']}&limit=1000"
            logs = self.server.ok("GET", f"/operation-logs?{query}")["operation_logs"]
            newest = max(logs, key=lambda log: log["created_at"], default=None)
            if newest and newest["id"] not in seen and newest["status"] == "success":
                assert self.digests(name) == self.expected[row["id"]], "a success that is none"
            self.restores(row)

        seen = self.operation_ids()
        start = cut_off(lambda: self.server.start_restore(row))
        return {"kind": "restore", "start": start, "check": check}

    def operation_ids(self):
        logs = self.server.ok("GET", "/operation-logs?operation_type=restore&limit=1000")
        return {log["id"] for log in logs["operation_logs"]}

    def delete(self, row):
        def check(rows):
            left = rows.get(row["id"])
            if left is None or left["status"] == "error":
                del self.expected[row["id"]]
            else:
                self.restores(left)

        start = cut_off(lambda: self.server.ok("DELETE", f"/backups/{row['id']}"))
        return {"kind": "delete", "start": start, "check": check}

    # -- what must hold ---------------------------------------------------

    def rows_are_settled(self):
        """Every backup is available or failed, its disks too; returns them by id."""
        rows = {row["id"]: row for row in self.server.backups()}
        for row in rows.values():
            assert row["status"] in ("available", "error"), row
            for child in row["children"]:
                assert child["status"] == row["status"], row
        return rows

    def clear_errors(self):
        """Deletes what failed, and finds nothing lost of what was available."""
        for row in self.server.backups("status=error"):
            self.server.delete_backup(row["id"])
        available = {row["id"] for row in self.server.backups()}
        assert available == set(self.expected), "a backup was lost, or one is there that should not be"

    def restores(self, row):
        """The backup comes back byte for byte."""
        row = self.server.ok("GET", f"/backups/{row['id']}")["backup"]
        name = row["resource_name"]
        for file in self.files[name]:
            self.disks[file].change(0.02, seed=self.rng.random())
        self.server.restore(row)
        assert self.digests(name) == self.expected[row["id"]], f"{row['name']} of {name}"

    def no_server_of_disks_is_left(self):
        """The programs that a killed server had started are gone, and their locks with them."""

        def gone():
            for entry in Path("/proc").iterdir():
                try:
                    line = (entry / "cmdline").read_bytes()
                except (OSError, NotADirectoryError):
                    continue
                if b"qemu-nbd" in line and str(self.server.images).encode() in line:
                    return False
            return True

        wait_for("the end of qemu-nbd", gone)

    def repository_is_whole(self):
        """The repository alone, without the server, vouches for every backup and lists them all."""
        self.server.stop()
        repository = self.server.repository()
        verified = run(CAIRN, "repo", "verify", "--full", *repository)
        listed = run(CAIRN, "repo", "list", "--json", *repository).stdout
        for backup in self.expected:
            assert backup in listed, f"{backup}\n{verified.stdout}"
        self.server.start()

    def all_goes(self):
        """Deletes everything; nothing is left that nobody refers to."""
        for row in self.server.backups():
            self.server.delete_backup(row["id"])
        self.server.all_operations_finished()
        wait_for("the collection", lambda: self.server.objects() == [])


def times(log):
    """When an operation was asked for, and when it ended."""
    return tuple(datetime.fromisoformat(log[key]) for key in ("created_at", "ended_at"))


def cut_off(request):
    """A request whose answer may never come because the server is killed."""

    def start():
        try:
            request()
        except requests.RequestException:
            pass

    return start


@pytest.mark.parametrize("kills", [KILLS])
def test_a_server_killed_at_any_moment_loses_nothing(tmp_path, kills):
    print(f"CAIRN_SWEEP_SEED={SEED}")
    with Server(tmp_path) as server:
        sweep = Sweep(server)
        sweep.prepare()
        for number in range(1, kills + 1):
            sweep.round()
            if number % VERIFY_EVERY == 0:
                sweep.repository_is_whole()
        sweep.repository_is_whole()
        for row in server.backups():
            sweep.restores(row)
        print(f"found at work: {dict(sweep.interrupted)}")
        for kind in ("backup", "restore", "delete"):
            assert kills < 100 or sweep.interrupted[kind] > 0, f"no kill ever hit a {kind}"
        sweep.all_goes()
        # A kill between making and removing a temporary file is rare.
        assert len(list(server.temporary.iterdir())) <= kills // 50
