"""Five thousand generated requests, good ones and bad ones, made from our own description.

None may be answered by a fault of the server, by anything that the description does
not have, or late. Half of them name what exists, so that more than "not found" is tried.
The requests are the same each time; `CAIRN_SCHEMATHESIS_SEED` makes others.
"""

import os
import uuid
from collections import Counter

import hypothesis
import pytest
import requests
import schemathesis
from harness import PATIENCE_S, wait_for
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import checks

SEED = int(os.environ.get("CAIRN_SCHEMATHESIS_SEED", "20261122"))
REQUESTS = 5000
LATE_S = 1.0
# Rounds with new seeds until there are enough: some operations have few different requests.
ROUNDS = 40

CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]


@pytest.fixture(scope="module", name="world")
def fixture_world(lab):
    """Things of each kind that requests can name; what one of them deletes is made again."""
    return World(lab)


class World:
    def __init__(self, server):
        self.server = server
        document = requests.get(f"{server.endpoint}/openapi.json", timeout=PATIENCE_S)
        assert document.status_code == 200, document.text
        self.schema = schemathesis.openapi.from_dict(document.json())
        self.session = requests.Session()
        self.session.headers["X-Auth-Token"] = server.token()
        self.known = {}
        self.failures = {}
        self.asked = Counter()
        self.answered = Counter()

    def refill(self):
        """Makes what is missing, and learns its ids."""
        server = self.server
        disk = server.protectables("disk")["disk.img"]
        bound = disk["protectable"]["vault"]
        if bound is None:
            vault = server.create_vault("fuzzed", "disk", [disk])
            server.back_up(vault, "fuzzed")
        else:
            vault = bound["id"]
        backups = server.backups(f"vault_id={vault}&status=available")
        if not backups:
            wait_for("the vault's rest", lambda: self.all_final(vault))
            backups = [server.back_up(vault, "fuzzed")]
        policies = self.server.ok("GET", "/policies")["policies"]
        if not policies:
            trigger = {"properties": {"pattern": ["FREQ=DAILY;INTERVAL=1;BYHOUR=02;BYMINUTE=00"]}}
            body = {
                "name": "fuzzed", "enabled": False, "operation_type": "backup",
                "operation_definition": {"max_backups": 3}, "trigger": trigger,
            }
            policies = [server.ok("POST", "/policies", {"policy": body})["policy"]]
        logs = server.ok("GET", "/operation-logs?limit=1")["operation_logs"]
        self.known = {
            "project_id": server.project,
            "source_project_id": server.project,
            "destination_project_id": server.project,
            "domain_name": server.credentials["domain_name"],
            "destination_region": server.credentials["region"],
            "vault_id": vault,
            "destination_vault_id": vault,
            "backup_id": backups[0]["id"],
            "checkpoint_id": backups[0]["checkpoint_id"],
            "operation_log_id": logs[0]["id"],
            "policy_id": policies[0]["id"],
            "resource_id": disk["id"],
            "instance_id": disk["id"],
            "volume_id": disk["id"],
            "resource_ids": [disk["id"]],
            "vault_ids": [vault],
            "protectable_type": "disk",
            "feature_key": "replication.enable",
            "agent_id": str(uuid.UUID(int=1)),
        }

    def all_final(self, vault):
        asked = (f"/operation-logs?limit=1&vault_id={vault}&status={one}" for one in ("waiting", "running"))
        return all(self.server.ok("GET", path)["count"] == 0 for path in asked)

    def with_known(self, value):
        """A request's part with ids that exist wherever one is meant."""
        if isinstance(value, dict):
            return {
                key: self.known[key] if key in self.known and part is not None else self.with_known(part)
                for key, part in value.items()
            }
        if isinstance(value, list):
            return [self.with_known(part) for part in value]
        return value

    def send(self, case, real):
        if real:
            case.path_parameters = self.with_known(case.path_parameters)
            case.body = self.with_known(case.body)
        elif case.path_parameters and "project_id" in case.path_parameters:
            # Elsewhere all requests look the same.
            case.path_parameters["project_id"] = self.server.project
        response = case.call(
            base_url=self.server.endpoint, session=self.session, timeout=PATIENCE_S, allow_redirects=False
        )
        name = case.operation.label
        self.asked[name] += 1
        self.answered[response.status_code] += 1
        request = f"{response.request.method} {response.request.url} {response.request.body!r}"[:2000]
        if response.elapsed > LATE_S:
            self.failures.setdefault((name, "late"), f"{response.elapsed} s: {request}")
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
        @hypothesis.given(case=operation.as_strategy(generation_mode=mode), real=st.booleans())
        def run(case, real):
            self.send(case, real)

        try:
            run()
        except hypothesis.errors.Unsatisfiable:
            # An operation that takes nothing cannot be asked wrongly.
            assert mode is GenerationMode.NEGATIVE


def test_every_generated_request_is_answered_as_described(world):
    print(f"seed {SEED}")
    operations = [found.ok() for found in world.schema.get_all_operations()]
    assert len(operations) == 76
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
    # Requests that name what exists do succeed, and bad ones are told so.
    assert world.answered[200] >= REQUESTS // 20, world.answered
    assert world.answered[400] >= REQUESTS // 20, world.answered
    assert world.server.is_ready()
