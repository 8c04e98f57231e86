"""Policies that run on a real server, what they keep, and tasks that are ended."""

import json
import time
from datetime import datetime, timezone

from harness import CONFIG, MIB, Disk, Server, run, wait_for, CAIRN

# Uploads so slow that a backup of some MiB takes minutes.
SLOW = CONFIG + """
[repository.limits]
upload_bytes_per_second = 200_000
"""
# What was asked for ends within two seconds; the rest is for a machine with other work.
CANCELLED_WITHIN_S = 20


def policy(name, **definition):
    """The body of a policy that runs every minute."""
    properties = {"recurrence_rules": ["FREQ=MINUTELY"], "timezone": "Europe/Berlin"}
    return {
        "policy": {
            "name": name,
            "operation_type": "backup",
            "operation_definition": definition,
            "trigger": {"properties": properties},
        }
    }


def test_a_policy_runs_by_itself_and_explains_what_it_keeps(lab):
    disk = lab.protectables()["disk.img"]
    vault = lab.create_vault("by-policy", "disk", [disk])
    made = lab.ok("POST", "/policies", policy("minutely", max_backups=2))["policy"]
    assert made["trigger"]["properties"]["recurrence_rules"] == ["FREQ=MINUTELY"]
    lab.ok("POST", f"/vaults/{vault}/associatepolicy", {"policy_id": made["id"]})

    def automatic():
        found = lab.backups(f"vault_id={vault}")
        return [one for one in found if one["extend_info"]["auto_trigger"]]

    [backup] = wait_for("the policy's first run", automatic)
    backup = lab.settled_backup(backup["id"], "available")
    assert backup["name"].startswith("autobk_")
    [log] = lab.ok("GET", f"/operation-logs?vault_id={vault}")["operation_logs"]
    assert (log["policy_id"], log["status"]) == (made["id"], "success")

    explained = lab.ok("GET", f"/backups/{backup['id']}/explanation")["explanation"]
    assert explained["kept_by"] == ["max_backups"]
    assert explained["policy_id"] == explained["rules_of"] == made["id"]
    shown = json.loads(lab.cli("backup", "explain", backup["name"], "-o", "json").stdout)
    assert shown == explained
    change = {"policy": {"operation_definition": {"retention_duration_days": 1}}}
    preview = lab.ok("POST", f"/policies/{made['id']}/preview", change)
    assert preview == {"removed": [], "count": 0}
    off = lab.ok("PUT", f"/policies/{made['id']}", {"policy": {"enabled": False}})
    assert off["policy"]["enabled"] is False


def test_the_client_simulates_what_the_server_simulates(lab, tmp_path):
    body = policy("hourly", max_backups=3, retention_duration_days=-1, day_backups=2)
    body["policy"]["operation_definition"]["timezone"] = "UTC+08:00"
    body["policy"]["trigger"]["properties"]["recurrence_rules"] = ["FREQ=HOURLY;INTERVAL=6"]
    file = tmp_path / "policy.json"
    file.write_text(json.dumps(body), encoding="utf-8")
    span = {"from": "2026-03-27T00:00:00Z", "until": "2026-03-31T00:00:00Z"}
    here = run(CAIRN, "policy", "simulate", "--body", file, "--from", span["from"],
               "--until", span["until"], "-o", "json")
    there = lab.ok("POST", "/policies/simulate", {**body, **span})
    assert json.loads(here.stdout) == there
    kept = [one for one in there["backups"] if one["kept_by"]]
    assert there["backups"] and len(kept) <= 5
    for one in there["backups"]:
        assert bool(one["kept_by"]) == (one["expired_at"] is None)


def test_ten_years_are_simulated_at_once(tmp_path):
    body = policy("daily", max_backups=7, day_backups=14, week_backups=8, month_backups=24,
                  year_backups=10, timezone="UTC+08:00")
    body["policy"]["trigger"]["properties"] = {"pattern": ["FREQ=DAILY;BYHOUR=2;BYMINUTE=0"]}
    file = tmp_path / "policy.json"
    file.write_text(json.dumps(body), encoding="utf-8")
    done = run(CAIRN, "policy", "simulate", "--body", file, "--from", "2026-01-01",
               "--until", "2036-01-01", "-o", "json")
    backups = json.loads(done.stdout)["backups"]
    assert len(backups) in (3652, 3653)
    last = datetime.strptime(backups[-1]["created_at"], "%Y-%m-%dT%H:%M:%SZ")
    assert last.replace(tzinfo=timezone.utc).year in (2035, 2036)


def test_a_task_that_is_cancelled_ends_at_once_and_leaves_nothing(tmp_path):
    Disk(tmp_path / "images/disk.img").create(64 * MIB, seed=5, share=1.0)
    Disk(tmp_path / "images/web-root.qcow2").create(MIB, seed=6)
    Disk(tmp_path / "images/web-data.img").create(MIB, seed=7)
    with Server(tmp_path, config=SLOW) as server:
        vault = server.create_vault("slow", "disk", [server.protectables()["disk.img"]])
        checkpoint = server.start_backup(vault)
        [backup] = server.backups(f"checkpoint_id={checkpoint}")
        [log] = server.ok("GET", f"/operation-logs?vault_id={vault}")["operation_logs"]

        def under_way():
            shown = server.ok("GET", f"/operation-logs/{log['id']}")["operation_log"]
            return shown["status"] == "running" and shown["extra_info"]["common"]["progress"] > 0

        wait_for("the first bytes", under_way)
        begun = time.monotonic()
        server.cli("task", "cancel", log["id"])
        ended = server.finished(log["id"])
        assert time.monotonic() - begun < CANCELLED_WITHIN_S
        assert ended["status"] == "failed"
        assert "cancelled by request" in ended["error_info"]["message"]
        assert server.settled_backup(backup["id"], "error")
        again = server.call("POST", f"/operation-logs/{log['id']}/cancel")
        assert again.status_code == 202
        server.delete_backup(backup["id"])
        done = server.ok("GET", f"/operation-logs?vault_id={vault}&status=success")["operation_logs"]
        refused = server.call("POST", f"/operation-logs/{done[0]['id']}/cancel")
        assert refused.status_code == 400
        server.all_operations_finished()
        left = [name for name in server.objects() if "/manifests/" in name or "/receipts/" in name]
        assert not left
