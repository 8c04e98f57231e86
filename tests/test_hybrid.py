"""A hybrid vault that mirrors the repository of a second Cairn, which goes on working meanwhile."""

import json
import threading
import uuid

import pytest
from blake3 import blake3
from harness import CAIRN, CONFIG, MIB, Disk, Server, run, wait_for
from sdk import Sdk

EXTERNAL = """
[[external]]
name = "branch"
path = "{path}"
master_key_file = "{key}"
"""

COUNTS = ("sync_backup_num", "delete_backup_num", "err_sync_backup_num")


class Sites:
    """The branch, which backs up, and the centre, whose hybrid vaults mirror it."""

    def __init__(self, branch, centre):
        self.branch, self.centre = branch, centre
        self.sdk = Sdk(centre)
        self.repository = branch.data / "repository"

    def vault(self, kind):
        body = {
            "name": f"mirror-of-{kind}s",
            "billing": {
                "object_type": kind, "protect_type": "backup", "cloud_type": "hybrid", "size": 100,
                "consistent_level": "crash_consistent", "charging_mode": "post_paid",
            },
            "resources": [],
        }
        return self.sdk.create_vault(body={"vault": body}).vault.id

    def begin(self, vault):
        # Not by the SDK: what it signs twice in a second is taken for a retry.
        body = {"sync": {"vault_id": vault, "auto_trigger": False}}
        return self.centre.ok("POST", "/checkpoints/sync", body)["sync"]["operation_log_id"]

    def begin_by_sdk(self, vault):
        body = {"sync": {"vault_id": vault, "auto_trigger": False}}
        answer = self.sdk.import_checkpoint(body=body).sync
        assert answer.vault_id == vault
        return answer.operation_log_id

    def sync(self, vault, counts, status="success"):
        """Synchronises, which must come to these counts; returns why, if it failed."""
        return self.ended(self.begin(vault), counts, status)

    def ended(self, log_id, counts, status="success"):
        self.centre.finished(log_id)
        log = self.sdk.show_op_log(operation_log_id=log_id).operation_log
        sync = log.extra_info.sync
        found = [getattr(sync, count) for count in COUNTS]
        assert (log.status, found) == (status, counts), log
        return log.error_info.message

    def restored(self, backup_id):
        """What a disk's backup holds, restored onto a disk of the centre."""
        target = self.centre.protectables()["target.img"]
        body = {"restore": {"volume_id": target["id"]}}
        job = self.centre.ok("POST", f"/backups/{backup_id}/restore", body)["job_id"]
        log = self.centre.finished(job)
        assert log["status"] == "success", log
        return Disk(self.centre.images / "target.img").content()

    def verify(self):
        """Every backup at the centre is whole."""
        run(CAIRN, "repo", "verify", "--full", *self.centre.repository())


@pytest.fixture(name="sites")
def fixture_sites(tmp_path):
    branch, centre = tmp_path / "branch", tmp_path / "centre"
    for name, size in (("disk.img", 6), ("web-root.qcow2", 5), ("web-data.img", 4)):
        Disk(branch / "images" / name).create(size * MIB, seed=size)
    for name, size in (("target.img", 8), ("web-root.qcow2", 9), ("web-data.img", 9)):
        Disk(centre / "images" / name).create(size * MIB, seed=20 + size)
    with Server(branch) as first:
        external = EXTERNAL.format(path=first.data / "repository", key=first.data / "master.key")
        with Server(centre, CONFIG + external) as second:
            yield Sites(first, second)


def branch_vault(sites, kind="disk", name="disk.img"):
    return sites.branch.create_vault(f"{kind}s", kind, [sites.branch.protectables(kind)[name]])


def test_backups_of_a_second_cairn_come_here_and_need_it_no_more(sites):
    disk = Disk(sites.branch.images / "disk.img")
    vault, mirror = branch_vault(sites), sites.vault("disk")
    contents = {}
    for number in range(3):
        backup = sites.branch.back_up(vault, f"backup-{number}")
        contents[backup["id"]] = disk.content()
        disk.change(0.1, seed=number)
    sites.ended(sites.begin_by_sdk(mirror), [3, 0, 0])
    sites.sync(mirror, [0, 0, 0])
    here = sites.sdk.list_backups(vault_id=mirror, sort="created_at:asc").backups
    assert [one.name for one in here] == ["backup-0", "backup-1", "backup-2"]
    assert [one.id for one in here] == list(contents)
    there = sites.branch.backups("sort=created_at:asc")
    for one, other in zip(sites.centre.backups("sort=created_at:asc"), there):
        for key in ("name", "created_at", "resource_id", "resource_name", "resource_type", "image_type"):
            assert one[key] == other[key], key
        assert one["origin"] == {
            "external": "branch", "project_id": sites.branch.project,
            "backup_id": one["id"], "gone_at": None,
        }
    assert sites.sdk.show_vault(vault_id=mirror).vault.billing.used >= 3

    # One goes there, and is marked here; then the branch burns down.
    gone = here[1].id
    sites.branch.delete_backup(gone)
    sites.sync(mirror, [0, 1, 0])
    sites.sync(mirror, [0, 0, 0])
    assert sites.centre.ok("GET", f"/backups/{gone}")["backup"]["origin"]["gone_at"]
    sites.branch.kill()
    run("rm", "-r", sites.branch.folder)
    for backup_id, content in contents.items():
        assert sites.restored(backup_id)[: len(content)] == content
    sites.verify()
    assert "cannot" in sites.sync(mirror, [0, 0, 1], "failed")
    assert len(sites.centre.backups()) == 3


def test_a_server_comes_while_the_branch_goes_on(sites):
    """The branch backs up, deletes and collects all the while."""
    web = branch_vault(sites, "server", "web-1")
    first = sites.branch.back_up(web, "first")
    contents = {
        name: Disk(sites.branch.images / name).content() for name in ("web-root.qcow2", "web-data.img")
    }
    vault, stop, made = branch_vault(sites), threading.Event(), []
    disk = Disk(sites.branch.images / "disk.img")

    def work():
        while not stop.is_set():
            made.append(sites.branch.back_up(vault)["id"])
            disk.change(0.2, seed=len(made))
            if len(made) % 3 == 0:
                sites.branch.delete_backup(made.pop(0))

    busy = threading.Thread(target=work)
    busy.start()
    try:
        servers, disks = sites.vault("server"), sites.vault("disk")
        sites.sync(servers, [1, 0, 0])
        total = 0
        for _ in range(5):
            log = sites.centre.finished(sites.begin(disks))
            assert log["status"] == "success", log
            total += log["extra_info"]["sync"]["sync_backup_num"]
        assert total > 0
    finally:
        stop.set()
        busy.join()
    log = sites.centre.finished(sites.begin(disks))
    assert log["status"] == "success", log
    here = {one["id"] for one in sites.centre.backups(f"vault_id={disks}")}
    assert set(made) <= here, "whatever is left there is here"
    sites.verify()

    shown = sites.sdk.show_backup(backup_id=first["id"]).backup
    server = sites.centre.protectables("server")["web-1"]
    volumes = {one["name"]: one["id"] for one in server["children"]}
    mappings = [
        {"backup_id": child.id, "volume_id": volumes[child.resource_name]} for child in shown.children
    ]
    body = {"restore": {"server_id": server["id"], "mappings": mappings}}
    job = sites.centre.ok("POST", f"/backups/{shown.id}/restore", body)["job_id"]
    assert sites.centre.finished(job)["status"] == "success"
    for name, content in contents.items():
        assert Disk(sites.centre.images / name).content()[: len(content)] == content, name


def test_backups_are_imported_by_name(sites):
    disk = Disk(sites.branch.images / "disk.img")
    backup, content = sites.branch.back_up(branch_vault(sites)), disk.content()
    sites.vault("disk")

    def wish(backup_id, bucket="branch", path=""):
        return {
            "backup_id": backup_id, "backup_name": "taken-over", "bucket_name": bucket,
            "image_path": path, "created_at": 1548898428, "resource_id": backup["resource_id"],
            "resource_name": "disk.img", "resource_type": "OS::Cinder::Volume",
        }

    unknown = str(uuid.uuid4())
    answers = sites.sdk.import_backup(body={"sync": [wish(backup["id"]), wish(unknown)]}).sync
    assert [one.backup_id for one in answers] == [backup["id"], unknown]
    sites.ended(answers[0].operation_log_id, [1, 0, 0])
    assert "no such backup" in sites.ended(answers[1].operation_log_id, [0, 0, 1], "failed")
    # Once more, by another name: it is here already.
    path = f"{sites.branch.project}/{backup['id']}"
    [answer] = sites.sdk.import_backup(body={"sync": [wish(unknown, path=path)]}).sync
    sites.ended(answer.operation_log_id, [1, 0, 0])
    [here] = sites.centre.backups()
    assert (here["id"], here["name"]) == (backup["id"], "taken-over")
    assert sites.restored(here["id"])[: len(content)] == content


def flip(path):
    """Flips a bit in the middle of a file."""
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_what_is_damaged_there_is_counted_and_the_rest_comes(sites):
    disk = Disk(sites.branch.images / "disk.img")
    vault, mirror = branch_vault(sites), sites.vault("disk")
    ids, contents, packs = [], [], [set()]
    for number in range(5):
        ids.append(sites.branch.back_up(vault, incremental=False)["id"])
        contents.append(disk.content())
        packs.append(set(sites.repository.rglob("packs/*/*")))
        disk.create(6 * MIB, seed=100 + number, share=0.9)
    project = sites.repository / "projects" / sites.branch.project
    good, receipt, manifest, half, data = ids
    flip(project / "receipts" / receipt)
    [path] = project.glob(f"manifests/{manifest}-*")
    flip(path)
    unfinished = project / "receipts" / half
    kept = unfinished.read_bytes()
    unfinished.unlink()
    for pack in packs[5] - packs[4]:
        flip(pack)
    why = sites.sync(mirror, [1, 0, 4], "failed")
    assert why.startswith("4 could not be taken over; the first: ")
    [backup] = sites.centre.backups()
    assert backup["id"] == good
    assert sites.restored(good)[: len(contents[0])] == contents[0]
    sites.verify()
    assert len(json.loads(run(CAIRN, "repo", "list", "--json", *sites.centre.repository()).stdout)) == 1

    unfinished.write_bytes(kept)
    sites.sync(mirror, [1, 0, 3], "failed")
    assert sites.restored(half)[: len(contents[3])] == contents[3]
    assert data not in {one["id"] for one in sites.centre.backups()}


def test_a_foreign_key_and_a_newer_format_give_nothing(sites):
    sites.branch.back_up(branch_vault(sites))
    mirror = sites.vault("disk")
    key = sites.branch.data / "master.key"
    own = key.read_text(encoding="ascii")
    key.write_text("0" * 64 + "\n", encoding="ascii")
    assert "master key" in sites.sync(mirror, [0, 0, 1], "failed")
    key.write_text(own, encoding="ascii")

    config = sites.repository / "config"
    object_, body = config.read_bytes(), bytearray(config.read_bytes()[:-32])
    body[8:10] = (2).to_bytes(2, "little")
    config.write_bytes(body + blake3(body).digest())
    assert "newer format" in sites.sync(mirror, [0, 0, 1], "failed")
    config.write_bytes(object_)
    assert sites.centre.backups() == []
    sites.sync(mirror, [1, 0, 0])


SLOW = """
[external.limits]
download_bytes_per_second = 30_000_000
"""


def slow_import(sites):
    """Begins to take over a disk of 160 MiB, which takes some seconds."""
    assert sites.centre.stop() == 0
    with open(sites.centre.config, "a", encoding="utf-8") as config:
        config.write(SLOW)
    Disk(sites.branch.images / "disk.img").create(160 * MIB, seed=5, share=0.9)
    sites.centre.start()
    backup = sites.branch.back_up(branch_vault(sites))
    mirror = sites.vault("disk")
    log_id = sites.begin(mirror)

    def reaches(percent):
        log = sites.centre.ok("GET", f"/operation-logs/{log_id}")["operation_log"]
        assert log["status"] in ("waiting", "running"), log
        return log["extra_info"]["common"]["progress"] >= percent

    return backup, mirror, log_id, reaches


def test_an_import_that_is_killed_goes_on(sites):
    """Killed again and again while it moves bytes, it ends with everything here, once."""
    target = Disk(sites.centre.images / "target.img").create(161 * MIB, seed=6, share=0.1)
    backup, _, log_id, reaches = slow_import(sites)
    for percent in (5, 25):
        wait_for(f"{percent} percent", lambda least=percent: reaches(least))
        sites.centre.kill()
        sites.centre.start()
    sites.ended(log_id, [1, 0, 0])
    [here] = sites.centre.backups()
    assert (here["id"], here["status"]) == (backup["id"], "available")
    content = Disk(sites.branch.images / "disk.img").content()
    assert sites.restored(here["id"])[: 160 * MIB] == content
    assert target.path.stat().st_size == 161 * MIB
    sites.verify()


def test_an_import_that_is_cancelled_leaves_nothing(sites):
    backup, mirror, log_id, reaches = slow_import(sites)
    wait_for("5 percent", lambda: reaches(5))
    sites.centre.ok("POST", f"/operation-logs/{log_id}/cancel")
    log = sites.centre.finished(log_id)
    assert log["status"] == "failed" and log["error_info"]["message"], log
    assert sites.centre.backups() == []
    sites.centre.all_operations_finished()
    listed = run(CAIRN, "repo", "list", "--json", *sites.centre.repository()).stdout
    assert json.loads(listed) == []
    # Another time it comes.
    again = sites.begin(mirror)
    sites.ended(again, [1, 0, 0])
    assert [one["id"] for one in sites.centre.backups()] == [backup["id"]]
