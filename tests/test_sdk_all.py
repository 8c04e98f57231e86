"""Each of the 74 operations of the vendor's Python SDK, with what it does.

One server serves all of this module's tests; each makes the vaults that it needs.
The last test compares what was called with what the SDK has.
"""

import uuid
from datetime import timedelta

import pytest
from harness import MIB, Disk, Server, ago, wait_for
from huaweicloudsdkcore.exceptions import exceptions
from sdk import OPERATIONS, Sdk

SERVER, VOLUME = "OS::Nova::Server", "OS::Cinder::Volume"
DAILY = "FREQ=DAILY;INTERVAL=2;BYHOUR=06;BYMINUTE=30"
WEEKLY = "FREQ=WEEKLY;BYDAY=MO,TH;BYHOUR=14;BYMINUTE=00"

CONFIG = """\
[[source]]
kind = "images"
name = "lab"
path = "images"

[[source.server]]
name = "web-1"
disks = ["web-root.qcow2", "web-data.img"]

[[source.server]]
name = "web-2"
disks = ["second.img"]
"""


@pytest.fixture(scope="module", name="server")
def fixture_server(tmp_path_factory):
    """Two servers and three disks of their own."""
    folder = tmp_path_factory.mktemp("sdk")
    sizes = {"web-root.qcow2": 8, "web-data.img": 4, "second.img": 4, "one.img": 6, "two.img": 4, "three.img": 2}
    disks = {
        name: Disk(folder / "images" / name).create(size * MIB, seed=number)
        for number, (name, size) in enumerate(sizes.items())
    }
    with Server(folder, CONFIG) as server:
        server.disks = disks
        server.succeeded = set()
        server.partner = server.create_project("partner")
        yield server


@pytest.fixture(name="sdk")
def fixture_sdk(server):
    """The SDK; what it made is gone after the test."""
    sdk = Sdk(server, succeeded=server.succeeded)
    yield sdk
    server.all_operations_finished()
    delete_vaults(sdk)


@pytest.fixture(name="partner")
def fixture_partner(server):
    """The SDK of another project."""
    partner = Sdk(server, server.partner, server.succeeded)
    yield partner
    delete_vaults(partner)


def billing(kind, **changes):
    return {
        "object_type": kind, "protect_type": "backup", "consistent_level": "crash_consistent",
        "size": 100, "charging_mode": "post_paid", **changes,
    }


def resource(one, **extra):
    found = {"id": one["id"], "type": one["type"], "name": one["name"]}
    return {**found, "extra_info": extra} if extra else found


def make_vault(sdk, name, kind="disk", resources=(), terms=None, **more):
    vault = {
        "name": name, "billing": billing(kind, **(terms or {})),
        "resources": [resource(one) for one in resources], **more,
    }
    return sdk.create_vault(body={"vault": vault}).vault


def back_up(server, sdk, vault_id, **parameters):
    """Makes a checkpoint and returns its backups when they are available."""
    body = {"checkpoint": {"vault_id": vault_id, "parameters": parameters}}
    made = sdk.create_checkpoint(body=body).checkpoint
    listed = sdk.list_backups(checkpoint_id=made.id).backups
    for one in listed:
        server.settled_backup(one.id, "available")
    return [sdk.show_backup(backup_id=one.id).backup for one in listed]


def finish(server, sdk, log_id, status="success"):
    server.finished(log_id)
    log = sdk.show_op_log(operation_log_id=log_id).operation_log
    assert log.status == status, log
    return log


def assert_gone(code, operation, **parameters):
    """What was deleted is not found."""
    with pytest.raises(exceptions.ClientRequestException) as raised:
        operation(**parameters)
    assert (raised.value.status_code, raised.value.error_code) == (404, f"BackupService.{code}")


def delete_vaults(sdk):
    """Deletes every vault but those that are paid for in advance, which nobody may."""

    def left():
        vaults = sdk.list_vault().vaults
        return [one for one in vaults if one.billing.charging_mode == "post_paid"]

    for one in left():
        sdk.delete_vault(vault_id=one.id)
    wait_for("the vaults' deletion", lambda: not left())


def test_protectables(server, sdk):
    listed = sdk.list_protectable(protectable_type="server").instances
    assert sorted(one.name for one in listed) == ["web-1", "web-2"]
    [named] = sdk.list_protectable(protectable_type="server", name="web-1").instances
    shown = sdk.show_protectable(protectable_type="server", instance_id=named.id).instance
    assert (shown.id, shown.name, shown.type) == (named.id, "web-1", SERVER)
    assert shown.protectable.result is True
    assert len(shown.children) == 2
    first = sdk.list_protectable(protectable_type="disk", limit=2).instances
    rest = sdk.list_protectable(protectable_type="disk", marker=first[-1].id).instances
    names = [one.name for one in first + rest]
    assert len(names) == len(set(names)) == len(server.disks)


def test_vaults(server, sdk):
    web = server.protectables("server")["web-1"]
    made = make_vault(
        sdk, "first", "server", description="for servers", auto_bind=True, auto_expand=True,
        bind_rules={"tags": [{"key": "protect", "value": "yes"}]}, threshold=60, smn_notify=False,
        tags=[{"key": "colour", "value": "blue"}], backup_name_prefix="night-",
    )
    assert made.provider_id == "0daac4c5-6707-4851-97ba-169e36266b66"
    other = make_vault(sdk, "second", "disk", terms={"size": 20})
    shown = sdk.show_vault(vault_id=made.id).vault
    assert (shown.name, shown.description, shown.threshold) == ("first", "for servers", 60)
    assert (shown.auto_bind, shown.auto_expand, shown.smn_notify) == (True, True, False)
    assert [(one.key, one.value) for one in shown.tags] == [("colour", "blue")]
    assert shown.bind_rules.tags[0].key == "protect"
    assert shown.billing.spec_code == "vault.backup.server.normal"

    both = {made.id, other.id}
    assert set(sdk.ids("list_vault", "vaults", id=[made.id, other.id])) == both
    assert sdk.ids("list_vault", "vaults", id=[other.id]) == [other.id]
    assert sdk.ids("list_vault", "vaults", name="second") == [other.id]
    assert sdk.ids("list_vault", "vaults", object_type="server") == [made.id]
    pages = [sdk.list_vault(limit=1, offset=number) for number in (0, 1, 2)]
    assert [page.count for page in pages] == [2, 2, 2]
    assert {one.id for page in pages for one in page.vaults} == both

    sdk.add_vault_resource(
        vault_id=made.id,
        body={"resources": [resource(web, exclude_volumes=[web["children"][1]["id"]])]},
    )
    [bound] = sdk.show_vault(vault_id=made.id).vault.resources
    assert (bound.id, bound.type, bound.auto_protect) == (web["id"], SERVER, True)
    assert bound.extra_info.exclude_volumes == [web["children"][1]["id"]]
    for action, protects in (("suspend", False), ("unsuspend", True)):
        answer = sdk.set_vault_resource(
            vault_id=made.id, body={"action": action, "resource_ids": [web["id"]]}
        )
        assert answer.set_resource_ids == [web["id"]]
        [bound] = sdk.show_vault(vault_id=made.id).vault.resources
        assert bound.auto_protect is protects

    updated = sdk.update_vault(
        vault_id=made.id,
        body={"vault": {"name": "renamed", "billing": {"size": 200}, "threshold": 70}},
    ).vault
    assert (updated.name, updated.billing.size, updated.threshold) == ("renamed", 200, 70)
    batch = sdk.batch_update_vault(body={"vault": {"smn_notify": True, "threshold": 90}})
    assert both <= set(batch.updated_vaults_id)
    for vault_id in both:
        shown = sdk.show_vault(vault_id=vault_id).vault
        assert (shown.smn_notify, shown.threshold) == (True, 90)
    summary = sdk.show_summary()
    assert summary.size == sum(one.billing.size for one in sdk.list_vault().vaults)
    assert summary.used_size == 0
    external = sdk.list_external_vault(
        region_id=server.credentials["region"], external_project_id=server.project, limit=100
    )
    assert both <= {one.id for one in external.vaults}

    removed = sdk.remove_vault_resource(vault_id=made.id, body={"resource_ids": [web["id"]]})
    assert removed.remove_resource_ids == [web["id"]]
    wait_for("the removal", lambda: sdk.show_vault(vault_id=made.id).vault.resources == [])
    sdk.delete_vault(vault_id=made.id)
    wait_for("the deletion", lambda: sdk.ids("list_vault", "vaults") == [other.id])
    assert_gone("6105", sdk.show_vault, vault_id=made.id)


def test_resources_move_to_another_vault_with_their_backups(server, sdk):
    disk = server.protectables("disk")["three.img"]
    source = make_vault(sdk, "source", resources=[disk])
    target = make_vault(sdk, "target")
    [backup] = back_up(server, sdk, source.id)
    answer = sdk.migrate_vault_resource(
        vault_id=source.id,
        body={"destination_vault_id": target.id, "resource_ids": [disk["id"]]},
    )
    assert answer.migrated_resources == [disk["id"]]
    wait_for("the move", lambda: sdk.show_vault(vault_id=target.id).vault.resources)
    server.all_operations_finished()
    assert sdk.show_vault(vault_id=source.id).vault.resources == []
    moved = sdk.show_backup(backup_id=backup.id).backup
    assert (moved.vault_id, moved.status) == (target.id, "available")


def test_checkpoints_backups_and_operation_logs(server, sdk):
    web = server.protectables("server")["web-1"]
    vault = make_vault(sdk, "web", "server", [web])
    contents = {name: server.disks[name].content() for name in ("web-root.qcow2", "web-data.img")}
    parameters = {
        "name": "evening", "description": "all of it", "incremental": True, "auto_trigger": False,
        "resource_details": [{"id": web["id"], "type": SERVER}],
    }
    [backup] = back_up(server, sdk, vault.id, **parameters)
    assert (backup.name, backup.description) == ("evening", "all of it")
    assert (backup.resource_id, backup.resource_type) == (web["id"], SERVER)
    checkpoint = sdk.show_checkpoint(checkpoint_id=backup.checkpoint_id).checkpoint
    assert (checkpoint.status, checkpoint.vault.id) == ("available", vault.id)
    assert isinstance(checkpoint.vault.resources[0].resource_size, str)

    renamed = sdk.update_backup(backup_id=backup.id, body={"backup": {"name": "morning"}}).backup
    assert renamed.name == "morning"
    listed = sdk.ids("list_backups", "backups", name="morning", resource_type=SERVER, sort="name:asc")
    assert listed == [backup.id]
    assert sdk.ids("list_backups", "backups", name="evening") == []
    children = sdk.ids("list_backups", "backups", parent_id=backup.id)
    assert set(children) == {child.id for child in backup.children}
    metadata = sdk.show_metadata(backup_id=backup.id)
    assert metadata.backup_id == backup.id
    assert web["name"] in metadata.server
    assert len(metadata.volumes) == 2

    for number, name in enumerate(contents):
        server.disks[name].wreck(seed=number)
        assert server.disks[name].content() != contents[name]
    mappings = [{"backup_id": one.id, "volume_id": one.resource_id} for one in backup.children]
    wish = {"server_id": web["id"], "mappings": mappings, "power_on": True}
    sdk.restore_backup(backup_id=backup.id, body={"restore": wish})
    logs = sdk.list_op_logs(operation_type="restore", resource_id=web["id"], limit=10)
    assert logs.count == 1
    log = finish(server, sdk, logs.operation_logs[0].id)
    assert log.extra_info.restore.backup_id == backup.id
    for name, content in contents.items():
        assert server.disks[name].content() == content, name

    usage = sdk.show_storage_usage(resource_id=web["id"], resource_type=SERVER)
    [used] = usage.storage_usage
    assert (used.resource_id, used.backup_count, usage.resource_count) == (web["id"], 1, 1)

    day = (ago() + timedelta(days=40)).strftime("%Y-%m-%d")
    back_up(server, sdk, vault.id, name="automatic", auto_trigger=True)
    answer = sdk.update_expiration_time(
        vault_id=vault.id, body={"expect_expiration_date": day, "time_zone": "UTC+08:00"}
    )
    assert answer.new_expiration_day == day
    log = finish(server, sdk, answer.operation_log_id)
    told = log.extra_info.update_expiration_time
    assert (told.affected_backups_count, told.expiration_day) == (answer.affected_backups_count, day)
    backups = sdk.list_backups(vault_id=vault.id).backups
    assert answer.affected_backups_count == sum(one.expired_at is not None for one in backups) >= 1

    sdk.delete_backup(backup_id=backup.id)
    wait_for("the deletion", lambda: backup.id not in sdk.ids("list_backups", "backups"))
    assert_gone("6200", sdk.show_backup, backup_id=backup.id)
    assert sdk.list_op_logs(vault_id=vault.id, operation_type="delete").count == 1


def policy(name, operation_type="backup", **kept):
    return {
        "name": name, "enabled": True, "operation_type": operation_type,
        "operation_definition": kept,
        "trigger": {"properties": {"pattern": [DAILY, WEEKLY]}},
    }


def test_policies(sdk):
    made = sdk.create_policy(
        body={"policy": policy("nightly", max_backups=7, day_backups=3, timezone="UTC+08:00")}
    ).policy
    shown = sdk.show_policy(policy_id=made.id).policy
    assert (shown.name, shown.enabled, shown.operation_type) == ("nightly", True, "backup")
    assert shown.trigger.properties.pattern == [DAILY, WEEKLY]
    kept = shown.operation_definition
    assert (kept.max_backups, kept.day_backups, kept.timezone) == (7, 3, "UTC+08:00")

    vault = make_vault(sdk, "policed")
    bound = sdk.associate_vault_policy(vault_id=vault.id, body={"policy_id": made.id})
    assert (bound.associate_policy.vault_id, bound.associate_policy.policy_id) == (vault.id, made.id)
    assert sdk.ids("list_policies", "policies", vault_id=vault.id) == [made.id]
    assert sdk.ids("list_vault", "vaults", policy_id=made.id) == [vault.id]
    assert sdk.show_policy(policy_id=made.id).policy.associated_vaults[0].vault_id == vault.id
    changes = {"name": "weekly", "enabled": False, "trigger": {"properties": {"pattern": [WEEKLY]}}}
    updated = sdk.update_policy(policy_id=made.id, body={"policy": changes}).policy
    assert (updated.name, updated.enabled) == ("weekly", False)
    assert sdk.show_policy(policy_id=made.id).policy.trigger.properties.pattern == [WEEKLY]

    sdk.disassociate_vault_policy(vault_id=vault.id, body={"policy_id": made.id})
    assert sdk.ids("list_policies", "policies", vault_id=vault.id) == []
    assert made.id in sdk.ids("list_policies", "policies", operation_type="backup")
    sdk.delete_policy(policy_id=made.id)
    assert made.id not in sdk.ids("list_policies", "policies")
    assert_gone("6000", sdk.show_policy, policy_id=made.id)


def test_organization_policies(server, sdk):
    body = {
        "name": "all-projects", "description": "kept everywhere", "operation_type": "backup",
        "policy_name": "pushed", "policy_enabled": True, "effective_scope": "",
        "policy_operation_definition": {"max_backups": 5},
        "policy_trigger": {"properties": {"pattern": [DAILY]}},
    }
    made = sdk.create_organization_policy(body={"policy": body}).policy
    shown = sdk.show_organization_policy(organization_policy_id=made.id).policy
    assert (shown.name, shown.policy_name) == ("all-projects", "pushed")
    assert shown.domain_id == server.credentials["domain_id"]
    listed = sdk.list_organization_policies(operation_type="backup").policies
    assert made.id in [one.id for one in listed]

    def projects():
        detail = sdk.list_organization_policy_detail(organization_policy_id=made.id)
        rows = detail.policies
        return rows if all(one.status == "available" for one in rows) else None

    pushed = wait_for("the policy in every project", projects)
    assert server.project in [one.project_id for one in pushed]
    [own] = [one for one in sdk.list_policies().policies if one.name == "pushed"]
    assert own.policy_type.startswith("organization_policy")
    assert own.operation_definition.max_backups == 5

    changes = {"name": "every-project", "policy_operation_definition": {"max_backups": 6}}
    updated = sdk.update_organization_policy(organization_policy_id=made.id, body={"policy": changes})
    assert updated.policy.name == "every-project"
    wait_for("the changed policy", projects)
    [own] = [one for one in sdk.list_policies().policies if one.name == "pushed"]
    assert own.operation_definition.max_backups == 6
    sdk.delete_organization_policy(organization_policy_id=made.id)
    listed = sdk.list_organization_policies(operation_type="backup").policies
    assert made.id not in [one.id for one in listed]


def tags_of(sdk, vault_id):
    return {one.key: one.value for one in sdk.show_vault_tag(vault_id=vault_id).tags}


def test_tags(sdk):
    one, two = make_vault(sdk, "tagged-one"), make_vault(sdk, "tagged-two")
    for value in ("red", "blue"):
        sdk.create_vault_tags(vault_id=one.id, body={"tag": {"key": "colour", "value": value}})
    assert tags_of(sdk, one.id) == {"colour": "blue"}
    more = [{"key": "colour", "value": "red"}, {"key": "楼层-2", "value": "x"}]
    sdk.batch_create_and_delete_vault_tags(vault_id=two.id, body={"action": "create", "tags": more})
    assert tags_of(sdk, two.id) == {"colour": "red", "楼层-2": "x"}
    used = {tag.key: sorted(tag.values) for tag in sdk.show_vault_project_tag().tags}
    assert (used["colour"], used["楼层-2"]) == (["blue", "red"], ["x"])

    def found(**wish):
        body = {"action": "filter", "limit": "10", "offset": "0", **wish}
        rows = sdk.show_vault_resource_instances(body=body).resources
        return {row.resource_id for row in rows}

    assert found(tags=[{"key": "colour", "values": ["blue", "green"]}]) == {one.id}
    assert found(tags_any=[{"key": "colour", "values": []}]) == {one.id, two.id}
    assert found(matches=[{"key": "resource_name", "value": "tagged-t"}]) == {two.id}
    no_blue = found(not_tags=[{"key": "colour", "values": ["blue"]}])
    assert two.id in no_blue and one.id not in no_blue
    count = sdk.show_vault_resource_instances(
        body={"action": "count", "tags_any": [{"key": "colour", "values": []}]}
    )
    assert count.total_count == 2

    sdk.delete_vault_tag(vault_id=two.id, key="楼层-2")
    sdk.batch_create_and_delete_vault_tags(
        vault_id=two.id, body={"action": "delete", "tags": [{"key": "colour"}, {"key": "none"}]}
    )
    assert tags_of(sdk, two.id) == {}
    assert_gone("6601", sdk.delete_vault_tag, vault_id=two.id, key="colour")
    assert found(without_any_tag=True) >= {two.id}


def test_members(server, sdk, partner):
    disk = server.protectables("disk")["one.img"]
    vault = make_vault(sdk, "shared", resources=[disk])
    [backup] = back_up(server, sdk, vault.id, name="for-others")
    project = server.partner["project_id"]
    with pytest.raises(exceptions.ClientRequestException):
        partner.show_backup(backup_id=backup.id)
    [made] = sdk.add_member(backup_id=backup.id, body={"members": [project]}).members
    assert (made.status, made.dest_project_id, made.backup_id) == ("pending", project, backup.id)
    listed = partner.ids("list_backups", "backups", own_type="shared", member_status="pending")
    assert listed == [backup.id]
    assert partner.show_backup(backup_id=backup.id).backup.name == "for-others"

    own = make_vault(partner, "receiving")
    accepted = partner.update_member_status(
        backup_id=backup.id, member_id=project, body={"status": "accepted", "vault_id": own.id}
    ).member
    assert (accepted.status, accepted.vault_id) == ("accepted", own.id)
    shown = sdk.show_member_detail(backup_id=backup.id, member_id=project).member
    assert (shown.status, shown.id) == ("accepted", made.id)
    listed = sdk.show_members_detail(backup_id=backup.id, status="accepted")
    assert ([one.id for one in listed.members], listed.count) == ([made.id], 1)
    sdk.delete_member(backup_id=backup.id, member_id=project)
    assert sdk.show_members_detail(backup_id=backup.id).members == []
    assert partner.ids("list_backups", "backups", own_type="shared") == []
    with pytest.raises(exceptions.ClientRequestException):
        partner.show_backup(backup_id=backup.id)


def replicas(sdk, backup_id):
    """The records of a backup's replication, once they are all made."""
    records = sdk.list_backups(show_replication=True, limit=1000).backups
    [records] = [one.replication_records for one in records if one.id == backup_id]
    done = records and all(one.status == "success" for one in records)
    return records if done else None


def test_replication(server, sdk):
    region = server.credentials["region"]
    capable = {one.name: one.replication_destinations for one in sdk.show_replication_capabilities().regions}
    assert region in capable and region in capable[region]

    servers = server.protectables("server")
    vault = make_vault(sdk, "origin", "server", [servers["web-1"]])
    target = make_vault(sdk, "copies", "server", terms={"protect_type": "replication"})
    external = sdk.list_external_vault(
        region_id=region, external_project_id=server.project, protect_type="replication"
    )
    assert [one.id for one in external.vaults] == [target.id]
    [first] = back_up(server, sdk, vault.id, name="first")
    place = {
        "destination_project_id": server.project, "destination_region": region,
        "destination_vault_id": target.id,
    }
    answer = sdk.copy_backup(
        backup_id=first.id, body={"replicate": {"name": "first-copy", **place}}
    ).replication
    assert (answer.backup_id, answer.destination_vault_id) == (first.id, target.id)
    [record] = wait_for("the replica", lambda: replicas(sdk, first.id))
    assert record.id == answer.replication_record_id
    replica = sdk.show_backup(backup_id=record.destination_backup_id).backup
    assert (replica.image_type, replica.status, replica.vault_id) == ("replication", "available", target.id)
    assert (replica.name, len(replica.children)) == ("first-copy", 2)

    server.disks["web-data.img"].change(0.1, seed=71)
    [second] = back_up(server, sdk, vault.id, name="second")
    answer = sdk.copy_checkpoint(body={"replicate": {"vault_id": vault.id, **place}}).replication
    assert second.id in [one.backup_id for one in answer.backups]
    [record] = wait_for("the second replica", lambda: replicas(sdk, second.id))
    logs = sdk.list_op_logs(operation_type="replication", status="success").operation_logs
    assert record.destination_backup_id in {
        log.extra_info.replication.destination_backup_id for log in logs
    }
    copies = sdk.ids("list_backups", "backups", image_type="replication")
    assert record.destination_backup_id in copies and len(copies) == 2

    # The copy alone is enough: the origin is gone, and is restored from it.
    contents = {name: server.disks[name].content() for name in ("web-root.qcow2", "web-data.img")}
    server.all_operations_finished()
    sdk.delete_vault(vault_id=vault.id)
    wait_for("the deletion", lambda: vault.id not in sdk.ids("list_vault", "vaults"))
    replica = sdk.show_backup(backup_id=record.destination_backup_id).backup
    for number, name in enumerate(contents):
        server.disks[name].wreck(seed=80 + number)
    mappings = [{"backup_id": one.id, "volume_id": one.resource_id} for one in replica.children]
    wish = {"server_id": servers["web-1"]["id"], "mappings": mappings}
    sdk.restore_backup(backup_id=replica.id, body={"restore": wish})
    logs = sdk.list_op_logs(operation_type="restore", resource_id=servers["web-1"]["id"])
    latest = max(logs.operation_logs, key=lambda log: log.created_at)
    finish(server, sdk, latest.id)
    for name, content in contents.items():
        assert server.disks[name].content() == content, name


def test_synchronization(server, sdk):
    hybrid = make_vault(sdk, "hybrid", "vmware", terms={"cloud_type": "hybrid"})
    answer = sdk.import_checkpoint(body={"sync": {"vault_id": hybrid.id, "auto_trigger": False}}).sync
    assert answer.vault_id == hybrid.id
    log = finish(server, sdk, answer.operation_log_id)
    assert (log.operation_type, log.vault_id) == ("sync", hybrid.id)
    assert log.extra_info.sync.err_sync_backup_num == 0

    wish = {
        "backup_id": str(uuid.uuid4()), "backup_name": "from-elsewhere", "bucket_name": "bucket",
        "image_path": "path/to/backup", "created_at": 1548898428, "resource_id": str(uuid.uuid4()),
        "resource_name": "vm", "resource_type": "OS::Native::Server",
    }
    [answer] = sdk.import_backup(body={"sync": [wish]}).sync
    assert answer.backup_id == wish["backup_id"]
    # No bucket is known here: the task says so, and no backup comes of it.
    log = finish(server, sdk, answer.operation_log_id, status="failed")
    assert log.error_info.code.startswith("BackupService.64") and log.error_info.message
    assert wish["backup_id"] not in sdk.ids("list_backups", "backups")


def test_agents(server, sdk):
    agent_id = str(uuid.uuid4())
    agent = {
        "agent_id": agent_id, "host_name": "office-1", "host_ip": "192.0.2.7", "host_os": "Linux",
        "agent_version": "1.2.3", "agent_type": "native",
    }
    made = sdk.register_agent(body={"agent": agent}).agent
    assert (made.agent_id, made.status) == (agent_id, "normal")
    answer = sdk.add_agent_path(
        agent_id=agent_id,
        body={
            "add_path": ["/srv", "/home"],
            "exclude_path": [{"path_name": "/srv", "exclude_path_name": ["/srv/cache"]}],
        },
    )
    assert (sorted(answer.added), answer.existed) == (["/home", "/srv"], [])
    answer = sdk.add_agent_path(agent_id=agent_id, body={"add_path": ["/srv", "/opt"]})
    assert (answer.added, answer.existed) == (["/opt"], ["/srv"])
    shown = sdk.show_agent(agent_id=agent_id).agent
    paths = {one.dir_path: one.exclude_paths for one in shown.paths}
    assert paths.keys() == {"/srv", "/home", "/opt"}
    assert paths["/srv"] == "/srv/cache"
    answer = sdk.remove_agent_path(agent_id=agent_id, body={"remove_path": ["/opt", "/none"]})
    assert (answer.removed, answer.not_existed) == (["/opt"], ["/none"])

    listed = sdk.list_agent(agent_id=[agent_id, str(uuid.uuid4())], limit="10")
    assert [one.agent_id for one in listed.agents] == [agent_id]
    updated = sdk.update_agent(agent_id=agent_id, body={"agent": {"status": "uninstall"}}).agent
    assert updated.status == "uninstall"
    sdk.unregister_agent(agent_id=agent_id)
    assert sdk.list_agent(agent_id=[agent_id]).agents == []
    assert_gone("7410", sdk.show_agent, agent_id=agent_id)

    web = server.protectables("server")["web-1"]
    wish = {"resource_id": web["id"], "resource_type": SERVER, "resource_name": "web-1"}
    [status] = sdk.check_agent(body={"agent_status": [wish]}).agent_status
    assert (status.resource_id, status.installed) == (web["id"], False)


def test_features_and_lookups(server, sdk):
    known = server.credentials
    features = sdk.list_features().body
    assert features["replication.source_region"] == known["region"]
    assert isinstance(features["replication.enable"], bool)
    one = sdk.show_feature(feature_key="replication.enable").body
    assert one == {"replication.enable": features["replication.enable"]}

    started = sdk.migrate_domain(body={"all_regions": True, "reservation": 0.2}).body
    assert started == {known["region"]: "running"}

    def migrated():
        status = sdk.show_migrate_status(all_regions=True)
        assert status.status != "failed", status
        return status if status.status == "success" else None

    status = wait_for("the migration", migrated)
    assert {one.region_id for one in status.project_status} <= {known["region"]}

    domain = sdk.show_domain(source_project_id=known["project_id"])
    assert (domain.domain_id, domain.domain_name) == (known["domain_id"], known["domain_name"])
    assert (domain.project_id, domain.project_name) == (known["project_id"], known["project_name"])
    projects = sdk.list_domain_projects(domain_name=known["domain_name"]).projects
    assert known["project_id"] in [one.project_id for one in projects]
    projects = sdk.list_projects().projects
    assert known["project_id"] in [one.id for one in projects]


def test_orders(sdk):
    vault = {
        "name": "ordered",
        "billing": billing("disk", charging_mode="pre_paid", period_type="month", period_num=1, is_auto_pay=True),
        "resources": [],
    }
    answer = sdk.create_post_paid_vault(body={"vault": vault})
    [order] = answer.orders
    assert (answer.error_code, answer.ret_code, order.subscribe_result) == ("0", 0, 1)
    shown = sdk.show_vault(vault_id=order.resource_id).vault
    assert (shown.name, shown.billing.size) == ("ordered", 100)
    assert (shown.billing.charging_mode, shown.billing.order_id) == ("pre_paid", order.order_id)

    product = {
        "product_id": "cbr", "resource_size": 150, "resource_size_measure_id": 17,
        "resource_spec_code": "vault.backup.volume.normal",
    }
    changed = sdk.change_order(
        body={"resource_id": order.resource_id, "product_info": product, "is_auto_pay": True}
    )
    assert (changed.ret_code, changed.ret_msg) == (0, "success") and changed.order_id
    assert sdk.show_vault(vault_id=order.resource_id).vault.billing.size == 150
    updated = sdk.update_order(
        order_id=order.order_id,
        body={"resource_id": order.resource_id, "product_info": {**product, "resource_size": 180}},
    )
    assert (updated.ret_code, updated.ret_msg) == ("0", "success")
    assert sdk.show_vault(vault_id=order.resource_id).vault.billing.size == 180

    other = make_vault(sdk, "by-use")
    assert sdk.show_vault(vault_id=other.id).vault.billing.charging_mode == "post_paid"
    terms = {
        "charging_mode": "pre_paid", "period_type": "year", "period_num": 1, "is_auto_renew": False,
        "is_auto_pay": True, "vault_ids": [other.id],
    }
    changed = sdk.change_vault_charge_mode(body=terms)
    assert (changed.ret_code, changed.ret_msg) == (0, "success")
    assert sdk.show_vault(vault_id=other.id).vault.billing.charging_mode == "pre_paid"


def test_every_operation_of_the_sdk_succeeded(server):
    assert len(OPERATIONS) == 74
    assert server.succeeded == OPERATIONS
