"""Users with roles, the audit trail, and what it shows of those who tamper with it."""

import json
import re

import pytest
import requests
from harness import CAIRN, Server, run


@pytest.fixture(name="server")
def fixture_server(tmp_path):
    with Server(tmp_path) as server:
        yield server


def cairn(server, *arguments, check=True):
    return run(CAIRN, *arguments, "--data-dir", server.data, check=check)


def head_of(server, *arguments):
    """The head that a good trail has."""
    return re.search(r"head ([0-9a-f]{64})", cairn(server, "audit", "verify", *arguments).stdout)[1]


def traces(server):
    lines = (server.data / "audit/000001.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["trace"] for line in lines]


def token_of(server, user):
    body = {"auth": {
        "identity": {"methods": ["password"], "password": {"user": {
            "name": user["user_name"], "password": user["password"],
            "domain": {"name": user["domain_name"]},
        }}},
        "scope": {"project": {"id": server.credentials["project_id"]}},
    }}
    answer = requests.post(f"{server.endpoint}/v3/auth/tokens", json=body, timeout=60)
    assert answer.status_code == 201, answer.text
    return answer.headers["X-Subject-Token"]


def make_vault(server, user, name):
    billing = {
        "object_type": "disk", "protect_type": "backup", "size": 10,
        "consistent_level": "crash_consistent",
    }
    return requests.post(
        f"{server.endpoint}/v3/{server.credentials['project_id']}/vaults",
        json={"vault": {"name": name, "billing": billing, "resources": []}},
        headers={"X-Auth-Token": token_of(server, user)}, timeout=60,
    )


def test_a_role_is_given_changed_and_leaves_its_traces(server):
    made = cairn(server, "project", "add-user", "cairn-1", "reader", "--role", "read-only")
    reader = json.loads(made.stdout)
    assert make_vault(server, reader, "refused").status_code == 403
    cairn(server, "project", "grant", server.credentials["project_id"], "reader", "--role", "full")
    vault = make_vault(server, reader, "made").json()["vault"]["id"]

    told = [(t["trace_name"], t["stage"], t["status"]) for t in traces(server)]
    assert told == [
        ("createUser", "asked", None), ("createUser", "answered", 200),
        ("createVault", "asked", None), ("createVault", "answered", 403),
        ("grantRole", "asked", None), ("grantRole", "answered", 200),
        ("createVault", "asked", None), ("createVault", "answered", 200),
    ]
    last = traces(server)[-1]
    assert last["resource_id"] == vault
    assert last["source_ip"] == "127.0.0.1"

    for arguments in (
        ["add-user", "cairn-1", "reader", "--role", "full"],
        ["add-user", "cairn-1", "", "--role", "full"],
        ["add-user", "cairn-1", "a\nb", "--role", "full"],
        ["add-user", "nowhere", "other", "--role", "full"],
        ["grant", "cairn-1", "nobody", "--role", "full"],
        ["create", "../other"],
    ):
        assert cairn(server, "project", *arguments, check=False).returncode != 0, arguments


def test_a_trail_shows_that_it_was_changed(server):
    for number in range(3):
        assert make_vault(server, server.credentials, f"vault-{number}").status_code == 200
    kept = head_of(server)
    assert make_vault(server, server.credentials, "one-more").status_code == 200
    assert head_of(server, "--head", kept) != kept

    # A server that was killed in the midst of a line goes on behind the last whole one.
    server.kill()
    file = server.data / "audit/000001.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])
    assert "never finished" in cairn(server, "audit", "verify").stdout
    server.start()
    assert make_vault(server, server.credentials, "after").status_code == 200
    assert head_of(server, "--head", kept)
    server.stop()

    lines = whole.splitlines(keepends=True)
    for name, changed in {
        "a word is changed": [lines[0].replace(b"createVault", b"deleteVault"), *lines[1:]],
        "a line is missing": [*lines[:1], *lines[2:]],
        "two lines have changed places": [lines[1], lines[0], *lines[2:]],
        "the newest lines are missing": lines[:2],
        "everything is missing": [],
    }.items():
        file.write_bytes(b"".join(changed))
        checked = cairn(server, "audit", "verify", "--head", kept, check=False)
        assert checked.returncode != 0, name
        assert "cairn:" in checked.stderr, name
