"""The vendor's own Python SDK, unmodified, drives the whole of a backup's life."""

import pytest
from harness import FINAL, MIB, Disk, Server, run, wait_for
from huaweicloudsdkcbr.v1 import (
    BackupRestore,
    BackupRestoreReq,
    BackupRestoreServerMapping,
    BillingCreate,
    CbrClient,
    CheckpointParam,
    CreateCheckpointRequest,
    CreateVaultRequest,
    DeleteBackupRequest,
    DeleteVaultRequest,
    ListBackupsRequest,
    ListOpLogsRequest,
    ListProtectableRequest,
    ListVaultRequest,
    ResourceCreate,
    RestoreBackupRequest,
    ShowBackupRequest,
    ShowCheckpointRequest,
    ShowOpLogRequest,
    ShowVaultRequest,
    VaultBackup,
    VaultBackupReq,
    VaultCreate,
    VaultCreateReq,
)
from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.exceptions import exceptions
from huaweicloudsdkcore.region.region import Region

SERVER, VOLUME = "OS::Nova::Server", "OS::Cinder::Volume"


def client_of(server, auth):
    """The SDK's client, signing with AK/SK or sending a token."""
    known = server.credentials
    credentials = BasicCredentials(known["access_key"], known["secret_key"], known["project_id"])
    if auth == "token":
        credentials = BasicCredentials("none", "none", known["project_id"])
    builder = CbrClient.new_builder().with_credentials(credentials)
    client = builder.with_endpoint(known["endpoint"]).build()
    if auth == "token":
        # The SDK signs no request that has an Authorization header already.
        client.preset_headers = {"X-Auth-Token": server.token(), "Authorization": "none"}
    return client


def protectable(client, kind, name):
    listed = client.list_protectable(ListProtectableRequest(protectable_type=kind)).instances
    [found] = [one for one in listed if one.name == name]
    return found


def create_vault(client, name, kind, resource):
    vault = VaultCreate(
        name=name,
        billing=BillingCreate(
            consistent_level="crash_consistent",
            object_type=kind,
            protect_type="backup",
            size=100,
            charging_mode="post_paid",
        ),
        resources=[ResourceCreate(id=resource.id, type=resource.type, name=resource.name)],
    )
    request = CreateVaultRequest(body=VaultCreateReq(vault=vault))
    return client.create_vault(request).vault


def create_checkpoint(client, vault_id, resource_id, name):
    """As the Python sample of the API's documentation does it."""
    request = CreateCheckpointRequest()
    listResourcesParameters = [resource_id]
    parametersCheckpoint = CheckpointParam(
        auto_trigger=True,
        description="backup_description",
        incremental=True,
        name=name,
        resources=listResourcesParameters,
    )
    checkpointbody = VaultBackup(parameters=parametersCheckpoint, vault_id=vault_id)
    request.body = VaultBackupReq(checkpoint=checkpointbody)
    return client.create_checkpoint(request).checkpoint


def poll(client, log_id):
    """Asks for the operation log until it is final."""

    def final():
        log = client.show_op_log(ShowOpLogRequest(operation_log_id=log_id)).operation_log
        assert 0 <= log.extra_info.common.progress <= 100
        return log if log.status in FINAL else None

    return wait_for(f"the end of {log_id}", final)


def back_up(client, vault, resource, name):
    """Makes a backup, polls its operation log and returns the backup and the log."""
    checkpoint = create_checkpoint(client, vault.id, resource.id, name)
    assert checkpoint.status == "protecting"
    assert checkpoint.vault.id == vault.id
    assert [one.id for one in checkpoint.vault.resources] == [resource.id]
    assert checkpoint.vault.skipped_resources == []
    assert checkpoint.extra_info.name == name
    assert checkpoint.extra_info.description == "backup_description"

    logs = client.list_op_logs(ListOpLogsRequest(vault_id=vault.id, operation_type="backup"))
    [log] = [one for one in logs.operation_logs if one.checkpoint_id == checkpoint.id]
    log = poll(client, log.id)
    assert log.status == "success", log.error_info
    assert log.extra_info.common.progress == 100
    assert log.extra_info.backup.backup_name == name
    assert log.started_at and log.ended_at

    backup = client.show_backup(ShowBackupRequest(log.extra_info.backup.backup_id)).backup
    assert backup.status == "available"
    assert (backup.checkpoint_id, backup.vault_id) == (checkpoint.id, vault.id)
    assert (backup.resource_id, backup.resource_type) == (resource.id, resource.type)
    listed = client.list_backups(ListBackupsRequest(checkpoint_id=checkpoint.id))
    assert [one.id for one in listed.backups] == [backup.id]
    shown = client.show_checkpoint(ShowCheckpointRequest(checkpoint.id)).checkpoint
    assert shown.status == "available"
    return backup


def restore(client, backup):
    if backup.resource_type == VOLUME:
        wish = BackupRestore(volume_id=backup.resource_id)
    else:
        mappings = [
            BackupRestoreServerMapping(backup_id=child.id, volume_id=child.resource_id)
            for child in backup.children
        ]
        wish = BackupRestore(server_id=backup.resource_id, mappings=mappings, power_on=True)
    request = RestoreBackupRequest(backup.id, body=BackupRestoreReq(restore=wish))
    assert client.restore_backup(request).status_code == 202
    logs = client.list_op_logs(
        ListOpLogsRequest(operation_type="restore", resource_id=backup.resource_id)
    ).operation_logs
    log = poll(client, max(logs, key=lambda one: one.created_at).id)
    assert log.status == "success", log.error_info


def delete(client, backup):
    client.delete_backup(DeleteBackupRequest(backup.id))

    def gone():
        try:
            client.show_backup(ShowBackupRequest(backup.id))
            return False
        except exceptions.ClientRequestException as error:
            assert (error.status_code, error.error_code) == (404, "BackupService.6200")
            assert error.request_id
            return True

    wait_for("the deletion", gone)


@pytest.fixture(name="server")
def fixture_server(tmp_path):
    Disk(tmp_path / "images/disk.img").create(40 * MIB + 512, seed=11)
    Disk(tmp_path / "images/web-root.qcow2").create(30 * MIB, seed=12)
    Disk(tmp_path / "images/web-data.img").create(20 * MIB + 65536 * 3 + 1536, seed=13)
    with Server(tmp_path) as server:
        yield server


@pytest.mark.parametrize("auth", ["aksk", "token"])
@pytest.mark.parametrize(
    ("kind", "name", "files"),
    [
        ("disk", "disk.img", ["disk.img"]),
        ("server", "web-1", ["web-root.qcow2", "web-data.img"]),
    ],
)
def test_a_resource_is_backed_up_wrecked_and_restored(server, auth, kind, name, files):
    client = client_of(server, auth)
    disks = [Disk(server.images / file) for file in files]
    resource = protectable(client, kind, name)
    assert resource.protectable.result is True
    vault = create_vault(client, "sdk-vault", kind, resource)
    assert vault.billing.object_type == kind
    assert [one.id for one in vault.resources] == [resource.id]
    assert [one.id for one in client.list_vault(ListVaultRequest()).vaults] == [vault.id]

    first = back_up(client, vault, resource, "first")
    if kind == "server":
        children = {child.resource_name: child for child in first.children}
        assert sorted(children) == sorted(files)
        assert {child.parent_id for child in first.children} == {first.id}
        assert {child.resource_type for child in first.children} == {VOLUME}
        assert children["web-root.qcow2"].extend_info.system_disk is True
        assert children["web-data.img"].extend_info.system_disk is False
    else:
        assert first.children == []

    for number, disk in enumerate(disks):
        disk.change(0.03, seed=20 + number)
    at_second = [disk.content() for disk in disks]
    second = back_up(client, vault, resource, "second")
    assert second.extend_info.auto_trigger is True

    delete(client, first)
    for number, disk in enumerate(disks):
        disk.wreck(seed=30 + number)
        assert disk.content() != at_second[number]
    restore(client, second)
    for disk, expected in zip(disks, at_second, strict=True):
        assert disk.content() == expected, disk.path.name
        if disk.format == "qcow2":
            assert "No errors" in run("qemu-img", "check", disk.path).stdout

    shown = client.show_vault(ShowVaultRequest(vault.id)).vault
    [bound] = shown.resources
    assert (bound.backup_count, bound.protect_status) == (1, "available")
    client.delete_vault(DeleteVaultRequest(vault.id))

    def no_vault():
        return client.list_vault(ListVaultRequest()).vaults == []

    wait_for("the vault's deletion", no_vault)
    assert client.list_backups(ListBackupsRequest()).backups == []


def test_the_sdk_reports_errors_with_their_codes(server):
    client = client_of(server, "aksk")
    unknown = "00000000-0000-4000-8000-000000000000"
    with pytest.raises(exceptions.ClientRequestException) as raised:
        create_checkpoint(client, unknown, unknown, "never")
    error = raised.value
    assert (error.status_code, error.error_code) == (404, "BackupService.6105")
    assert error.request_id and error.error_msg

    wrong = BasicCredentials(server.credentials["access_key"], "not-the-secret", server.project)
    stranger = CbrClient.new_builder().with_credentials(wrong)
    stranger = stranger.with_endpoint(server.credentials["endpoint"]).build()
    with pytest.raises(exceptions.ClientRequestException) as raised:
        stranger.list_vault(ListVaultRequest())
    assert raised.value.status_code == 401


def test_the_sdk_finds_the_project_by_the_region(server):
    """As the documentation's sample: a region and keys, and no project id."""
    known = server.credentials
    credentials = BasicCredentials(known["access_key"], known["secret_key"])
    credentials = credentials.with_iam_endpoint(known["iam_endpoint"])
    region = Region(known["region"], known["endpoint"])
    client = CbrClient.new_builder().with_credentials(credentials).with_region(region).build()
    assert client.list_vault(ListVaultRequest()).vaults == []
    assert credentials.project_id == known["project_id"]
