"""Backups that are shared: the vendor's SDK shares, accepts and restores to the receiver's own disks."""

import pytest
from harness import MIB, Disk, Server, wait_for
from huaweicloudsdkcore.exceptions import exceptions
from sdk import Sdk

TENANT = """
[[source]]
kind = "images"
name = "tenant"
path = "tenant"
project = "{project}"

[[source.server]]
name = "tenant-1"
disks = ["root.qcow2", "data.img"]
"""


class Scene:
    """An owner with a disk and a server, and a receiver with larger ones of its own."""

    def __init__(self, server, receiver):
        self.server = server
        self.owner, self.receiver = Sdk(server), Sdk(server, receiver)
        self.project = receiver["project_id"]
        self.disks = {
            path.name: Disk(path)
            for folder in ("images", "tenant")
            for path in (server.folder / folder).iterdir()
            if path.suffix in (".img", ".qcow2")
        }

    def vault(self, sdk, kind, resources=()):
        types = {"disk": "OS::Cinder::Volume", "server": "OS::Nova::Server"}
        body = {
            "name": f"{kind}s",
            "billing": {
                "object_type": kind, "protect_type": "backup", "size": 100,
                "consistent_level": "crash_consistent", "charging_mode": "post_paid",
            },
            "resources": [{"id": one.id, "type": types[kind], "name": one.name} for one in resources],
        }
        return sdk.create_vault(body={"vault": body}).vault

    def resource(self, sdk, kind, name):
        listed = sdk.list_protectable(protectable_type=kind).instances
        [found] = [one for one in listed if one.name == name]
        return found

    def back_up(self, kind, name):
        vault = self.vault(self.owner, kind, [self.resource(self.owner, kind, name)])
        made = self.owner.create_checkpoint(body={"checkpoint": {"vault_id": vault.id, "parameters": {}}})
        [backup] = self.owner.list_backups(checkpoint_id=made.checkpoint.id).backups
        self.server.settled_backup(backup.id, "available")
        return self.owner.show_backup(backup_id=backup.id).backup

    def share_and_accept(self, backup, kind):
        members = {"members": [self.project]}
        [member] = self.owner.add_member(backup_id=backup.id, body=members).members
        assert member.status == "pending"
        offered = self.receiver.list_backups(own_type="shared", member_status="pending").backups
        assert [one.id for one in offered] == [backup.id]
        # How it is made up is for whoever has accepted it.
        refused("2005", self.receiver.show_metadata, backup_id=backup.id)
        vault = self.vault(self.receiver, kind)
        accepted = {"status": "accepted", "vault_id": vault.id}
        answer = self.receiver.update_member_status(
            backup_id=backup.id, member_id=self.project, body=accepted
        )
        assert (answer.member.status, answer.member.vault_id) == ("accepted", vault.id)
        return vault

    def restore(self, backup, **target):
        """Begins the receiver's restore; returns its operation log's id, which the SDK leaves out."""
        self.receiver.restore_backup(backup_id=backup.id, body={"restore": target})
        logs = self.receiver.list_op_logs(operation_type="restore").operation_logs
        return logs[0].id

    def finished(self, log_id):
        def final():
            log = self.receiver.show_op_log(operation_log_id=log_id).operation_log
            return log if log.status in ("success", "failed") else None

        log = wait_for(f"the end of {log_id}", final)
        assert log.status == "success", log
        return log


@pytest.fixture(name="scene")
def fixture_scene(tmp_path):
    sizes = {"images/disk.img": 6, "images/web-root.qcow2": 8, "images/web-data.img": 4,
             "tenant/own.img": 9, "tenant/small.img": 1, "tenant/root.qcow2": 10, "tenant/data.img": 4}
    for number, (name, size) in enumerate(sizes.items()):
        Disk(tmp_path / name).create(size * MIB, seed=number)
    with Server(tmp_path) as server:
        receiver = server.create_project("receiver")
        assert server.stop() == 0
        with open(server.config, "a", encoding="utf-8") as config:
            config.write(TENANT.format(project=receiver["project_id"]))
        server.start()
        yield Scene(server, receiver)


def refused(code, call, **parameters):
    with pytest.raises(exceptions.ClientRequestException) as caught:
        call(**parameters)
    assert caught.value.error_code == f"BackupService.{code}", caught.value
    return caught.value.status_code


def test_a_disk_is_shared_accepted_and_restored_to_the_receivers_own(scene):
    disk, own = scene.disks["disk.img"], scene.disks["own.img"]
    content, behind = disk.content(), own.content()[6 * MIB :]
    backup = scene.back_up("disk", "disk.img")
    target = scene.resource(scene.receiver, "disk", "own.img")
    scene.share_and_accept(backup, "disk")
    disk.change(0.3, seed=77)

    log = scene.finished(scene.restore(backup, volume_id=target.id))
    assert log.extra_info.restore.target_resource_id == target.id
    assert own.content() == content + behind, "the rest of a larger disk stays"

    small = scene.resource(scene.receiver, "disk", "small.img")
    theirs = scene.resource(scene.owner, "disk", "disk.img")
    for code, wish in (("2001", small.id), ("6302", theirs.id)):
        body = {"restore": {"volume_id": wish}}
        refused(code, scene.receiver.restore_backup, backup_id=backup.id, body=body)
    # It looks and restores; whatever else is the owner's.
    refused("6200", scene.receiver.delete_backup, backup_id=backup.id)
    refused("6200", scene.receiver.update_backup, backup_id=backup.id, body={"backup": {"name": "mine"}})
    on = {"members": [scene.server.project]}
    refused("6714", scene.receiver.add_member, backup_id=backup.id, body=on)

    # Ended, it is gone for the receiver.
    scene.owner.delete_member(backup_id=backup.id, member_id=scene.project)
    # Another body: the same one, signed in the same second, would be taken for a retry.
    body = {"restore": {"volume_id": target.id, "power_on": False}}
    assert refused("6200", scene.receiver.restore_backup, backup_id=backup.id, body=body) == 404
    assert scene.receiver.list_backups(own_type="shared").backups == []


def test_a_server_is_restored_to_the_disks_of_the_receivers_server(scene):
    contents = [scene.disks[name].content() for name in ("web-root.qcow2", "web-data.img")]
    backup = scene.back_up("server", "web-1")
    scene.share_and_accept(backup, "server")
    server = scene.resource(scene.receiver, "server", "tenant-1")
    disks = {disk["name"]: disk["id"] for disk in server.children}
    shown = scene.receiver.show_backup(backup_id=backup.id).backup
    children = {child.resource_name: child.id for child in shown.children}
    mappings = [
        {"backup_id": children[theirs], "volume_id": disks[own]}
        for theirs, own in (("web-root.qcow2", "root.qcow2"), ("web-data.img", "data.img"))
    ]
    in_place = {"restore": {"server_id": server.id}}
    refused("9900", scene.receiver.restore_backup, backup_id=backup.id, body=in_place)
    scene.finished(scene.restore(backup, server_id=server.id, mappings=mappings))
    for name, content in zip(("root.qcow2", "data.img"), contents):
        assert scene.disks[name].content()[: len(content)] == content, name


def test_a_restore_goes_on_after_a_crash_and_the_owner_waits(scene):
    """What has begun and not ended when the process dies is still under way afterwards."""
    content = scene.disks["disk.img"].content()
    backup = scene.back_up("disk", "disk.img")
    scene.share_and_accept(backup, "disk")
    target = scene.resource(scene.receiver, "disk", "own.img")
    log = scene.restore(backup, volume_id=target.id)
    scene.server.kill()
    scene.server.start()
    deletion = scene.server.call("DELETE", f"/backups/{backup.id}")
    if deletion.status_code != 204:
        assert deletion.json()["error_code"] == "BackupService.6216"
    scene.finished(log)
    assert scene.disks["own.img"].content()[: len(content)] == content
    if deletion.status_code != 204:
        scene.server.delete_backup(backup.id)
    wait_for("the end of the backup", lambda: not scene.receiver.list_backups(own_type="shared").backups)
