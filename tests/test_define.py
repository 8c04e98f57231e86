"""New machines out of backups of domains: defined beside the old one, and the same but for what one alone can have."""

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import uuid
from pathlib import Path

import pytest
from harness import CAIRN, LONG_S, MIB, Server, run, wait_for
from test_guests import GUEST
from test_libvirt import CONFIG, Libvirt

SIZE = 256 * MIB
CARD = "52:54:00:aa:bb:cc"
DISK = (
    "<disk type='file' device='disk'><driver name='qemu' type='qcow2' discard='unmap'/><source file='{path}'/>"
    "<target dev='{target}' bus='virtio'/><serial>serial-{target}</serial>{more}</disk>"
)
DOMAIN = (
    "<domain type='qemu'><name>{name}</name><uuid>{id}</uuid><memory unit='MiB'>{memory}</memory>"
    "<os><type arch='x86_64' machine='pc'>hvm</type>{boot}</os><cpu mode='maximum'/><devices>{disks}"
    "<interface type='user'><mac address='{card}'/><model type='virtio'/></interface>"
    "<serial type='file'><source path='{console}'/></serial>"
    "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"
    "<memballoon model='none'/></devices></domain>"
)


def define(libvirt, name, disks, boot, memory):
    """Defines a domain; its second disk is what it boots from."""
    written = [
        DISK.format(path=libvirt.images / image, target=target, more="<boot order='1'/>" if target == "vdb" else "")
        for target, image in disks.items()
    ]
    console = libvirt.images / f"{name}.console"
    xml = libvirt.images / "new.xml"
    xml.write_text(
        DOMAIN.format(
            name=name, id=uuid.uuid5(uuid.NAMESPACE_DNS, name), memory=memory, boot=boot, disks="".join(written),
            card=CARD, console=console,
        ),
        encoding="utf-8",
    )
    libvirt.virsh("define", xml)


@pytest.fixture(name="libvirt", scope="module")
def fixture_libvirt():
    if not (GUEST / "built").exists():
        pytest.fail("scripts/guest_image.sh has built no guest: run `make test`")
    # Whoever libvirt runs as has to get there.
    folder = Path(tempfile.mkdtemp(prefix="cairn-define-"))
    libvirt = Libvirt(folder)
    for name in ("kernel", "initrd"):
        shutil.copy(GUEST / name, libvirt.images)
    raw = folder / "new.raw"
    for number, image in enumerate(("a", "b", "c", "d")):
        with open(raw, "wb") as file:
            file.truncate(SIZE)
        if image in "ab":
            run("/usr/sbin/mkfs.ext4", "-q", "-F", raw)
        path = libvirt.images / f"{image}.qcow2"
        run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, path)
        if image in "cd":
            run("qemu-io", "-f", "qcow2", "-c", f"write -P {number} 0 200M", path)
        path.chmod(0o666)
    boot = "<kernel>{0}/kernel</kernel><initrd>{0}/initrd</initrd><cmdline>console=ttyS0 panic=-1</cmdline>"
    define(libvirt, "guest-1", {"vda": "a.qcow2", "vdb": "b.qcow2"}, boot.format(libvirt.images), 256)
    define(libvirt, "idle-1", {"vda": "c.qcow2", "vdb": "d.qcow2"}, "", 16)
    libvirt.virsh("start", "guest-1")
    ready(libvirt, "guest-1")
    yield libvirt
    libvirt.process.kill()
    libvirt.process.wait(LONG_S)
    shutil.rmtree(folder)


@pytest.fixture(name="stage", scope="module")
def fixture_stage(tmp_path_factory, libvirt):
    with Server(tmp_path_factory.mktemp("define"), CONFIG.format(uri=libvirt.uri)) as server:
        server.made = {}
        for name, found in server.protectables("server").items():
            server.made[name] = server.back_up(server.create_vault(name, "server", [found]))
        yield server


@pytest.fixture(name="folder")
def fixture_folder(libvirt):
    folder = Path(tempfile.mkdtemp(dir=libvirt.images))
    folder.chmod(0o777)
    return folder


def ready(libvirt, name):
    """Waits until a guest has mounted its disks and its agent listens."""
    ping = ("qemu-agent-command", name, '{"execute":"guest-ping"}')
    wait_for(f"the start of {name}", lambda: libvirt.virsh(*ping, check=False).returncode == 0)


def command(libvirt, backup, folder, *options):
    """A command that makes a machine; libvirt, which runs as somebody else, may write its images."""
    place = () if "--connect" in options else ("--connect", libvirt.uri)
    words = [CAIRN, "backup", "define", backup["id"], "--folder", folder, *place, *options]
    return [str(word) for word in words]


def environment(server):
    return {**os.environ, "CAIRN_CREDENTIALS": str(server.credentials_file)}


def make(server, libvirt, backup, folder, *options, check=True):
    words = command(libvirt, backup, folder, *options, "-o", "json")
    done = run(*words, check=check, env=environment(server), umask=0)
    return json.loads(done.stdout) if check else done


def same_as_backup(server, backup, disks, folder):
    """Whether images hold, byte for byte, what the backups of their disks do."""
    assert sorted(disk["backup_id"] for disk in disks) == sorted(child["id"] for child in backup["children"])
    for disk in disks:
        held, image = folder / "held", folder / "image"
        run(CAIRN, "repo", "restore", *server.repository(), disk["backup_id"], held)
        form = "qcow2" if disk["path"].endswith(".qcow2") else "raw"
        run("qemu-img", "convert", "-f", form, "-O", "raw", disk["path"], image)
        run("cmp", held, image)
        held.unlink()
        image.unlink()


def domains(libvirt):
    return sorted(libvirt.virsh("list", "--all", "--name").stdout.split())


def remove(libvirt, name):
    libvirt.virsh("destroy", name, check=False)
    libvirt.virsh("undefine", name)


def test_a_machine_runs_beside_the_one_it_was_made_of(stage, libvirt, folder, tmp_path):
    backup = stage.made["guest-1"]
    made = make(stage, libvirt, backup, folder)
    name = f"guest-1-{backup['id'][:8]}"
    assert made["name"] == name and made["remembered"] and not made["started"] and made["left_out"] == []
    assert made["folder"] == str(folder / name) and os.listdir(folder) == [name]
    # The one that it boots from first, under the names that the guest sees.
    assert [disk["path"] for disk in made["disks"]] == [f"{folder / name}/{disk}.qcow2" for disk in ("vdb", "vda")]
    same_as_backup(stage, backup, made["disks"], tmp_path)
    assert libvirt.state("guest-1") == "running" and libvirt.state(name) == "shut off"

    xml = libvirt.virsh("dumpxml", name).stdout
    for kept in ("262144", "serial-vda", "serial-vdb", "<boot order='1'/>", "discard='unmap'", "org.qemu.guest_agent.0"):
        assert kept in xml, xml
    assert made["uuid"] in xml and made["uuid"] != str(uuid.uuid5(uuid.NAMESPACE_DNS, "guest-1"))
    [card] = re.findall(r"<mac address='(.*)'/>", xml)
    assert card != CARD
    for gone in (*(f"{libvirt.images}/{image}.qcow2" for image in "ab"), "guest-1.console", "guest-1<"):
        assert gone not in xml, xml

    libvirt.virsh("start", name)
    ready(libvirt, name)
    assert libvirt.state("guest-1") == "running"

    # What is there is not touched: not the folder, and not the domain.
    refused = make(stage, libvirt, backup, folder, check=False)
    assert refused.returncode == 1 and "is there already; nothing was changed" in refused.stderr
    other = folder / "other"
    other.mkdir()
    refused = make(stage, libvirt, backup, other, check=False)
    assert refused.returncode == 1 and f'libvirt has a domain "{name}" already' in refused.stderr
    assert os.listdir(other) == [] and libvirt.state(name) == "running"
    remove(libvirt, name)


def test_a_command_that_was_killed_is_gone_on_with(stage, libvirt, folder, tmp_path):
    backup = stage.made["idle-1"]
    words = command(libvirt, backup, folder, "--name", "again", "--format", "raw", "--start")
    before = domains(libvirt)

    def had():
        parts = list(folder.glob(".again-*.part/*"))
        return sum(path.stat().st_size for path in parts)

    # In the first image, and in what comes then.
    for _ in range(2):
        seen = had()
        process = subprocess.Popen(
            words, env=environment(stage), umask=0, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_for("some bytes", lambda: had() > seen + MIB)
        process.send_signal(signal.SIGKILL)
        process.wait(LONG_S)
        assert not (folder / "again").exists() and domains(libvirt) == before
    [part] = folder.iterdir()

    # While one is at work, another is told at once; so it is where somebody else might have put something.
    seen = had()
    with subprocess.Popen(words, env=environment(stage), umask=0, stdout=subprocess.DEVNULL) as process:
        wait_for("some bytes", lambda: had() > seen + MIB)
        process.send_signal(signal.SIGSTOP)
        second = run(*words, check=False, env=environment(stage))
        process.kill()
    assert second.returncode == 1 and "another command is at work" in second.stderr
    part.chmod(0o777)
    refused = run(*words, check=False, env=environment(stage))
    assert refused.returncode == 2 and "not yours alone" in refused.stderr
    part.chmod(0o755)

    # Once libvirt has the definition, and the command does not know it yet.
    programs = tmp_path / "programs"
    programs.mkdir()
    virsh = programs / "virsh"
    virsh.write_text(
        f'#!/bin/sh\n{shutil.which("virsh")} "$@" || exit\ncase " $* " in *" define "*) kill -9 $PPID;; esac\n',
        encoding="utf-8",
    )
    virsh.chmod(0o755)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    killing = {**environment(stage), "PATH": f"{programs}:{os.environ['PATH']}", "TMPDIR": str(temporary)}
    killed = run(*words, check=False, env=killing, umask=0)
    assert killed.returncode == -signal.SIGKILL
    assert not (folder / "again").exists() and domains(libvirt) == sorted([*before, "again"])
    assert os.listdir(temporary) == []

    # What has the name of a disk and is none is not taken for one.
    disk = part / "vda.img"
    disk.unlink(missing_ok=True)
    disk.symlink_to(tmp_path / "foreign")
    refused = run(*words, check=False, env=environment(stage), umask=0)
    assert refused.returncode == 2 and "no regular file" in refused.stderr
    assert not (tmp_path / "foreign").exists()
    disk.unlink()
    disk.write_bytes(b"cut short")
    disk.chmod(0o666)

    # Another backup's, or another folder's, is not what goes on.
    refused = make(stage, libvirt, stage.made["guest-1"], folder, "--name", "again", check=False)
    assert refused.returncode == 1 and "libvirt has a domain" in refused.stderr

    made = make(stage, libvirt, backup, folder, "--name", "again", "--format", "raw", "--start")
    assert made["uuid"] in part.name and made["started"] and libvirt.state("again") == "running"
    assert os.listdir(folder) == ["again"] and domains(libvirt) == sorted([*before, "again"])
    assert sorted(os.listdir(folder / "again")) == ["vda.img", "vdb.img"]
    libvirt.virsh("destroy", "again")
    same_as_backup(stage, backup, made["disks"], tmp_path)
    libvirt.virsh("undefine", "again")


def test_a_plain_machine(stage, libvirt, folder, tmp_path):
    backup = stage.made["idle-1"]
    plain = ("--name", "plain", "--plain", "--memory", "64", "--cpus", "1", "--bus", "scsi")
    printed = run(*command(libvirt, backup, folder, *plain, "--print"), env=environment(stage)).stdout
    assert "machine='q35'" in printed and "<memory unit='MiB'>64</memory>" in printed
    assert os.listdir(folder) == [] and "plain" not in domains(libvirt)
    made = make(stage, libvirt, backup, folder, *plain, "--start")
    assert not made["remembered"] and libvirt.state("plain") == "running"
    assert [disk["target"] for disk in made["disks"]] == ["sda", "sdb"]
    by_backup = {child["id"]: child["resource_name"] for child in backup["children"]}
    assert [by_backup[disk["backup_id"]] for disk in made["disks"]] == ["idle-1/vdb", "idle-1/vda"]
    libvirt.virsh("destroy", "plain")
    same_as_backup(stage, backup, made["disks"], tmp_path)
    libvirt.virsh("undefine", "plain")


@pytest.mark.parametrize(
    ("options", "code", "why"),
    [
        (("--memory", "64"), 2, "add --plain"),
        (("--name", "../x"), 2, "cannot be called"),
        (("--plain", "--cpus", "5000"), 1, "libvirt refused define"),
        (("--connect", "qemu:///session?socket=/nowhere"), 1, "libvirt at"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_made(stage, libvirt, folder, options, code, why):
    refused = make(stage, libvirt, stage.made["idle-1"], folder, *options, check=False)
    assert refused.returncode == code and why in refused.stderr, refused.stderr
    assert os.listdir(folder) == []


def test_a_machine_that_does_not_start_stays_defined(stage, libvirt, folder, tmp_path):
    virsh = tmp_path / "virsh"
    virsh.write_text(
        f'#!/bin/sh\ncase " $* " in *" start "*) echo no memory >&2; exit 1;; esac\nexec {shutil.which("virsh")} "$@"\n',
        encoding="utf-8",
    )
    virsh.chmod(0o755)
    words = command(libvirt, stage.made["idle-1"], folder, "--name", "still", "--start")
    path = {**environment(stage), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    failed = run(*words, check=False, env=path, umask=0)
    assert failed.returncode == 1 and "still is defined, and stays so" in failed.stderr
    assert "no memory" in failed.stderr and libvirt.state("still") == "shut off"
    libvirt.virsh("undefine", "still")


def test_a_disk_alone_becomes_no_machine(stage, libvirt, folder):
    disk = stage.made["idle-1"]["children"][0]
    refused = make(stage, libvirt, disk, folder, check=False)
    assert refused.returncode == 2 and "the backup of no server" in refused.stderr
    missing = make(stage, libvirt, stage.made["idle-1"], folder / "none", check=False)
    assert missing.returncode != 0 and "none" in missing.stderr
