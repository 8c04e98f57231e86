"""Five thousand generated requests, good ones and bad ones, made from our own description.

None may be answered by a fault of the server, by anything that the description does
not have, or late. Two thirds of them name what exists, and half of these have words that the contract
allows where the description asks for any text, so that more than refusals is tried.
The requests are the same each time; `CAIRN_SCHEMATHESIS_SEED` makes others.
"""

import os
import uuid
from collections import Counter

import hypothesis
import pytest
import requests
import schemathesis
from harness import PATIENCE_S, Disk, Server
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import checks

SEED = int(os.environ.get("CAIRN_SCHEMATHESIS_SEED", "20261122"))
REQUESTS = 5000
LATE_S = 1.0
# Rounds with new seeds until there are enough: some operations have few different requests.
ROUNDS = 40

# How much of a generated request is made up.
MADE_UP, KNOWN_IDS, KNOWN_WORDS = "made up", "known ids", "known words"
HOW = [MADE_UP, KNOWN_IDS, KNOWN_WORDS]
PATTERN = "FREQ=DAILY;INTERVAL=1;BYHOUR=02;BYMINUTE=00"
BILLING = {
    "object_type": "disk", "protect_type": "backup", "size": 10,
    "consistent_level": "crash_consistent", "charging_mode": "post_paid",
}
WORDS = {
    "name": "fuzzed", "policy_name": "fuzzed", "host_name": "fuzzed", "host_ip": "192.0.2.1",
    "host_os": "Linux", "agent_version": "1.0.0", "description": "fuzzed", "billing": BILLING,
    "resources": [], "tags": [{"key": "a", "value": "b"}], "tag": {"key": "a", "value": "b"},
    "bind_rules": {"tags": []}, "trigger": {"properties": {"pattern": [PATTERN]}},
    "policy_trigger": {"properties": {"pattern": [PATTERN]}},
    "operation_definition": {"max_backups": 3}, "policy_operation_definition": {"max_backups": 3},
    "add_path": ["/srv"], "exclude_path": [], "remove_path": ["/srv"], "time_zone": "UTC+00:00",
    "mail": {"addresses": ["fuzzed@example.com"]}, "webhook": None, "events": ["backup_failed"],
    "expect_expiration_date": "2099-01-31", "enterprise_project_id": "0", "effective_scope": "",
}

def words(*names):
    return {name: WORDS[name] for name in names}


AGENT = {"agent_id": str(uuid.UUID(int=1)), **words("host_name", "host_ip", "host_os")}
POLICY = {
    "enabled": False, "operation_type": "backup", **words("name", "operation_definition", "trigger"),
}
TARGET = {"name": "fuzzed", "mail": WORDS["mail"]}
POLICY_OF_ALL = {
    "policy_enabled": False, "operation_type": "backup",
    **words("name", "policy_name", "policy_operation_definition", "policy_trigger"),
}

CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]


# Disks to protect: a new one whenever the generated requests have spoiled what there was.
DISKS = 200
CONFIG = '[[source]]\nkind = "images"\nname = "lab"\npath = "images"\n'


@pytest.fixture(scope="module", name="world")
def fixture_world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("schemathesis")
    for number in range(DISKS):
        Disk(folder / f"images/disk-{number:03}.img").create(65536, seed=number, share=1)
    with Server(folder, CONFIG) as server:
        yield World(server)


class World:
    """Things of each kind that requests can name, and what came of those requests."""

    def __init__(self, server):
        self.server = server
        document = requests.get(f"{server.endpoint}/openapi.json", timeout=PATIENCE_S)
        assert document.status_code == 200, document.text
        self.schema = schemathesis.openapi.from_dict(document.json())
        self.session = requests.Session()
        self.session.headers["X-Auth-Token"] = server.token()
        self.disks = iter(self.every_disk())
        self.disk = self.backup = self.target = None
        self.partner = server.create_project("partner")["project_id"]
        self.known = {}
        self.failures = {}
        self.asked = Counter()
        self.answered = Counter()
        self.worked = set()

    def every_disk(self):
        found, marker = [], ""
        while page := self.server.ok("GET", f"/protectables/disk/instances?limit=50{marker}")["instances"]:
            found += page
            marker = f"&marker={page[-1]['id']}"
        assert len(found) == DISKS
        return found

    def refill(self):
        """Makes what is missing, and learns its ids."""
        server = self.server
        server.all_operations_finished()
        if not self.is_whole():
            # Nothing was done to this one yet.
            self.disk = next(self.disks)
            vault = server.create_vault("fuzzed", "disk", [self.disk])
            self.target = server.create_vault("target", "disk")
            self.backup = server.back_up(vault, "fuzzed")
        disk, backup = self.disk, self.backup
        policies = server.ok("GET", "/policies")["policies"]
        own = [one for one in policies if one["policy_type"] == "custom_policy"]
        if not own:
            own = [server.ok("POST", "/policies", {"policy": POLICY})["policy"]]
        of_all = server.ok("GET", "/organization-policies?operation_type=backup")["policies"]
        if not of_all:
            body = {"policy": POLICY_OF_ALL}
            of_all = [server.ok("POST", "/organization-policies", body)["policy"]]
        if not server.ok("GET", f"/agents?agent_id={AGENT['agent_id']}")["agents"]:
            server.ok("POST", "/agents", {"agent": AGENT})
        server.ok("POST", f"/vault/{backup['vault_id']}/tags", {"tag": WORDS["tag"]})
        members = server.ok("GET", f"/backups/{backup['id']}/members")["members"]
        if not members:
            server.ok("POST", f"/backups/{backup['id']}/members", {"members": [self.partner]})
        logs = server.ok("GET", "/operation-logs?limit=1")["operation_logs"]
        self.known = {
            "project_id": server.project,
            "source_project_id": server.project,
            "destination_project_id": server.project,
            "domain_name": server.credentials["domain_name"],
            "destination_region": server.credentials["region"],
            "vault_id": backup["vault_id"],
            "destination_vault_id": self.target,
            "backup_id": backup["id"],
            "checkpoint_id": backup["checkpoint_id"],
            "operation_log_id": logs[0]["id"],
            "policy_id": own[0]["id"],
            "organization_policy_id": of_all[0]["id"],
            "member_id": self.partner,
            "members": [self.partner],
            "key": WORDS["tag"]["key"],
            "resource_id": disk["id"],
            "instance_id": disk["id"],
            "volume_id": disk["id"],
            "resource_ids": [disk["id"]],
            "vault_ids": [backup["vault_id"]],
            "protectable_type": "disk",
            "feature_key": "replication.enable",
            "agent_id": AGENT["agent_id"],
            **self.notifications(),
            "export_id": self.export(backup),
        }

    def notifications(self):
        """A target, which nothing is ever sent to, and something that it was told."""
        server = self.server
        targets = server.ok("GET", "/notification-targets")["notification_targets"]
        if not targets:
            body = {"notification_target": TARGET}
            targets = [server.ok("POST", "/notification-targets", body)["notification_target"]]
        told = server.ok("GET", "/notifications?limit=1")["notifications"]
        if not told:
            path = f"/notification-targets/{targets[0]['id']}/test"
            told = [server.ok("POST", path)["notification"]]
        return {"target_id": targets[0]["id"], "notification_id": told[0]["id"]}

    def export(self, backup):
        """An export, and never so many that there can be no other."""
        exports = self.server.ok("GET", "/exports")["exports"]
        for one in exports[1:]:
            self.server.call("DELETE", f"/exports/{one['id']}")
        if not exports:
            path = f"/backups/{backup['id']}/exports"
            exports = [self.server.ok("POST", path, {"export": {}})["export"]]
        return exports[0]["id"]

    def is_whole(self):
        """Whether the vault still protects the disk, and its backup can be used."""
        if self.backup is None:
            return False
        shown = self.server.call("GET", f"/backups/{self.backup['id']}")
        if shown.status_code != 200 or shown.json()["backup"]["status"] != "available":
            return False
        vault = self.server.ok("GET", f"/vaults/{self.backup['vault_id']}")["vault"]
        return [one["id"] for one in vault["resources"]] == [self.disk["id"]]

    def with_known(self, value, known):
        """A request's part with what is known in place of what was made up."""
        if isinstance(value, dict):
            return {
                key: known[key] if key in known and part is not None else self.with_known(part, known)
                for key, part in value.items()
            }
        if isinstance(value, list):
            return [self.with_known(part, known) for part in value]
        return value

    def call(self, case):
        return case.call(
            base_url=self.server.endpoint, session=self.session, timeout=PATIENCE_S, allow_redirects=False
        )

    def send(self, case, how):
        known = {
            # Another project's requests all look the same: refused.
            MADE_UP: {"project_id": self.server.project},
            KNOWN_IDS: self.known,
            KNOWN_WORDS: {**WORDS, **self.known},
        }[how]
        case.path_parameters = self.with_known(case.path_parameters, known)
        case.body = self.with_known(case.body, known)
        response = self.call(case)
        took = response.elapsed
        if took > LATE_S:
            # The machine may have stood still; what is slow by itself is slow every time.
            took = min(took, self.call(case).elapsed, self.call(case).elapsed)
        name = case.operation.label
        self.asked[name] += 1
        self.answered[response.status_code] += 1
        if response.status_code < 400:
            self.worked.add(name)
        request = f"{response.request.method} {response.request.url} {response.request.body!r}"[:2000]
        if took > LATE_S:
            self.failures.setdefault((name, "late"), f"{took} s: {request}")
        for check in CHECKS:
            try:
                case.validate_response(response, checks=[check])
            except AssertionError as failure:
                told = f"{response.status_code} {failure}\n{request}"
                self.failures.setdefault((name, check.__name__), told)
            except BaseExceptionGroup as group:
                told = f"{response.status_code} {group.exceptions[0]}\n{request}"
                self.failures.setdefault((name, check.__name__), told)

    def ask(self, operation, mode, count, seed):
        """Sends this many requests at most to an operation."""

        @hypothesis.seed(seed)
        @hypothesis.settings(
            max_examples=count, deadline=None, database=None, phases=[hypothesis.Phase.generate],
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.given(case=operation.as_strategy(generation_mode=mode), how=st.sampled_from(HOW))
        def run(case, how):
            self.send(case, how)

        try:
            run()
        except hypothesis.errors.Unsatisfiable:
            # An operation that takes nothing cannot be asked wrongly.
            assert mode is GenerationMode.NEGATIVE


def test_every_generated_request_is_answered_as_described(world):
    print(f"seed {SEED}")
    operations = [found.ok() for found in world.schema.get_all_operations()]
    assert len(operations) == 106
    modes = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]
    for number in range(ROUNDS):
        left = REQUESTS - sum(world.asked.values())
        if left <= 0:
            break
        for at, operation in enumerate(operations):
            world.refill()
            for mode in modes:
                count = max(2, left // (2 * len(operations)) + 1)
                world.ask(operation, mode, count, SEED + 1000 * number + at)
    told = "\n\n".join(f"{name}: {check}\n{what}" for (name, check), what in world.failures.items())
    assert not world.failures, f"seed {SEED}, {len(world.failures)} faults\n{told}"
    assert sum(world.asked.values()) >= REQUESTS
    assert len(world.asked) == len(operations), "an operation was never asked"
    # Requests that name what exists do succeed, with most operations, and bad ones are told so.
    assert world.answered[200] >= REQUESTS // 10, world.answered
    assert world.answered[400] >= REQUESTS // 10, world.answered
    assert len(world.worked) >= 50, sorted(world.asked.keys() - world.worked)
    assert world.server.is_ready()
