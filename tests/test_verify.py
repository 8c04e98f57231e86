"""Verification as its users have it: damage on disk is named, and the next backup heals it."""

import json
import os
import random

import pytest
from harness import MIB, Disk, Server, wait_for

BLOCK = 64 << 10
# What the second backup alone has: bytes that do not compress, in blocks of their own.
CHANGED = range(1 * MIB, 1 * MIB + 8 * BLOCK)
SIZE = 3 * MIB + 512


def flip(pack):
    """Changes one bit of the data, which is nearly all of the pack."""
    with open(pack, "r+b") as file:
        file.seek(pack.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))


def cut(pack):
    os.truncate(pack, pack.stat().st_size // 2)


def delete(pack):
    pack.unlink()


def packs(server):
    folder = server.data / "repository"
    return {folder / name for name in server.objects() if "/packs/" in name}


def results(server, query=""):
    """The newest result of each backup that was looked at, by its id."""
    listed = server.ok("GET", f"/verifications?limit=1000{query}")["verifications"]
    return {one["backup_id"]: one for one in listed}


def verify(server, *arguments, code=0):
    done = server.cli("verify", *arguments, "--wait", "-o", "json", check=False)
    assert done.returncode == code, f"{done.returncode}: {done.stdout}{done.stderr}"
    return json.loads(done.stdout)


@pytest.fixture(name="kept")
def fixture_kept(tmp_path):
    """A server at work with two backups of a disk; the second one has a pack of its own."""
    disk = Disk(tmp_path / "images/disk.img").create(SIZE, seed=1)
    with Server(tmp_path) as server:
        server.disk = disk
        server.vault = server.create_vault("disks", "disk", [server.protectables("disk")["disk.img"]])
        server.first = server.back_up(server.vault)
        before = packs(server)
        with open(disk.path, "r+b") as image:
            image.seek(CHANGED.start)
            image.write(random.Random(7).randbytes(len(CHANGED)))
        server.second = server.back_up(server.vault)
        [server.pack] = packs(server) - before
        server.pack.chmod(0o600)
        yield server


# The pack's nodes lie at its end, the topmost among them: without it nothing of the disk is found.
@pytest.mark.parametrize(
    ("damage", "lost"), [(flip, CHANGED), (cut, range(SIZE)), (delete, range(SIZE))]
)
@pytest.mark.parametrize("level", [(), ("--full",)])
def test_damage_is_named_and_the_next_backup_heals_it(kept, damage, lost, level):
    first, second = kept.first["id"], kept.second["id"]
    assert verify(kept, *level) == []
    assert {one["status"] for one in results(kept).values()} == {"whole"}
    expected = kept.disk.content()
    damage(kept.pack)

    [hurt] = verify(kept, *level, code=5)
    assert hurt["backup_id"] == second
    assert hurt["lost"]["ranges"] == [{"offset": lost.start, "length": len(lost)}]
    assert hurt["lost"]["bytes"] == len(lost)
    assert not hurt["lost"]["everything"]
    assert set(results(kept, "&status=hurt")) == {second}
    assert results(kept, "&status=whole")[first]["problem"] is None
    shown = kept.ok("GET", f"/backups/{second}/verification")["verification"]
    assert (shown["status"], shown["lost"]) == ("hurt", hurt["lost"])
    assert second in kept.log_tail() and "cannot be restored as it was" in kept.log_tail()
    wait_for("the repair", lambda: "damaged packs are out of use" in kept.log_tail())

    # The disk is as it was, so what was lost is stored anew.
    third = kept.back_up(kept.vault)
    assert verify(kept, "--full") == []
    healed = results(kept)
    assert {one["status"] for one in healed.values()} == {"whole"}
    assert set(healed) == {first, second, third["id"]}
    kept.disk.wreck(seed=2)
    kept.restore(kept.second)
    assert kept.disk.content() == expected


def test_a_verification_is_asked_for_and_listed_by_name(kept):
    name = kept.second["name"]
    assert verify(kept, "--full", "--backup", name) == []
    assert set(results(kept)) == {kept.second["id"]}
    assert verify(kept, "--vault", "disks") == []
    assert {one["level"] for one in results(kept).values()} == {"quick"}
    listed = kept.cli("verify", "list", "--status", "whole").stdout
    assert kept.first["id"] in listed and name in listed
    assert kept.cli("verify", "--backup", "nobody's", check=False).returncode == 4
    assert kept.cli("verify", "--backup", name, "--vault", "disks", check=False).returncode == 2
    log = kept.ok("GET", "/operation-logs?operation_type=verify")["operation_logs"][0]
    assert log["status"] == "success" and log["extra_info"]["common"]["bytes_total"] > 0
