"""Disks and stores that fail: the task says why, and earlier backups stay as they are."""

import os
import socket
import subprocess

import pytest
from harness import MIB, Disk, Server, run, wait_for

NAMESPACE = ("unshare", "--mount") if os.geteuid() == 0 else ("unshare", "-U", "-r", "--mount")


def failed_backup(server, vault):
    """Backs up a vault in vain; returns the backup and what its operation log says."""
    checkpoint = server.start_backup(vault)
    [backup] = server.backups(f"checkpoint_id={checkpoint}")
    backup = server.settled_backup(backup["id"], "error")
    logs = server.ok("GET", f"/operation-logs?limit=1000&vault_id={vault}")["operation_logs"]
    [log] = [one for one in logs if one["checkpoint_id"] == checkpoint]
    log = server.finished(log["id"])
    assert log["status"] == "failed"
    assert log["error_info"]["code"].startswith("BackupService.")
    return backup, log["error_info"]["message"]


@pytest.fixture(name="server")
def fixture_server(tmp_path):
    Disk(tmp_path / "images/web-root.qcow2").create(6 * MIB, seed=1)
    Disk(tmp_path / "images/web-data.img").create(4 * MIB, seed=2)
    with Server(tmp_path) as server:
        yield server


def test_a_missing_image_fails_its_servers_backup(server):
    web = server.protectables("server")["web-1"]
    vault = server.create_vault("servers", "server", [web])
    first = server.back_up(vault, "first")
    data = Disk(server.images / "web-data.img")
    expected = data.digest()
    data.path.rename(server.folder / "away.img")

    backup, why = failed_backup(server, vault)
    assert "web-data.img" in why and "missing" in why
    assert {child["status"] for child in backup["children"]} <= {"error"}

    # What failed can only be deleted; what was there before restores.
    answer = server.call("POST", f"/backups/{backup['id']}/restore", {"restore": {"server_id": web["id"]}})
    assert answer.status_code == 400
    assert answer.json()["error_code"] == "BackupService.2005"
    server.delete_backup(backup["id"])
    (server.folder / "away.img").rename(data.path)
    data.wreck(seed=3)
    server.restore(first)
    assert data.digest() == expected
    server.back_up(vault, "second")


def test_an_unreadable_block_fails_the_backup(server):
    """A compressed cluster that does not decompress: qemu reports an I/O error there."""
    plain = server.folder / "plain.img"
    plain.write_bytes(b"".join(bytes([byte % 251]) * 64 for byte in range(65536)))
    bad = server.images / "bad.qcow2"
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", plain, bad)
    disk = server.protectables("disk")["bad.qcow2"]
    vault = server.create_vault("disks", "disk", [disk])
    first = server.back_up(vault, "first")
    whole = bad.read_bytes()
    with open(bad, "r+b") as file:
        file.seek(len(whole) - 2000)
        file.write(b"\x5a" * 1000)

    _, why = failed_backup(server, vault)
    assert "bad.qcow2" in why and "read" in why
    bad.write_bytes(whole)
    server.restore(first)
    assert Disk(bad).content() == plain.read_bytes()


def test_an_image_in_use_fails_the_backup_and_the_restore(server):
    disk = server.protectables("disk")["web-data.img"]
    vault = server.create_vault("disks", "disk", [disk])
    first = server.back_up(vault, "first")
    image = server.images / "web-data.img"
    expected = Disk(image).digest()
    path = server.folder / "guest"
    guest = subprocess.Popen(
        ["qemu-nbd", "--persistent", "--format=raw", f"--socket={path}", str(image)]
    )
    try:
        wait_for_guest(path)
        _, why = failed_backup(server, vault)
        assert "in use" in why
        restore = {"restore": {"volume_id": disk["id"]}}
        answer = server.call("POST", f"/backups/{first['id']}/restore", restore)
        assert answer.status_code == 400
        assert answer.json()["error_code"] == "BackupService.2011"
    finally:
        guest.kill()
        guest.wait()
    assert Disk(image).digest() == expected, "an image in use was written to"
    server.restore(first)


def wait_for_guest(path):
    def greets():
        with socket.socket(socket.AF_UNIX) as guest:
            try:
                guest.connect(str(path))
                return len(guest.recv(18)) > 0
            except OSError:
                return False

    wait_for("the guest's start", greets)


def test_a_full_disk_fails_the_backup_and_nothing_else(tmp_path):
    """The repository is on a file system of 40 MiB; the second disk does not fit."""
    small = Disk(tmp_path / "images/small.img").create(12 * MIB, seed=1, share=1)
    Disk(tmp_path / "images/large.img").create(64 * MIB, seed=2, share=1)
    repository = tmp_path / "data/repository"
    repository.mkdir(parents=True)
    mount = f'mount -t tmpfs -o size=40m,mode=700 tmpfs "{repository}" && exec "$@"'
    with Server(tmp_path, wrapper=(*NAMESPACE, "sh", "-c", mount, "sh")) as server:
        disks = server.protectables("disk")
        small_vault = server.create_vault("small", "disk", [disks["small.img"]])
        large_vault = server.create_vault("large", "disk", [disks["large.img"]])
        first = server.back_up(small_vault, "first")
        expected = small.digest()

        _, why = failed_backup(server, large_vault)
        assert "space" in why.lower() or "full" in why.lower(), why
        assert server.is_ready()

        small.wreck(seed=3)
        server.restore(first)
        assert small.digest() == expected
        # What the failed backup had written is given back, so there is room again.
        small.change(0.1, seed=4)
        expected = small.digest()
        second = server.back_up(small_vault, "second")
        small.wreck(seed=5)
        server.restore(second)
        assert small.digest() == expected


def test_a_disk_that_shrank_is_not_restored_onto(server):
    disk = server.protectables("disk")["web-data.img"]
    vault = server.create_vault("disks", "disk", [disk])
    first = server.back_up(vault, "first")
    image = server.images / "web-data.img"
    with open(image, "r+b") as file:
        file.truncate(1 * MIB)
    before = image.read_bytes()
    answer = server.call(
        "POST", f"/backups/{first['id']}/restore", {"restore": {"volume_id": disk["id"]}}
    )
    assert answer.status_code == 400
    assert answer.json()["error_code"] == "BackupService.2001"
    assert image.read_bytes() == before


def test_a_server_told_to_stop_in_the_midst_of_a_backup_stops_and_goes_on_later(tmp_path):
    large = Disk(tmp_path / "images/large.img").create(96 * MIB, seed=1)
    with Server(tmp_path) as server:
        disk = server.protectables("disk")["large.img"]
        vault = server.create_vault("disks", "disk", [disk])
        checkpoint = server.start_backup(vault)
        assert server.stop() == 0
        server.start()
        server.all_operations_finished()
        [backup] = server.backups(f"checkpoint_id={checkpoint}")
        backup = server.settled_backup(backup["id"], "available")
        expected = large.digest()
        large.wreck(seed=2)
        server.restore(backup)
        assert large.digest() == expected


def test_disks_that_have_grown_are_as_they_were(server):
    web = server.protectables("server")["web-1"]
    vault = server.create_vault("servers", "server", [web])
    first = server.back_up(vault, "first")
    disks = [Disk(server.images / name) for name in ("web-root.qcow2", "web-data.img")]
    expected = [disk.content() for disk in disks]
    for disk in disks:
        run("qemu-img", "resize", "-f", disk.format, disk.path, "+3M")
        disk.wreck(seed=4)
        disk.write([(len(disk.content()) - MIB, MIB, 0x77)])
    server.restore(first)
    assert [disk.content() for disk in disks] == expected
