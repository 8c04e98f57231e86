"""The documentation's samples in Java, Python and Go, built with the vendor's SDKs and run.

Nothing but endpoint, credentials and ids is changed; `README.md` beside this file
names the programs' source, `changed` below makes every change.
"""

import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from harness import MIB, ROOT, Disk, Server, run

HERE = Path(__file__).resolve().parent
# Builds are kept, as cargo's are: the SDKs' classes and objects need not be made again.
BUILD = ROOT / "target/clients"

# The samples' programs by language: create checkpoint, sync checkpoint, show backup.
PROGRAMS = {
    "java": ("CreateCheckpointSolution", "ImportCheckpointSolution", "ShowBackupSolution"),
    "python": ("create_checkpoint", "sync_checkpoint", "show_backup"),
    "go": ("create_checkpoint", "sync_checkpoint", "show_backup"),
}
SUFFIX = {"java": ".java", "python": ".py", "go": ".go"}

# The ids that the samples name.
A_SERVER = "94eba8b2-acc9-4d82-badc-127144cc5526"
A_VAULT = "3b5816b5-f29c-4172-9d9a-76c719a659ce"
A_HYBRID_VAULT = "8d3a8b28-a697-41e2-8d5d-903669f8a02d"


@pytest.fixture(scope="module", name="lab")
def fixture_lab(tmp_path_factory):
    """A server to back up, a vault for it and a hybrid vault."""
    folder = tmp_path_factory.mktemp("samples")
    Disk(folder / "images/web-root.qcow2").create(8 * MIB, seed=1)
    Disk(folder / "images/web-data.img").create(4 * MIB, seed=2)
    with Server(folder) as server:
        server.web = server.protectables("server")["web-1"]
        server.vault = server.create_vault("samples", "server", [server.web])
        billing = {
            "cloud_type": "hybrid", "consistent_level": "crash_consistent", "object_type": "vmware",
            "protect_type": "backup", "size": 100, "charging_mode": "post_paid",
        }
        body = {"vault": {"name": "hybrid", "billing": billing, "resources": []}}
        server.hybrid = server.ok("POST", "/vaults", body)["vault"]["id"]
        yield server


def changed(program, language, lab, backup):
    """A sample that runs here: each of these changes is made, and no other."""
    ids = {A_SERVER: lab.web["id"], A_VAULT: lab.vault, A_HYBRID_VAULT: lab.hybrid}
    changes = {"<YOUR REGION>": lab.credentials["region"], **ids}
    # The samples that show a backup do not say which.
    changes |= {
        "java": {"new ShowBackupRequest()": f'new ShowBackupRequest().withBackupId("{backup}")'},
        "python": {"ShowBackupRequest()": f'ShowBackupRequest(backup_id="{backup}")'},
        "go": {"ShowBackupRequest{}": f'ShowBackupRequest{{BackupId: "{backup}"}}'},
    }[language]
    if language == "go":
        # Printed without an import of what it uses, and with no other way to an
        # identity service without TLS.
        changes['\t"fmt"\n'] = '\t"fmt"\n\t"os"\n'
        address = lab.credentials["iam_endpoint"]
        changes["WithSk(sk).\n"] = f'WithSk(sk).WithIamEndpointOverride("{address}").\n'
    for old, new in changes.items():
        program = program.replace(old, new)
    return program


class Programs:
    """The samples of one language, made for one server."""

    def __init__(self, lab, language):
        self.lab = lab
        self.language = language
        self.folder = BUILD / language
        self.create, self.sync, self.show = PROGRAMS[language]
        known = lab.credentials
        region = known["region"].upper().replace("-", "_")
        self.environment = {
            **os.environ,
            "CLOUD_SDK_AK": known["access_key"],
            "CLOUD_SDK_SK": known["secret_key"],
            f"HUAWEICLOUD_SDK_REGION_CBR_{region}": known["endpoint"],
            "HUAWEICLOUD_SDK_IAM_ENDPOINT": known["iam_endpoint"],
        }

    def build(self, backup):
        """Makes the programs, with this backup as the one to show."""
        for name in PROGRAMS[self.language]:
            sample = (HERE / f"samples/{name}{SUFFIX[self.language]}").read_text(encoding="utf-8")
            path = self.source(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(changed(sample, self.language, self.lab, backup), encoding="utf-8")
        getattr(self, f"build_{self.language}")()

    def source(self, name):
        return self.folder / {
            "java": f"src/main/java/com/huaweicloud/sdk/test/{name}.java",
            "python": f"{name}.py",
            "go": f"{name}/main.go",
        }[self.language]

    def build_java(self):
        shutil.copy(HERE / "java/pom.xml", self.folder)
        goals = ["dependency:build-classpath", "-Dmdep.outputFile=target/classpath", "compile"]
        run("mvn", "-q", "-B", "-Dstyle.color=never", *goals, cwd=self.folder)

    def build_python(self):
        pass

    def build_go(self):
        for name in ("go.mod", "go.sum"):
            shutil.copy(HERE / "go" / name, self.folder)
        run("go", "build", "-mod=readonly", "-o", "bin/", "./...", cwd=self.folder)

    def run(self, name, check=True):
        """Runs a program; returns what it printed."""
        if self.language == "java":
            classpath = (self.folder / "target/classpath").read_text(encoding="utf-8")
            command = ["java", "-cp", f"target/classes:{classpath}", f"com.huaweicloud.sdk.test.{name}"]
        elif self.language == "python":
            command = [sys.executable, f"{name}.py"]
        else:
            command = [f"./bin/{name}"]
        done = run(*command, check=check, cwd=self.folder, env=self.environment)
        return done.stdout if check else done.stdout + done.stderr


def ids(text):
    """Every id that a program printed, with the name before it."""
    found = re.findall(r'"?(\w+)"?\s*[:=]\s*"?([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})', text)
    # Java writes names as its own: operationLogId.
    return {(re.sub("([A-Z])", r"_\1", name).lower(), value) for name, value in found}


@pytest.mark.parametrize("language", PROGRAMS)
def test_the_samples_run(lab, language):
    shown = lab.back_up(lab.vault, f"shown-{language}")
    programs = Programs(lab, language)
    programs.build(shown["id"])

    before = {one["id"] for one in lab.backups()}
    printed = programs.run(programs.create)
    [made] = [one for one in lab.backups() if one["id"] not in before]
    assert ("id", made["checkpoint_id"]) in ids(printed), printed
    assert ("id", lab.vault) in ids(printed), printed
    made = lab.settled_backup(made["id"], "available")
    assert (made["resource_id"], made["vault_id"]) == (lab.web["id"], lab.vault)
    assert (made["name"], made["description"]) == ("backup_name", "backup_description")
    assert made["extend_info"]["auto_trigger"] is True
    assert made["incremental"] is True
    assert len(made["children"]) == 2

    printed = programs.run(programs.show)
    assert {("id", shown["id"]), ("checkpoint_id", shown["checkpoint_id"])} <= ids(printed), printed
    children = {("id", child["id"]) for child in shown["children"]}
    assert children <= ids(printed), printed
    assert f"shown-{language}" in printed

    printed = programs.run(programs.sync)
    found = dict(ids(printed))
    assert found["vault_id"] == lab.hybrid, printed
    log = lab.finished(found["operation_log_id"])
    assert (log["status"], log["operation_type"]) == ("success", "sync")
    assert log["vault_id"] == lab.hybrid
    counts = log["extra_info"]["sync"]
    assert counts == {"sync_backup_num": 0, "delete_backup_num": 0, "err_sync_backup_num": 0}

    # A refusal reaches the program with the server's code.
    programs.environment["CLOUD_SDK_SK"] = "not-the-secret"
    before = lab.backups()
    refused = programs.run(programs.create, check=False)
    assert "APIGW.0301" in refused, refused
    assert lab.backups() == before
