"""A repository folder and its master key without the server: damage, repair, and what programs read."""

import json
import os
import threading

import pytest
from harness import CAIRN, MIB, Disk, Server, run

# Backups that come and go beside a verification: they end before it has looked for the last time.
ROUNDS = 20


@pytest.fixture(name="kept")
def fixture_kept(tmp_path):
    """A server with one disk and one backup of it, at work."""
    disk = Disk(tmp_path / "images/disk.img").create(3 * MIB, seed=1)
    with Server(tmp_path) as server:
        server.disk = disk
        server.vault = server.create_vault("disks", "disk", [server.protectables("disk")["disk.img"]])
        server.backup = server.back_up(server.vault)
        yield server


def repo(server, *arguments, check=True):
    """Runs `cairn repo` on a server's repository."""
    return run(CAIRN, "repo", *arguments, *server.repository(), check=check)


def damage(server):
    """Flips a bit in the middle of the largest object, a pack; returns its path in the repository."""
    folder = server.data / "repository"
    pack = max((folder / name for name in server.objects()), key=lambda path: path.stat().st_size)
    pack.chmod(0o600)
    with open(pack, "r+b") as file:
        file.seek(pack.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    return str(pack.relative_to(folder))


def test_repair_and_a_full_backup_make_hurt_backups_whole(kept):
    assert kept.stop() == 0
    pack = damage(kept)
    assert repo(kept, "verify", "--full", check=False).returncode == 1
    [repaired] = json.loads(repo(kept, "repair", "-o", "json").stdout)
    assert repaired["project"] == kept.project
    assert repaired["packs"] == [pack.rpartition("/")[2]]
    assert repaired["lost_chunks"] > 0
    assert pack not in kept.objects()
    assert repo(kept, "verify", "--full", check=False).returncode == 1

    kept.start()
    kept.cli("checkpoint", "create", "disks", "--full", "--wait")
    assert "2 backups, no problems" in repo(kept, "verify", "--full").stdout
    before = kept.disk.content()
    kept.disk.wreck(seed=2)
    kept.restore(kept.backup)
    assert kept.disk.content() == before
    assert kept.stop() == 0
    assert "0 damaged packs taken out of use, 0 chunks lost" in repo(kept, "repair").stdout


def test_repair_needs_the_repository_for_itself(kept, tmp_path):
    before = kept.objects()
    refused = repo(kept, "repair", check=False)
    assert refused.returncode == 1
    assert "another process" in refused.stderr, refused.stderr
    assert kept.objects() == before
    nowhere = tmp_path / "nowhere"
    key = kept.data / "master.key"
    lost = run(CAIRN, "repo", "repair", "--repository", nowhere, "--master-key-file", key, check=False)
    assert lost.returncode == 1
    assert not nowhere.exists()


def test_verify_beside_a_busy_server_gives_no_alarm(kept):
    failed = []

    def churn():
        """Backups that come and go, each followed by a collection."""
        try:
            for seed in range(ROUNDS):
                kept.disk.change(0.5, seed)
                kept.delete_backup(kept.back_up(kept.vault)["id"])
        except BaseException as error:
            failed.append(error)
            raise

    churning = threading.Thread(target=churn)
    churning.start()
    alarms = []
    while churning.is_alive():
        verified = repo(kept, "verify", "--full", check=False)
        if verified.returncode != 0:
            alarms.append(verified.stdout + verified.stderr)
    churning.join()
    assert not failed
    assert not alarms, alarms[0]


def test_a_failed_restore_leaves_no_image(kept, tmp_path):
    damage(kept)
    target = tmp_path / "restored.img"
    assert repo(kept, "restore", kept.backup["id"], target, check=False).returncode == 1
    assert not target.exists()
    target.write_bytes(b"mine")
    assert repo(kept, "restore", kept.backup["id"], target, check=False).returncode == 1
    assert target.read_bytes() == b"mine"


def test_another_master_key_opens_everything_and_the_old_one_nothing(kept, tmp_path):
    refused = repo(kept, "rotate-key", check=False)
    assert refused.returncode == 1
    assert "another process" in refused.stderr, refused.stderr
    assert kept.stop() == 0
    key, old, before = kept.data / "master.key", tmp_path / "old.key", kept.objects()
    old.write_bytes(key.read_bytes())
    repo(kept, "rotate-key")
    assert kept.objects() == before
    assert key.read_bytes() != old.read_bytes()
    place = ("--repository", kept.data / "repository", "--master-key-file", old)
    assert "does not open" in run(CAIRN, "repo", "list", *place, check=False).stderr

    # As if the machine had stopped before the new key took the old one's place.
    new = key.with_name("master.key.new")
    key.rename(new)
    key.write_bytes(old.read_bytes())
    assert kept.backup["id"] in repo(kept, "list").stdout
    kept.start()
    assert not new.exists()
    assert key.read_bytes() != old.read_bytes()
    content = kept.disk.content()
    kept.disk.wreck(seed=3)
    kept.restore(kept.backup)
    assert kept.disk.content() == content
    run(CAIRN, "audit", "verify", "--config", kept.config, "--data-dir", kept.data)
    assert kept.stop() == 0
    assert "no problems" in repo(kept, "verify", "--full").stdout


def test_damage_is_found_without_a_key(kept):
    place = ("--repository", kept.data / "repository")
    assert "each as it was written" in run(CAIRN, "repo", "check", *place).stdout
    pack = damage(kept)
    found = run(CAIRN, "repo", "check", *place, "-o", "json", check=False)
    assert found.returncode == 1
    assert json.loads(found.stdout)["damaged"] == [pack]


def test_programs_get_json(kept):
    listed = json.loads(repo(kept, "list", "-o", "json").stdout)
    assert listed == json.loads(repo(kept, "list", "--json").stdout)
    assert [one["info"]["id"] for one in listed] == [kept.backup["id"]]
    [clean] = json.loads(repo(kept, "verify", "--full", "-o", "json").stdout)
    assert clean["project"] == kept.project
    assert (clean["backups"], clean["hurt"], clean["damaged"], clean["unacknowledged"]) == (1, [], [], [])
    assert clean["packs"] > 0 and clean["read_bytes"] > 0

    pack = damage(kept)
    verified = repo(kept, "-o", "json", "verify", "--full", check=False)
    assert verified.returncode == 1
    assert "2 problems in 1 backup\n" in verified.stderr
    [hurt] = json.loads(verified.stdout)
    assert hurt["damaged"] == [pack]
    assert [one["backup"] for one in hurt["hurt"]] == [kept.backup["id"]]
    assert hurt["hurt"][0]["problem"]
