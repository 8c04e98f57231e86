"""The `[quotas]` of the configuration: what is over one is refused, and nothing is changed."""

import uuid

import pytest
from harness import CONFIG, MIB, Disk, Server

QUOTAS = """
[quotas]
vaults = 2
policies_per_type = 1
resources_per_vault = 1
tags_per_vault = 1
members_per_backup = 1
paths_per_agent = 1
"""


@pytest.fixture(name="server", scope="module")
def fixture_server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quotas")
    for seed, name in enumerate(("one.img", "two.img")):
        Disk(folder / "images" / name).create(MIB, seed=seed)
    with Server(folder, CONFIG + QUOTAS) as server:
        yield server


def refused(answer, code):
    assert answer.status_code == 400, answer.text
    assert answer.json()["error_code"] == f"BackupService.{code}"


def volume(disk):
    return {"id": disk["id"], "type": "OS::Cinder::Volume", "name": disk["name"]}


def vault_body(resources=()):
    billing = {
        "object_type": "disk", "protect_type": "backup", "size": 10,
        "consistent_level": "crash_consistent", "charging_mode": "post_paid",
    }
    return {"vault": {"name": "disks", "billing": billing, "resources": list(resources)}}


def test_vaults_their_resources_and_their_tags(server):
    disks = server.protectables()
    one, two = volume(disks["one.img"]), volume(disks["two.img"])
    refused(server.call("POST", "/vaults", vault_body([one, two])), "6100")
    first = server.create_vault("first", "disk", [disks["one.img"]])
    refused(server.call("POST", f"/vaults/{first}/addresources", {"resources": [two]}), "6100")
    server.create_vault("second", "disk", [disks["two.img"]])
    refused(server.call("POST", "/vaults", vault_body()), "6133")
    assert server.ok("GET", "/vaults")["count"] == 2

    tags = [{"key": "a", "value": "1"}, {"key": "b", "value": "2"}]
    body = {"action": "create", "tags": tags}
    refused(server.call("POST", f"/vault/{first}/tags/action", body), "6600")
    server.ok("POST", f"/vault/{first}/tags/action", {**body, "tags": tags[:1]})

    backup = server.back_up(first)
    members = [server.create_project(name)["project_id"] for name in ("north", "south")]
    shared = server.call("POST", f"/backups/{backup['id']}/members", {"members": members})
    refused(shared, "6701")
    server.ok("POST", f"/backups/{backup['id']}/members", {"members": members[:1]})


def test_policies_and_the_paths_of_an_agent(server):
    body = {
        "policy": {
            "name": "nightly", "operation_type": "backup", "enabled": True,
            "operation_definition": {"retention_duration_days": 7, "timezone": "UTC+00:00"},
            "trigger": {"properties": {"pattern": ["FREQ=DAILY;INTERVAL=1;BYHOUR=2;BYMINUTE=0"]}},
        }
    }
    server.ok("POST", "/policies", body)
    refused(server.call("POST", "/policies", body), "6001")

    agent = str(uuid.uuid4())
    known = {
        "agent_id": agent, "host_name": "host-1", "host_ip": "192.168.0.2", "host_os": "linux",
        "agent_version": "1.0.0", "agent_type": "native",
    }
    server.ok("POST", "/agents", {"agent": known})
    paths = {"add_path": ["/etc", "/srv"]}
    refused(server.call("POST", f"/agents/{agent}/add-path", paths), "7407")
    server.ok("POST", f"/agents/{agent}/add-path", {"add_path": ["/etc"]})
