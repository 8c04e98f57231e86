"""The program as its users type it: the README's own commands, and exit codes."""

import hashlib
import json
import os
import re
import stat
import time

import pytest
from harness import CAIRN, ROOT, Disk, Server, free_port, run

SAMPLE_CONFIG = """\
[[source]]
kind = "images"
name = "lab"
path = "cairn-data/images"

[[source.server]]
name = "web-1"
disks = ["web-root.img", "web-data.qcow2"]
"""


def readme_commands():
    """The shell commands of the README's walkthrough."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    [block] = re.findall(r"## A first restore.*?```sh\n(.*?)```", text, re.DOTALL)
    return block


@pytest.fixture(scope="module", name="sample")
def fixture_sample(tmp_path_factory):
    """A folder that looks like the project's after `make run`."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "target").mkdir()
    (folder / "target/release").symlink_to(CAIRN.parent)
    run(ROOT / "scripts/make_sample.sh", folder / "cairn-data/images")
    server = Server(folder, config=SAMPLE_CONFIG)
    server.data = folder / "cairn-data"
    with server:
        yield server


def test_the_readme_walks_to_a_restored_disk(sample):
    image = sample.data / "images/web-root.img"
    before = hashlib.sha256(image.read_bytes()).hexdigest()
    script = "set -e\n" + readme_commands()
    done = run("bash", "-c", script, cwd=sample.folder, env={**os.environ, "CAIRN_CREDENTIALS": ""})
    sums = re.findall(r"^([0-9a-f]{64})  cairn-data/images/web-root.img$", done.stdout, re.MULTILINE)
    assert sums == [before, before]
    assert "as good as lost" in done.stdout
    assert hashlib.sha256(image.read_bytes()).hexdigest() == before
    # The disk's server is protected in a vault of its own only after that.
    sample.cli("vault", "create", "early", "--type", "server", "--size", "100")
    refused = sample.cli("vault", "add", "early", "web-1", check=False)
    assert "BackupService.6137" in refused.stderr
    sample.cli("vault", "delete", "first", "--wait")
    sample.cli("vault", "delete", "early", "--wait")


def test_the_readme_prints_what_make_run_prints():
    script = (ROOT / "scripts/run.sh").read_text(encoding="utf-8")
    [program] = re.findall(r"awk '(.*?)' README.md", script)
    printed = run("awk", program, ROOT / "README.md").stdout
    assert [line.strip() for line in printed.splitlines()] == [
        line.strip() for line in readme_commands().splitlines()
    ]


def test_a_server_with_two_disks_by_the_client(sample):
    root, data = (Disk(sample.data / "images" / name) for name in ("web-root.img", "web-data.qcow2"))
    data.write([(1 << 20, 300_000, 0x61), (900 << 20, 70_000, 0x62)])
    expected = [root.digest(), data.digest()]
    sample.cli("vault", "create", "servers", "--type", "server", "--size", "100")
    sample.cli("vault", "add", "servers", "web-1")
    sample.cli("checkpoint", "create", "servers", "--name", "both", "--wait")
    shown = json.loads(sample.cli("backup", "show", "both", "-o", "json").stdout)
    assert [child["resource_name"] for child in shown["children"]] == ["web-root.img", "web-data.qcow2"]
    root.wreck(seed=1)
    data.wreck(seed=2)
    sample.cli("restore", "both", "--wait")
    assert [root.digest(), data.digest()] == expected

    logs = json.loads(sample.cli("task", "list", "-o", "json").stdout)
    restore = next(log for log in logs if log["operation_type"] == "restore")
    sample.cli("task", "wait", restore["id"])
    assert "success" in sample.cli("task", "show", restore["id"]).stdout
    sample.cli("backup", "delete", "both", "--wait")
    assert sample.cli("backup", "show", "both", check=False).returncode == 4
    sample.cli("vault", "delete", "servers", "--wait")
    assert sample.cli("vault", "show", "servers", check=False).returncode == 4


def test_exit_codes_tell_what_went_wrong(sample):
    refused = sample.cli("vault", "create", "a b", check=False)
    assert refused.returncode == 1
    assert "BackupService.9900" in refused.stderr and "req-" in refused.stderr
    assert refused.stdout == ""
    assert sample.cli("vault", "create", check=False).returncode == 2
    nowhere = {**sample.credentials, "endpoint": f"http://127.0.0.1:{free_port()}"}
    file = sample.folder / "nowhere.json"
    file.write_text(json.dumps(nowhere), encoding="utf-8")
    assert sample.cli("--credentials", file, "vault", "list", check=False).returncode == 3
    file.write_text("{}", encoding="utf-8")
    assert sample.cli("--credentials", file, "vault", "list", check=False).returncode == 2


def test_credentials_are_for_the_owner_alone(sample):
    mode = stat.S_IMODE(sample.credentials_file.stat().st_mode)
    assert mode == 0o600
    assert sorted(sample.credentials) == sorted(
        ("endpoint iam_endpoint region domain_name domain_id project_name project_id user_name "
         "password access_key secret_key").split()
    )


def test_the_client_takes_the_sdks_environment(sample):
    known = sample.credentials
    environment = {
        **{key: value for key, value in os.environ.items() if key != "CAIRN_CREDENTIALS"},
        "HUAWEICLOUD_SDK_AK": known["access_key"],
        "HUAWEICLOUD_SDK_SK": known["secret_key"],
        "HUAWEICLOUD_SDK_PROJECT_ID": known["project_id"],
        "CAIRN_ENDPOINT": known["endpoint"],
    }
    run(CAIRN, "vault", "list", env=environment)


def test_the_repository_restores_without_the_server(tmp_path):
    disks = {
        "disk.img": Disk(tmp_path / "images/disk.img").create(5_000_704, seed=1),
        "other.qcow2": Disk(tmp_path / "images/other.qcow2").create(4 << 20, seed=2),
    }
    with Server(tmp_path) as server:
        vault = server.create_vault("disks", "disk", list(server.protectables("disk").values()))
        checkpoint = server.start_backup(vault)
        backups = [
            server.settled_backup(backup["id"], "available")
            for backup in server.backups(f"checkpoint_id={checkpoint}")
        ]
        assert server.stop() == 0
    for file in server.data.iterdir():
        if file.is_file() and file.name != "master.key":
            file.unlink()
    repository = server.repository()
    listed = json.loads(run(CAIRN, "repo", "list", "--json", *repository).stdout)
    assert len(listed) == len(backups)
    run(CAIRN, "repo", "verify", "--full", *repository)
    for backup in backups:
        target = tmp_path / f"{backup['id']}.img"
        run(CAIRN, "repo", "restore", *repository, backup["id"], target)
        assert target.read_bytes() == disks[backup["resource_name"]].content()


def test_damage_is_found_and_named(tmp_path):
    Disk(tmp_path / "images/disk.img").create(3 << 20, seed=1)
    with Server(tmp_path) as server:
        disk = server.protectables("disk")["disk.img"]
        vault = server.create_vault("disks", "disk", [disk])
        backup = server.back_up(vault)
        assert server.stop() == 0
    largest = max(
        (path for path in (server.data / "repository").rglob("*") if path.is_file()),
        key=lambda path: path.stat().st_size,
    )
    largest.chmod(0o600)
    with open(largest, "r+b") as file:
        file.seek(largest.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    verified = run(CAIRN, "repo", "verify", "--full", *server.repository(), check=False)
    assert verified.returncode == 1
    assert backup["id"] in verified.stdout + verified.stderr
    target = tmp_path / "restored.img"
    restored = run(CAIRN, "repo", "restore", *server.repository(), backup["id"], target, check=False)
    assert restored.returncode == 1


def test_two_servers_do_not_share_a_data_directory(tmp_path):
    with Server(tmp_path) as server:
        second = run(
            CAIRN, "server", "--config", server.config, "--data-dir", server.data,
            "--listen", f"127.0.0.1:{free_port()}", check=False, timeout=60,
        )
        assert second.returncode == 1
        assert "another server" in second.stderr


def test_a_bad_configuration_is_refused_with_a_reason(tmp_path):
    for text, why in (
        ("[[source]]\nkind = 'tapes'\nname = 'a'\npath = 'b'\n", "tapes"),
        ("speed = 3\n", "speed"),
        ("[[source]]\nkind = 'images'\nname = 'a'\npath = 'b'\n[[source.server]]\nname = 's'\ndisks = []\n", "no disk"),
        ("[[source]]\nkind = 'images'\nname = 'a'\npath = 'b'\n" * 2, "two sources"),
    ):
        file = tmp_path / "cairn.toml"
        file.write_text(text, encoding="utf-8")
        done = run(CAIRN, "config", "check", "--config", file, check=False)
        assert done.returncode == 1, text
        assert why in done.stderr, done.stderr


def simulate(tmp_path, body, *options, **kwargs):
    """What a policy would do, told without a server or keys."""
    file = tmp_path / "policy.json"
    file.write_text(json.dumps(body), encoding="utf-8")
    command = [CAIRN, "policy", "simulate", "--body", file, "-o", "json", *options]
    done = run(*command, env={"PATH": os.environ["PATH"]}, cwd=tmp_path, **kwargs)
    return json.loads(done.stdout)["backups"] if done.returncode == 0 else done


def test_the_policy_of_the_page_does_what_the_page_says(tmp_path):
    page = (ROOT / "docs/POLICIES.md").read_text(encoding="utf-8")
    policy, shown = map(json.loads, re.findall(r"```json\n(.*?)```", page, re.DOTALL))
    [(since, until)] = re.findall(r"--from (\S+) --until (\S+) ", page)
    backups = simulate(tmp_path, policy, "--from", since, "--until", until)
    assert len(backups) == 365
    assert [backups[0], backups[-1]] == shown["backups"]
    kept = [backup for backup in backups if backup["kept_by"]]
    assert all((backup["expired_at"] is None) == bool(backup["kept_by"]) for backup in backups)
    assert len(kept) == 7 + 2 + 11, "seven days, two weeks and eleven months more"


def test_a_simulation_reads_standard_input_and_tells_what_is_wrong(tmp_path):
    policy = {
        "name": "often",
        "operation_type": "backup",
        "operation_definition": {"retention_duration_days": 1},
        "trigger": {"properties": {"recurrence_rules": ["FREQ=MINUTELY;INTERVAL=30"]}},
    }
    span = ["--from", "2026-01-01T00:00:00+01:00", "--until", "2025-12-31T23:30:00Z"]
    command = [CAIRN, "policy", "simulate", "--body", "-", "-o", "json", *span]
    done = run(*command, input=json.dumps({"policy": policy}), env={}, cwd=tmp_path)
    created = [backup["created_at"] for backup in json.loads(done.stdout)["backups"]]
    assert created == ["2025-12-31T23:00:00Z", "2025-12-31T23:30:00Z"]
    for options, words in [
        (["--from", "soon"], "Invalid from provided."),
        (["--from", "2026-01-02", "--until", "2026-01-01"], "Invalid until provided."),
        (["--from", "2026-01-01", "--until", "2126-01-01"], "more than 1000000 backups"),
    ]:
        refused = simulate(tmp_path, {"policy": policy}, *options, check=False)
        assert refused.returncode == 2 and refused.stdout == ""
        assert refused.stderr.startswith("error: ") and words in refused.stderr
    refused = simulate(tmp_path, {"policy": {**policy, "name": ""}}, check=False)
    assert refused.returncode == 2 and "Invalid policy.name provided." in refused.stderr


def test_ten_years_of_every_hour_are_simulated_at_once(tmp_path):
    definition = dict.fromkeys(("day", "week", "month", "year"), 10)
    definition = {f"{period}_backups": count for period, count in definition.items()}
    policy = {
        "name": "hourly",
        "operation_type": "backup",
        "operation_definition": {**definition, "max_backups": 50, "timezone": "UTC+08:00"},
        "trigger": {"properties": {"recurrence_rules": ["FREQ=HOURLY"], "timezone": "Asia/Tokyo"}},
    }
    took = []
    for _ in range(5):
        began = time.monotonic()
        backups = simulate(tmp_path, {"policy": policy}, "--from", "2026-01-01", "--until", "2036-01-01")
        took.append(time.monotonic() - began)
    assert len(backups) == 87_649
    # Milliseconds, and more than as much again for Python to read the answer.
    assert min(took) < 2, took
