"""Guests that run: a Linux in QEMU that writes all the time is backed up, and boots from its backup."""

import json
import os
import random
import re
import signal
import socket
import subprocess

import pytest
from harness import CAIRN, MIB, PATIENCE_S, ROOT, Server, run, wait_for

GUEST = ROOT / "target/guest"
DISKS = ["a.qcow2", "b.qcow2"]
SIZE = 256 * MIB
CONFIG = """\
[[source]]
kind = "images"
name = "lab"
path = "images"

[[source.server]]
name = "web-1"
disks = ["a.qcow2", "b.qcow2"]
qmp = "{folder}/qmp"
guest_agent = "{folder}/agent"
"""


class Guest:
    """A Linux that appends records to a file on each of its two disks; see `scripts/guest_image.sh`."""

    def __init__(self, folder, disks, agent=True):
        self.console = folder / "console"
        self.console.unlink(missing_ok=True)
        self.monitor = folder / "monitor"
        self.agent = folder / "agent" if agent else None
        options = []
        for number, disk in enumerate(disks):
            options += ["-blockdev", f"{disk},node-name=node{number}"]
            options += ["-device", f"virtio-blk-pci,drive=node{number},id=disk{number}"]
        if agent:
            options += ["-chardev", f"socket,path={folder}/agent,server=on,wait=off,id=agent"]
            options += ["-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"]
        for path in ("qmp", "monitor"):
            options += ["-qmp", f"unix:{folder}/{path},server=on,wait=off"]
        self.process = subprocess.Popen(
            [
                "setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64", "-accel", "tcg", "-cpu", "max",
                "-nodefaults", "-display", "none", "-m", "256", "-kernel", GUEST / "kernel",
                "-initrd", GUEST / "initrd", "-append", "console=ttyS0 panic=-1",
                "-serial", f"file:{self.console}", "-device", "virtio-serial", *options,
            ],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )

    def ready(self):
        def said():
            assert self.process.poll() is None, "QEMU has ended"
            text = self.console.read_bytes() if self.console.exists() else b""
            return b"cairn guest: ready" in text

        wait_for("the guest's start", said)
        if self.agent:
            # It may come up a little later than what writes.
            with socket.socket(socket.AF_UNIX) as link, link.makefile("rw") as lines:
                link.settimeout(PATIENCE_S)
                link.connect(str(self.agent))
                lines.write(json.dumps({"execute": "guest-ping"}) + "\n")
                lines.flush()
                assert "return" in json.loads(lines.readline())
        return self

    def ask(self, command, **arguments):
        """One command to the monitor, on a connection of its own."""
        with socket.socket(socket.AF_UNIX) as link, link.makefile("rw") as lines:
            link.settimeout(PATIENCE_S)
            link.connect(str(self.monitor))
            lines.readline()
            for execute, given in (("qmp_capabilities", {}), (command, arguments)):
                lines.write(json.dumps({"execute": execute, "arguments": given}) + "\n")
                lines.flush()
                answer = json.loads(lines.readline())
                while "event" in answer:
                    answer = json.loads(lines.readline())
            return answer["return"]

    def leftovers(self):
        """What of Cairn's is in QEMU, but for the bitmaps that stay in images."""
        nodes = [one["node-name"] for one in self.ask("query-named-block-nodes")]
        found = [name for name in nodes if name.startswith("cairn")]
        return found + self.ask("query-jobs") + self.ask("query-block-exports")

    def flushed(self):
        """The last record that is known to be on both disks."""
        told = re.findall(rb"cairn guest: flushed (\d+)", self.console.read_bytes())
        return int(told[-1]) if told else 0

    def written_bytes(self):
        return self.ask("query-blockstats")[0]["stats"]["wr_bytes"]

    def kill(self):
        self.process.kill()
        self.process.wait()


def records(server, disk, path):
    """The records that a backup of a disk has, read out of it."""
    text = server.cli("backup", "fetch", disk, path).stdout
    numbers = [int(number) for number in re.findall(r"^record (\d+)$", text, re.MULTILINE)]
    assert numbers == list(range(1, len(numbers) + 1)), "a record is missing or torn"
    return len(numbers)


@pytest.fixture(name="stage", scope="module")
def fixture_stage(tmp_path_factory):
    if not (GUEST / "built").exists():
        pytest.fail("scripts/guest_image.sh has built no guest: run `make test`")
    folder = tmp_path_factory.mktemp("guests")
    (folder / "images").mkdir()
    for name in DISKS:
        raw = folder / "new.raw"
        with open(raw, "wb") as file:
            file.truncate(SIZE)
        run("/usr/sbin/mkfs.ext4", "-q", "-F", raw)
        run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, folder / "images" / name)
        raw.unlink()
    with Server(folder, CONFIG.format(folder=folder)) as server:
        yield server


def blockdevs(folder):
    return [f"driver=qcow2,file.driver=file,file.filename={folder}/images/{name}" for name in DISKS]


@pytest.fixture(name="guest")
def fixture_guest(stage):
    guest = Guest(stage.folder, blockdevs(stage.folder)).ready()
    yield guest
    guest.kill()


def make_vault(server, name, level):
    body = {
        "vault": {
            "name": name,
            "billing": {
                "object_type": "server", "protect_type": "backup", "size": 100,
                "consistent_level": level, "charging_mode": "post_paid",
            },
            "resources": [
                {"id": one["id"], "type": "OS::Nova::Server", "name": one["name"]}
                for one in server.protectables("server").values()
            ],
        }
    }
    return server.ok("POST", "/vaults", body)["vault"]["id"]


def read_bytes(server, disk):
    """What the last backup of a disk read, as the server's log says."""
    lines = [line for line in server.log.read_text().splitlines() if "A disk is in the repository" in line]
    of_disk = [line for line in lines if disk in line]
    return int(re.search(r"read_bytes=(\d+)", re.sub(r"\x1b\[\d+m", "", of_disk[-1]))[1])


def check_file_system(server, disk, folder):
    """Copies a backup's disk by NBD and has its file system checked, which finds nothing to mend."""
    copy, link = folder / "copy.raw", folder / "link"
    environment = {**os.environ, "CAIRN_CREDENTIALS": str(server.credentials_file)}
    serving = subprocess.Popen(
        [CAIRN, "backup", "serve", disk, "--socket", link], stdout=subprocess.DEVNULL, env=environment
    )
    try:
        wait_for("a socket", link.exists)
        run("nbdcopy", f"nbd+unix:///?socket={link}", copy)
    finally:
        serving.send_signal(signal.SIGTERM)
        assert serving.wait(PATIENCE_S) == 0
    run("/usr/sbin/e2fsck", "-fn", copy)
    copy.unlink()


def test_a_guest_that_writes_is_backed_up_at_one_moment_and_boots_from_that(stage, guest, tmp_path):
    vault = make_vault(stage, "frozen", "app_consistent")
    before = 0
    for round_ in range(6):
        flushed = guest.flushed()
        backup = stage.back_up(vault)
        assert backup["extend_info"]["app_consistency"] == {
            "app_consistency": "1", "app_consistency_status": "1",
            "app_consistency_error_code": "", "app_consistency_error_message": "",
        }
        children = {child["resource_name"]: child["id"] for child in backup["children"]}
        one, two = (records(stage, children[name], "/records") for name in DISKS)
        assert one in (two, two + 1) and two > before, (round_, one, two)
        assert two >= flushed, "what was flushed before the freeze is there"
        for name in DISKS:
            check_file_system(stage, children[name], tmp_path)
        if round_:
            assert all(read_bytes(stage, children[name]) < SIZE / 4 for name in DISKS)
        before = two
        written = guest.written_bytes()
        wait_for("the guest's next write", lambda: guest.written_bytes() > written)
    assert guest.leftovers() == []
    refused = stage.call(
        "POST", f"/backups/{backup['id']}/restore",
        {"restore": {"server_id": backup["resource_id"], "mappings": [
            {"backup_id": child["id"], "volume_id": child["resource_id"]} for child in backup["children"]
        ]}},
    )
    assert refused.status_code == 400 and refused.json()["error_code"].endswith("2008"), refused.text
    assert "start_command" in refused.text, "nobody has said how it is started again"

    # A machine boots from the backup at once, and writes to a copy.
    environment = {**os.environ, "CAIRN_CREDENTIALS": str(stage.credentials_file)}
    serving = [
        subprocess.Popen(
            [CAIRN, "backup", "serve", children[name], "--socket", tmp_path / name, "--writable"],
            stdout=subprocess.DEVNULL, env=environment,
        )
        for name in DISKS
    ]
    for name in DISKS:
        wait_for("a socket", (tmp_path / name).exists)
    disks = [
        f"driver=nbd,server.type=unix,server.path={tmp_path}/{name}" for name in DISKS
    ]
    copy = Guest(tmp_path, disks, agent=False).ready()
    written = copy.written_bytes()
    wait_for("the copy's next write", lambda: copy.written_bytes() > written)
    copy.kill()
    for process in serving:
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
    assert records(stage, children[DISKS[1]], "/records") == before, "the backup is as it was"
    stage.ok("DELETE", f"/vaults/{vault}")
    stage.all_operations_finished()


def test_a_guest_that_runs_is_turned_off_for_its_restore(stage, guest):
    vault = make_vault(stage, "restored", "crash_consistent")
    backup = stage.back_up(vault)
    children = {child["resource_name"]: child["id"] for child in backup["children"]}
    held = records(stage, children[DISKS[1]], "/records")
    written = guest.written_bytes()
    wait_for("the guest's next write", lambda: guest.written_bytes() > written)
    shown = [server["status"] for server in stage.protectables("server").values()]
    assert shown == ["ACTIVE"]
    stage.cli("restore", backup["id"], "--power-on", "false", "--wait")
    guest.process.wait(PATIENCE_S)
    shown = [server["status"] for server in stage.protectables("server").values()]
    assert shown == ["SHUTOFF"]
    again = Guest(stage.folder, blockdevs(stage.folder)).ready()
    wait_for("a record after the last of the backup", lambda: again.flushed() > held)
    again.kill()
    stage.ok("DELETE", f"/vaults/{vault}")
    stage.all_operations_finished()


def test_a_guest_without_an_agent_is_backed_up_and_that_is_said(stage):
    (stage.folder / "agent").unlink(missing_ok=True)
    guest = Guest(stage.folder, blockdevs(stage.folder), agent=False).ready()
    vault = make_vault(stage, "unfrozen", "app_consistent")
    backup = stage.back_up(vault)
    told = backup["extend_info"]["app_consistency"]
    assert (told["app_consistency_status"], told["app_consistency_error_code"]) == ("0", "Cairn.0009")
    assert told["app_consistency_error_message"]
    log = stage.ok("GET", f"/operation-logs?operation_type=backup&vault_id={vault}")["operation_logs"][0]
    assert log["extra_info"]["backup"]["app_consistency_status"] == "0"
    assert guest.leftovers() == []
    guest.kill()
    # Off, its images are read as any others, and it goes back to what it was.
    rest = stage.back_up(vault)
    assert rest["extend_info"]["app_consistency"]["app_consistency_status"] == "1"
    stage.restore(backup)
    stage.ok("DELETE", f"/vaults/{vault}")
    stage.all_operations_finished()


def test_a_server_that_is_killed_leaves_nothing_in_the_guest(stage, guest):
    vault = make_vault(stage, "killed", "crash_consistent")
    checkpoint = stage.start_backup(vault)
    wait_for("Cairn's nodes in QEMU", guest.leftovers)
    stage.kill()
    assert guest.leftovers(), "it was killed in the midst of it"
    stage.start()
    wait_for("that nothing is left", lambda: guest.leftovers() == [])
    [backup] = stage.backups(f"checkpoint_id={checkpoint}")
    stage.settled_backup(backup["id"], "available")
    assert guest.leftovers() == []


LARGE = 64 << 30
PIECES = 64


class IdleGuest(Guest):
    """A guest that executes nothing, with one large sparse disk: what it writes is written by its monitor."""

    def __init__(self, folder):
        (folder / "images").mkdir()
        self.image, self.monitor = folder / "images/large.qcow2", folder / "monitor"
        run("qemu-img", "create", "-q", "-f", "qcow2", self.image, str(LARGE))
        config = CONFIG.format(folder=folder).replace('"a.qcow2", "b.qcow2"', '"large.qcow2"')
        self.config = "\n".join(line for line in config.splitlines() if "guest_agent" not in line)
        self.process = subprocess.Popen(
            [
                "setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64", "-accel", "tcg", "-S", "-nodefaults",
                "-display", "none", "-m", "16", "-qmp", f"unix:{folder}/qmp,server=on,wait=off",
                "-qmp", f"unix:{self.monitor},server=on,wait=off",
                "-blockdev", f"driver=qcow2,node-name=node0,file.driver=file,file.filename={self.image}",
                "-device", "virtio-blk-pci,drive=node0,id=disk0",
            ],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )
        wait_for("QEMU's monitor", self.monitor.exists)

    def write(self, content, offset):
        """Writes a file of 1 MiB."""
        line = f'qemu-io -d disk0/virtio-backend "write -s {content} {offset} 1M"'
        said = self.ask("human-monitor-command", **{"command-line": line})
        assert "rror" not in said, said


def test_an_incremental_of_a_large_sparse_disk_reads_what_has_changed(tmp_path):
    """64 GiB of which 64 MiB change: at most 80 MiB are read."""
    guest = IdleGuest(tmp_path)
    rng = random.Random(64)
    try:
        with Server(tmp_path, guest.config) as server:
            vault = make_vault(server, "large", "crash_consistent")
            content = tmp_path / "content"

            def write(offsets):
                content.write_bytes(rng.randbytes(MIB))
                for offset in offsets:
                    guest.write(content, offset)

            # What is written first is also what does not change then.
            places = rng.sample(range(LARGE // MIB), 2 * PIECES)
            write(place * MIB for place in places)
            server.back_up(vault)
            write(place * MIB for place in places[:PIECES])
            backup = server.back_up(vault)
            assert PIECES * MIB <= read_bytes(server, "") <= 80 * MIB
            [disk] = backup["children"]
            copy = tmp_path / "copy.raw"
            run(CAIRN, "repo", "restore", *server.repository(), disk["id"], copy)
            guest.ask("quit")
            guest.process.wait(PATIENCE_S)
            run("qemu-img", "compare", "-f", "qcow2", "-F", "raw", guest.image, copy)
    finally:
        guest.kill()
