"""Domains of a libvirt: discovered, backed up while they run by what has changed, and restored."""

import re
import shutil
import subprocess
import tempfile
import uuid
from pathlib import Path

import pytest
from harness import CAIRN, LONG_S, MIB, ROOT, Server, run, wait_for

DISKS = {"a.qcow2": "sda", "b.qcow2": "sdb"}
SIZE = 32 * MIB
# A backup reads a block beside what has changed: a sample of what has not.
BLOCK = 65536
CONFIG = """\
[[source]]
kind = "libvirt"
name = "host-1"
uri = "{uri}"
exclude = ["template-*"]
"""


class Libvirt:
    """A libvirtd of its own, and domains that execute nothing: what they write is written by their monitor."""

    def __init__(self, folder):
        self.images = folder / "images"
        self.images.mkdir()
        # libvirt may run as somebody else.
        self.images.chmod(0o777)
        self.uri = f"qemu:///session?socket={folder}/run/libvirt/libvirt-sock"
        self.process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", ROOT / "scripts/libvirtd.sh", folder],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        wait_for("libvirtd's start", lambda: self.virsh("list", check=False).returncode == 0)

    def virsh(self, *arguments, check=True):
        return run("virsh", "--quiet", "--connect", self.uri, *arguments, check=check)

    def define(self, name, disks):
        disks = "".join(
            f"<disk type='file' device='disk'><driver name='qemu' type='qcow2'/>"
            f"<source file='{self.images / image}'/><target dev='{target}' bus='scsi'/></disk>"
            for image, target in disks.items()
        )
        xml = self.images / "domain.xml"
        xml.write_text(
            f"<domain type='qemu'><name>{name}</name><uuid>{uuid.uuid5(uuid.NAMESPACE_DNS, name)}</uuid>"
            "<memory unit='MiB'>16</memory><os><type arch='x86_64' machine='pc'>hvm</type></os><devices>"
            "<emulator>/usr/bin/qemu-system-x86_64</emulator><controller type='scsi' model='virtio-scsi'/>"
            f"{disks}</devices></domain>",
            encoding="utf-8",
        )
        self.virsh("define", xml)

    def write(self, name, disk, byte, offset, length):
        line = f'qemu-io -d scsi0-0-0-{disk} "write -P {byte} {offset} {length}"'
        said = self.virsh("qemu-monitor-command", name, "--hmp", line).stdout
        assert "rror" not in said, said

    def state(self, name):
        return self.virsh("domstate", name).stdout.strip()

    def checkpoints(self, name):
        return self.virsh("checkpoint-list", name, "--name").stdout.split()

    def leftovers(self, name):
        files = [path.name for path in self.images.glob(".cairn*")]
        running = self.virsh("backup-dumpxml", name, check=False).returncode == 0
        return files + (["a backup job"] if running else [])


@pytest.fixture(name="libvirt", scope="module")
def fixture_libvirt():
    # Whoever libvirt runs as has to get there.
    folder = Path(tempfile.mkdtemp(prefix="cairn-libvirt-"))
    libvirt = Libvirt(folder)
    for image in DISKS:
        run("qemu-img", "create", "-q", "-f", "qcow2", libvirt.images / image, str(SIZE))
        (libvirt.images / image).chmod(0o666)
    libvirt.define("web-1", DISKS)
    libvirt.define("template-1", {})
    libvirt.virsh("start", "web-1", "--paused")
    yield libvirt
    libvirt.process.kill()
    libvirt.process.wait(LONG_S)
    shutil.rmtree(folder)


@pytest.fixture(name="stage", scope="module")
def fixture_stage(tmp_path_factory, libvirt):
    with Server(tmp_path_factory.mktemp("libvirt"), CONFIG.format(uri=libvirt.uri)) as server:
        yield server


def read_bytes(server, backup):
    """What the backups of the disks of a server read, as the server's log says."""
    lines = re.sub(r"\x1b\[\d+m", "", server.log.read_text()).splitlines()
    told = {}
    for child in backup["children"]:
        [line] = [line for line in lines if "A disk is in the repository" in line and child["id"] in line]
        told[child["resource_name"]] = int(re.search(r"read_bytes=(\d+)", line)[1])
    return told


def content(server, backup, folder):
    """What the backups of the disks of a server hold."""
    held = []
    for number, child in enumerate(sorted(backup["children"], key=lambda child: child["resource_name"])):
        path = folder / f"{backup['id']}-{number}"
        run(CAIRN, "repo", "restore", *server.repository(), child["id"], path)
        held.append(path.read_bytes())
    return held


def test_a_domain_is_found_backed_up_by_its_changes_and_restored(stage, libvirt, tmp_path):
    servers = stage.protectables("server")
    assert list(servers) == ["web-1"] and servers["web-1"]["status"] == "ACTIVE"
    assert servers["web-1"]["id"] == str(uuid.uuid5(uuid.NAMESPACE_DNS, "web-1"))
    assert sorted(stage.protectables()) == ["web-1/sda", "web-1/sdb"]
    vault = stage.create_vault("domains", "server", servers.values())
    models = [bytearray(SIZE), bytearray(SIZE)]

    def write(disk, byte, offset, length):
        libvirt.write("web-1", disk, byte, offset, length)
        models[disk][offset:offset + length] = bytes([byte]) * length

    for disk in (0, 1):
        write(disk, 1 + disk, 0, 8 * MIB)
        write(disk, 9, SIZE - 65536, 65536)
    first = stage.back_up(vault)
    expected = [bytes(model) for model in models]
    assert content(stage, first, tmp_path) == expected
    assert len(libvirt.checkpoints("web-1")) == 1
    last = first
    for round_ in (1, 2):
        write(0, 10 + round_, round_ * MIB, MIB)
        last = stage.back_up(vault)
        told = read_bytes(stage, last)
        assert MIB <= told["web-1/sda"] <= MIB + BLOCK and told["web-1/sdb"] <= BLOCK, told
        changed = content(stage, last, tmp_path)
        assert changed == [bytes(model) for model in models]
        assert len(libvirt.checkpoints("web-1")) == 1
        assert libvirt.leftovers("web-1") == []

    # A guest that runs is turned off for its restore, and started again; its next backup compares.
    stage.restore(first)
    assert libvirt.state("web-1") == "running"
    libvirt.virsh("suspend", "web-1")
    again = stage.back_up(vault)
    assert content(stage, again, tmp_path) == expected
    assert read_bytes(stage, again)["web-1/sda"] >= 8 * MIB, "all of it is compared"
    libvirt.write("web-1", 0, 7, 0, 65536)
    told = read_bytes(stage, stage.back_up(vault))
    assert BLOCK <= told["web-1/sda"] <= 2 * BLOCK and told["web-1/sdb"] <= BLOCK, told

    # As asked, it stays off; off before, it is started.
    stage.cli("restore", last["id"], "--power-on", "false", "--wait")
    assert libvirt.state("web-1") == "shut off"
    assert content(stage, stage.back_up(vault), tmp_path) == changed
    stage.restore(first)
    assert libvirt.state("web-1") == "running"
    libvirt.virsh("suspend", "web-1")
    stage.ok("DELETE", f"/vaults/{vault}")
    stage.all_operations_finished()


def test_a_server_that_is_killed_leaves_nothing_at_libvirt(stage, libvirt):
    vault = stage.create_vault("killed", "server", stage.protectables("server").values())
    for disk in (0, 1):
        libvirt.write("web-1", disk, 5, 0, SIZE)
    checkpoint = stage.start_backup(vault)
    wait_for("a backup job", lambda: libvirt.leftovers("web-1"))
    stage.kill()
    stage.start()
    [backup] = stage.backups(f"checkpoint_id={checkpoint}")
    stage.settled_backup(backup["id"], "available")
    wait_for("that nothing is left", lambda: libvirt.leftovers("web-1") == [])
    assert len(libvirt.checkpoints("web-1")) == 1
    stage.ok("DELETE", f"/vaults/{vault}")
    stage.all_operations_finished()
