"""A signed request that was tampered with is refused, in every way that has a name here.

Each way begins with a request that is signed as it should be. The tampered one is
sent first and must be refused and change nothing; then the untouched one, which
must succeed, so that it is the tampering that was refused; then the tampered one
again, because a request that was answered before may be treated otherwise.
"""

import copy
import json
from datetime import datetime, timezone

import pytest
from harness import ago
from signature_ways import HARMLESS, STAMP, WAYS, Message


class World:
    """The requests that are tampered with, and all that they could change."""

    def __init__(self, server):
        self.server = server
        self.stranger = server.create_project("stranger")
        self.disk = server.protectables("disk")["disk.img"]
        self.vault = server.create_vault("first", "disk", [self.disk])
        self.other_vault = server.create_vault("other", "disk")
        self.listed = server.create_vault("kept", "disk")
        self.number = 0

    def message(self, method, path, query="", body=None):
        data = b"" if body is None else json.dumps(body).encode()
        headers = [
            ("host", f"127.0.0.1:{self.server.port}"),
            ("content-type", "application/json"),
            ("x-project-id", self.server.project),
            ("x-sdk-date", datetime.now(timezone.utc).strftime(STAMP)),
        ]
        known = self.server.credentials
        keys = known["access_key"], known["secret_key"]
        path = f"/v3/{self.server.project}{path}"
        return Message(method, path, query, data, headers, *keys).sign()

    def create(self):
        """Makes a vault."""
        self.number += 1
        billing = {
            "object_type": "disk", "protect_type": "backup", "size": 10,
            "consistent_level": "crash_consistent", "charging_mode": "post_paid",
        }
        vault = {"name": f"vault-{self.number}", "billing": billing, "resources": []}
        return self.message("POST", "/vaults", body={"vault": vault})

    def rename(self):
        """Changes a vault by the id in the path."""
        self.number += 1
        body = {"vault": {"name": f"renamed-{self.number}"}}
        return self.message("PUT", f"/vaults/{self.vault}", body=body)

    def list(self):
        """Asks with a query of several keys."""
        return self.message("GET", "/vaults", query="limit=10&name=kept&offset=0")

    def seek(self):
        """Asks for a name with signs that queries have their own way of writing."""
        return self.message("GET", "/backups", query="resource_name=a%2Bb%20c%25d&limit=10")

    def state(self):
        """All that a tampered request could have changed, in both projects."""
        seen = [self.server.ok("GET", "/vaults"), self.server.ok("GET", "/operation-logs")]
        theirs = {name: self.stranger[name] for name in ("access_key", "secret_key")}
        project = self.stranger["project_id"]
        seen.append(self.server.ok("GET", "/vaults", sign=theirs, project=project))
        return seen


@pytest.fixture(scope="module", name="world")
def fixture_world(lab):
    return World(lab)


def kept_secret(body, world):
    """An answer that refuses tells nothing of what was asked for."""
    text = body.decode(errors="replace")
    secrets = [world.vault, world.listed, world.server.credentials["secret_key"]]
    return not any(secret in text for secret in secrets)


def assert_refused(message, world, name):
    status, body = message.send(world.server.port)
    assert status in (400, 401, 403, 404, 405, 431), f"{name}: {status} {body[:300]!r}"
    assert kept_secret(body, world), f"{name}: {body[:300]!r}"


def test_there_are_enough_ways():
    assert len(WAYS) >= 60


@pytest.mark.parametrize("name", WAYS)
def test_a_tampered_request_is_refused(world, name):
    base, tamper = WAYS[name]
    untouched = getattr(world, base)()
    tampered = tamper(copy.deepcopy(untouched), world)
    assert tampered != untouched, "nothing was tampered with"

    before = world.state()
    assert_refused(tampered, world, name)
    assert world.state() == before
    status, body = untouched.send(world.server.port)
    assert status == 200, body
    after = world.state()
    assert (after == before) == (base in ("list", "seek"))
    assert_refused(tampered, world, name)
    assert world.state() == after


@pytest.mark.parametrize("name", HARMLESS)
def test_a_harmless_variation_is_accepted(world, name):
    base, change = HARMLESS[name]
    untouched = getattr(world, base)()
    changed = change(copy.deepcopy(untouched), world)
    assert changed != untouched, "nothing was changed"
    before = world.state()
    status, body = changed.send(world.server.port)
    assert status == 200, f"{name}: {status} {body!r}"
    if base == "create":
        assert json.loads(body)["vault"]["id"] in {one["id"] for one in world.state()[0]["vaults"]}
    else:
        assert (status, body) == untouched.send(world.server.port)
        assert world.state() == before


def test_a_header_that_names_another_method_is_not_heard(world):
    """The method that was signed is the one that is done."""
    message = world.message("GET", f"/vaults/{world.vault}")
    for name in ("x-http-method-override", "x-method-override", "x-http-method"):
        message.add(name, "DELETE")
    before = world.state()
    status, body = message.send(world.server.port)
    assert (status, json.loads(body)["vault"]["id"]) == (200, world.vault)
    assert world.state() == before


def test_the_same_signed_request_again_gets_the_first_answer(world):
    """A retry of a request whose answer was lost on the way does nothing twice."""
    message = world.create()
    first = message.send(world.server.port)
    assert first[0] == 200, first
    state = world.state()
    assert message.send(world.server.port) == first
    assert world.state() == state
    # Signed anew it is a new wish, though the same in every other part.
    again = message.date(ago(seconds=5).strftime(STAMP))
    status, body = again.send(world.server.port)
    assert status == 200
    assert json.loads(body)["vault"]["id"] != json.loads(first[1])["vault"]["id"]
