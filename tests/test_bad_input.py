"""Bad requests get a clear error of the contract, and change nothing."""

import contextlib
import json
import re
import socket

import pytest
import requests
from harness import CAIRN, MIB, Disk, Server, ago, run

UNKNOWN = "00000000-0000-4000-8000-000000000000"


@pytest.fixture(scope="module", name="world")
def fixture_world(lab):
    """A vault with one backup of a disk."""
    lab.disk = lab.protectables("disk")["disk.img"]
    lab.vault = lab.create_vault("main", "disk", [lab.disk])
    lab.backup = lab.back_up(lab.vault, "kept")
    lab.all_operations_finished()
    return lab


def state(server):
    """All that a bad request could have changed."""
    seen = {
        "vaults": server.ok("GET", "/vaults"),
        "backups": server.ok("GET", "/backups"),
        "operation logs": server.ok("GET", "/operation-logs"),
        "disk": server.disks["disk.img"].digest(),
    }
    return json.dumps(seen, sort_keys=True)


def assert_refused(answer, status, code):
    """An error as the contract has it."""
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert body["error_code"] == code, body
    assert isinstance(body["error_msg"], str) and body["error_msg"]
    assert re.fullmatch(r"req-[0-9a-f-]{36}", answer.headers["X-Request-Id"])
    for inside in ("panicked", "/work", "/tmp", ".rs:", "sqlite", "SELECT"):
        assert inside not in answer.text, "an error tells of the inside"


def vault(resources=(), **changes):
    """The body that makes a vault, with some values changed; `...` leaves one out."""
    billing = {
        "object_type": "disk", "protect_type": "backup", "size": 100,
        "consistent_level": "crash_consistent", "charging_mode": "post_paid",
    }
    body = {"name": "other", "billing": billing, "resources": list(resources)}
    for key, value in changes.items():
        place = billing if key in billing else body
        place[key] = value
        if value is ...:
            del place[key]
    return {"vault": body}


def disk(server, **changes):
    return {"id": server.disk["id"], "type": "OS::Cinder::Volume", **changes}


def checkpoint(server, **parameters):
    return {"checkpoint": {"vault_id": server.vault, "parameters": parameters}}


CASES = {
    "vault: no body": (lambda s: ("POST", "/vaults", None), 400, "9900"),
    "vault: empty object": (lambda s: ("POST", "/vaults", {}), 400, "9900"),
    "vault: wrong type": (lambda s: ("POST", "/vaults", {"vault": [1]}), 400, "9900"),
    "vault: no name": (lambda s: ("POST", "/vaults", vault(name=...)), 400, "9900"),
    "vault: empty name": (lambda s: ("POST", "/vaults", vault(name="")), 400, "9900"),
    "vault: bad name": (lambda s: ("POST", "/vaults", vault(name="a b")), 400, "9900"),
    "vault: script": (lambda s: ("POST", "/vaults", vault(name="<b>")), 400, "9900"),
    "vault: long name": (lambda s: ("POST", "/vaults", vault(name="a" * 65)), 400, "9900"),
    "vault: description": (lambda s: ("POST", "/vaults", vault(description="<b>")), 400, "9900"),
    "vault: too small": (lambda s: ("POST", "/vaults", vault(size=9)), 400, "9900"),
    "vault: too large": (lambda s: ("POST", "/vaults", vault(size=10485761)), 400, "9900"),
    "vault: text for size": (lambda s: ("POST", "/vaults", vault(size="big")), 400, "9900"),
    "vault: odd type": (lambda s: ("POST", "/vaults", vault(object_type="tape")), 400, "9900"),
    "vault: unknown resource": (
        lambda s: ("POST", "/vaults", vault([disk(s, id=UNKNOWN)])), 404, "6302"),
    "vault: resource of another vault": (
        lambda s: ("POST", "/vaults", vault([disk(s)])), 400, "6103"),
    "vault: resource of another type": (
        lambda s: ("POST", "/vaults", vault([disk(s)], object_type="server")), 400, "6102"),
    "vault: shown, unknown": (lambda s: ("GET", f"/vaults/{UNKNOWN}", None), 404, "6105"),
    "vault: shown, no id": (lambda s: ("GET", "/vaults/main", None), 400, "9900"),
    "vault: changed, unknown": (
        lambda s: ("PUT", f"/vaults/{UNKNOWN}", {"vault": {"name": "x"}}), 404, "6105"),
    "vault: renamed badly": (
        lambda s: ("PUT", f"/vaults/{s.vault}", {"vault": {"name": "x/y"}}), 400, "9900"),
    "vault: deleted, unknown": (lambda s: ("DELETE", f"/vaults/{UNKNOWN}", None), 404, "6105"),
    "resources: twice": (
        lambda s: ("POST", f"/vaults/{s.vault}/addresources", {"resources": [disk(s), disk(s)]}),
        400, "6104"),
    "resources: none": (
        lambda s: ("POST", f"/vaults/{s.vault}/addresources", {"resources": []}), 400, "9900"),
    "resources: 257": (
        lambda s: ("POST", f"/vaults/{s.vault}/addresources", {"resources": [disk(s)] * 257}),
        400, "9900"),
    "resources: not protectable": (
        lambda s: ("POST", f"/vaults/{s.vault}/addresources", {"resources": [disk(s, id=UNKNOWN)]}),
        404, "6302"),
    "resources: removed, not in it": (
        lambda s: ("POST", f"/vaults/{s.vault}/removeresources", {"resource_ids": [UNKNOWN]}),
        400, "6135"),
    "checkpoint: unknown vault": (
        lambda s: ("POST", "/checkpoints", {"checkpoint": {"vault_id": UNKNOWN}}), 404, "6105"),
    "checkpoint: no vault": (lambda s: ("POST", "/checkpoints", {"checkpoint": {}}), 400, "9900"),
    "checkpoint: bad name": (
        lambda s: ("POST", "/checkpoints", checkpoint(s, name="a b")), 400, "9900"),
    "checkpoint: foreign resource": (
        lambda s: ("POST", "/checkpoints", checkpoint(s, resources=[UNKNOWN])), 400, "6135"),
    "checkpoint: shown, unknown": (lambda s: ("GET", f"/checkpoints/{UNKNOWN}", None), 404, "6217"),
    "backup: shown, unknown": (lambda s: ("GET", f"/backups/{UNKNOWN}", None), 404, "6200"),
    "backup: deleted, unknown": (lambda s: ("DELETE", f"/backups/{UNKNOWN}", None), 404, "6200"),
    "backup: renamed badly": (
        lambda s: ("PUT", f"/backups/{s.backup['id']}", {"backup": {"name": "<>"}}), 400, "9900"),
    "restore: unknown": (
        lambda s: ("POST", f"/backups/{UNKNOWN}/restore", {"restore": {"volume_id": UNKNOWN}}),
        404, "6200"),
    "restore: nowhere": (
        lambda s: ("POST", f"/backups/{s.backup['id']}/restore", {"restore": {}}), 400, "9900"),
    "restore: elsewhere": (
        lambda s: ("POST", f"/backups/{s.backup['id']}/restore",
                   {"restore": {"volume_id": s.protectables("disk")["web-data.img"]["id"]}}),
        400, "2003"),
    "operation log: unknown": (lambda s: ("GET", f"/operation-logs/{UNKNOWN}", None), 404, "6500"),
    "list: limit 0": (lambda s: ("GET", "/backups?limit=0", None), 400, "9900"),
    "list: limit 1001": (lambda s: ("GET", "/backups?limit=1001", None), 400, "9900"),
    "list: negative offset": (lambda s: ("GET", "/vaults?offset=-1", None), 400, "9900"),
    "list: odd status": (lambda s: ("GET", "/backups?status=fine", None), 400, "9900"),
    "list: odd sort": (lambda s: ("GET", "/backups?sort=colour", None), 400, "9900"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_bad_request_is_refused(world, case):
    make, status, code = CASES[case]
    before = state(world)
    method, path, body = make(world)
    assert_refused(world.call(method, path, body), status, f"BackupService.{code}")
    assert state(world) == before


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"null", b"[]", b'"', b"\xff\xfe", b'{"vault":', b"{'vault': 1}", b"[" * 100_000,
     b'{"vault":{"name":"a","name":"b"}}'],
    ids=lambda raw: repr(raw[:20]),
)
def test_what_is_no_json_is_refused(world, raw):
    before = state(world)
    assert_refused(world.call("POST", "/vaults", raw=raw), 400, "BackupService.9900")
    assert state(world) == before


def test_a_body_of_any_size_is_survived(world):
    answer = world.call("POST", "/vaults", raw=b" " * (20 * MIB))
    assert 400 <= answer.status_code < 500
    assert answer.json()["error_code"]
    assert world.is_ready()


def new_vault(world, **sign):
    """A request that would make a vault, signed in some way."""
    return world.call("POST", "/vaults", vault(name="forged"), sign=sign)


def test_a_wrong_signature_is_refused(world):
    before = state(world)
    other = json.dumps(vault(name="harmless")).encode()
    for sign in (
        {"secret_key": "wrong" * 8},
        {"access_key": "NOBODYNOBODYNOBODY00"},
        {"at": ago(minutes=16)},
        {"at": ago(minutes=-16)},
        {"signed_data": other},
        {"signed_path": f"/v3/{world.project}/backups"},
    ):
        assert_refused(new_vault(world, **sign), 401, "APIGW.0301")
    assert state(world) == before


def test_a_signature_without_its_parts_is_refused(world):
    url = f"/v3/{world.project}/vaults"
    good = world.signature("GET", url, "", b"")
    for broken in (
        {"authorization": ""},
        {"authorization": "SDK-HMAC-SHA256"},
        {"authorization": good["authorization"].replace("SDK-HMAC-SHA256", "SDK-SM3")},
        {"authorization": good["authorization"][:-8]},
        {"authorization": good["authorization"].replace("x-sdk-date", "x-other-date")},
        {"authorization": good["authorization"].replace("host;", "")},
        {"x-sdk-date": "yesterday"},
        {"x-sdk-date": "99999999T999999Z"},
        {"x-auth-token": "not-a-token", "authorization": ""},
    ):
        answer = world.call("GET", "/vaults", headers=broken)
        assert_refused(answer, 401, "APIGW.0301")
    assert world.call("GET", "/vaults").status_code == 200


def test_a_recorded_request_cannot_carry_another_body(world):
    """The headers of a request that was seen, with a body of the thief's."""
    seen = json.dumps(vault(name="seen")).encode()
    mine = json.dumps(vault(name="stolen")).encode()
    before = state(world)
    answer = world.call("POST", "/vaults", raw=mine, sign={"signed_data": seen})
    assert_refused(answer, 401, "APIGW.0301")
    assert state(world) == before


def test_a_project_that_does_not_exist_is_as_one_of_others(world, stranger):
    before = state(world)
    token = {"X-Auth-Token": world.token(), "authorization": ""}
    for project in ("f" * 32, stranger["project_id"]):
        for headers in ({}, token):
            answer = world.call("GET", "/vaults", project=project, headers=headers)
            assert_refused(answer, 403, "APIGW.0302")
    assert world.call("GET", "/vaults", headers=token).status_code == 200
    assert state(world) == before


@pytest.fixture(scope="module", name="stranger")
def fixture_stranger(world):
    """The credentials of another project on the same server."""
    made = run(
        CAIRN, "project", "create", "stranger", "--config", world.config, "--data-dir", world.data
    )
    return json.loads(made.stdout)


def test_the_ids_of_another_project_are_as_unknown_ones(world, stranger):
    keys = {key: stranger[key] for key in ("access_key", "secret_key")}
    before = state(world)
    log = world.ok("GET", "/operation-logs")["operation_logs"][0]["id"]
    backup = world.backup["id"]
    restore = {"restore": {"volume_id": world.disk["id"]}}
    for method, path, body, code in (
        ("GET", f"/vaults/{world.vault}", None, "6105"),
        ("PUT", f"/vaults/{world.vault}", {"vault": {"name": "mine"}}, "6105"),
        ("DELETE", f"/vaults/{world.vault}", None, "6105"),
        ("POST", f"/vaults/{world.vault}/addresources", {"resources": [disk(world)]}, "6105"),
        ("POST", f"/vaults/{world.vault}/removeresources", {"resource_ids": [world.disk["id"]]}, "6105"),
        ("POST", "/checkpoints", checkpoint(world), "6105"),
        ("GET", f"/checkpoints/{world.backup['checkpoint_id']}", None, "6217"),
        ("GET", f"/backups/{backup}", None, "6200"),
        ("PUT", f"/backups/{backup}", {"backup": {"name": "mine"}}, "6200"),
        ("DELETE", f"/backups/{backup}", None, "6200"),
        ("POST", f"/backups/{backup}/restore", restore, "6200"),
        ("GET", f"/operation-logs/{log}", None, "6500"),
        ("POST", "/vaults", vault([disk(world)]), "6302"),
    ):
        answer = world.call(method, path, body, sign=keys, project=stranger["project_id"])
        assert_refused(answer, 404, f"BackupService.{code}")
        # And there is no way in through the owner's project either.
        answer = world.call(method, path, body, sign=keys)
        assert_refused(answer, 403, "APIGW.0302")
    for path in ("/vaults", "/backups", "/operation-logs", "/protectables/disk/instances"):
        listed = world.ok("GET", path, sign=keys, project=stranger["project_id"])
        [rows] = [value for value in listed.values() if isinstance(value, list)]
        assert rows == [], path
    assert state(world) == before


def test_a_vault_too_small_for_its_resources_is_refused(tmp_path):
    Disk(tmp_path / "images/large.img").create(0, seed=1)
    with open(tmp_path / "images/large.img", "r+b") as file:
        file.truncate(41 << 30)
    with Server(tmp_path) as server:
        large = server.protectables("disk")["large.img"]
        resource = {"id": large["id"], "type": "OS::Cinder::Volume"}
        answer = server.call("POST", "/vaults", vault([resource], size=40))
        assert_refused(answer, 400, "BackupService.6101")
        assert server.ok("GET", "/vaults")["count"] == 0
        fits = server.ok("POST", "/vaults", vault([resource], size=41))["vault"]["id"]
        shrink = {"vault": {"billing": {"size": 40}}}
        answer = server.call("PUT", f"/vaults/{fits}", shrink)
        assert_refused(answer, 400, "BackupService.6101")
        empty = server.create_vault("empty", "disk", size=10)
        web = server.call("POST", f"/vaults/{empty}/addresources", {"resources": [resource]})
        assert web.status_code == 400, web.text


def test_requests_that_never_arrive_take_nobodys_place(lab):
    head = b"POST /v3/auth/tokens HTTP/1.1\r\nHost: cairn\r\nContent-Length: 1000\r\n\r\n{"
    with contextlib.ExitStack() as stack:
        for _ in range(600):
            waiting = socket.create_connection(("127.0.0.1", lab.port), timeout=60)
            stack.enter_context(waiting)
            waiting.sendall(head)
        assert requests.get(lab.endpoint, timeout=20).status_code == 300
        waiting.settimeout(60)
        assert waiting.recv(64).startswith(b"HTTP/1.1 408 "), "it is told so"
