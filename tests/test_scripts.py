"""Scripts of the agent in a server: applications are brought to rest for the moment of a backup."""

import json
import os
import signal
import sys
import textwrap

import pytest
from harness import PATIENCE_S, Server, run, wait_for
from test_agent import Agent
from test_guests import CONFIG, DISKS, SIZE, Guest, blockdevs, make_vault, records

# Asks QEMU whether a backup's jobs run: they begin at its moment.
HAS_JOBS = """\
import json, socket, sys
with socket.socket(socket.AF_UNIX) as link, link.makefile("rw") as lines:
    link.connect(sys.argv[1])
    lines.readline()
    for command in ("qmp_capabilities", "query-jobs"):
        lines.write(json.dumps({"execute": command}) + "\\n")
        lines.flush()
        answer = json.loads(lines.readline())
        while "event" in answer:
            answer = json.loads(lines.readline())
print("jobs" if answer["return"] else "none")
"""


class Application:
    """What the scripts of the agent in web-1 bring to rest."""

    def __init__(self, server, folder):
        self.folder = folder
        self.agent = Agent(server, folder, "web-1-agent")
        made = server.cli("agent", "token", "--server", "web-1", "-o", "json").stdout
        self.agent.register(json.loads(made)["token"])
        (folder / "has_jobs.py").write_text(HAS_JOBS)
        self.monitor = server.folder / "monitor"
        self.agent.start()
        wait_for("the folder of the scripts", self.scripts.is_dir)

    @property
    def scripts(self):
        return self.agent.state / "bin/thirdparty/ebk_user"

    def write(self, name, does=""):
        """A script as they are written for CBR, which notes when it runs."""
        script = self.scripts / name
        script.write_text(textwrap.dedent(f"""\
            #!/bin/sh
            AGENT_ROOT_PATH=$1
            PID=$2
            . "${{AGENT_ROOT_PATH}}/bin/agent_func.sh"
            echo {name} $({sys.executable} {self.folder}/has_jobs.py {self.monitor}) >> {self.folder}/ran
            Log "[INFO]: {name}"
            {does}
            echo 0 > "${{RESULT_FILE}}"
        """))
        script.chmod(0o755)

    def ran(self):
        """What has run since this was asked last, and whether a backup's jobs ran then."""
        noted = self.folder / "ran"
        text = noted.read_text() if noted.exists() else ""
        noted.unlink(missing_ok=True)
        return text.splitlines()

    def has_run(self, name):
        noted = self.folder / "ran"
        return noted.exists() and name in noted.read_text()


@pytest.fixture(name="stage", scope="module")
def fixture_stage(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scripts")
    (folder / "images").mkdir()
    for name in DISKS:
        raw = folder / "new.raw"
        with open(raw, "wb") as file:
            file.truncate(SIZE)
        run("/usr/sbin/mkfs.ext4", "-q", "-F", raw)
        run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, folder / "images" / name)
        raw.unlink()
    with Server(folder, CONFIG.format(folder=folder)) as server:
        guest = Guest(folder, blockdevs(folder)).ready()
        server.guest = guest
        yield server
        guest.kill()


@pytest.fixture(name="application")
def fixture_application(stage, tmp_path):
    application = Application(stage, tmp_path)
    application.write("a_freeze.sh")
    application.write("b_freeze.sh")
    application.write("a_unfreeze.sh")
    application.write("b_unfreeze.sh")
    yield application
    application.agent.kill()
    stage.cli("agent", "remove", "web-1-agent")


@pytest.fixture(name="vault")
def fixture_vault(stage):
    vault = make_vault(stage, "applications", "app_consistent")
    yield vault
    stage.ok("DELETE", f"/vaults/{vault}")
    stage.all_operations_finished()


def outcome(backup):
    told = backup["extend_info"]["app_consistency"]
    return told["app_consistency_status"], told["app_consistency_error_message"]


IN_ORDER = ["a_freeze.sh none", "b_freeze.sh none", "b_unfreeze.sh jobs", "a_unfreeze.sh jobs"]


def test_applications_rest_at_the_moment_of_the_backup(stage, application, vault):
    flushed = stage.guest.flushed()
    backup = stage.back_up(vault)
    assert outcome(backup) == ("1", "")
    assert application.ran() == IN_ORDER
    children = {child["resource_name"]: child["id"] for child in backup["children"]}
    one, two = (records(stage, children[name], "/records") for name in DISKS)
    assert one in (two, two + 1) and two >= flushed, "the file systems were frozen too"
    [server] = stage.protectables("server").values()
    asked = {"agent_status": [{"resource_id": server["id"], "resource_type": "OS::Nova::Server"}]}
    [told] = stage.ok("POST", "/agent/check", asked)["agent_status"]
    assert told["installed"] and told["version"] and told.get("message") is None
    [agent] = stage.ok("GET", "/agents")["agents"]
    assert agent["server_id"] == server["id"]


def test_a_script_that_fails_is_named_and_the_backup_goes_on(stage, application, vault):
    application.write("b_freeze.sh", "Log no such table; echo 1 > $RESULT_FILE; exit 1")
    status, why = outcome(stage.back_up(vault))
    assert status == "0" and "b_freeze.sh failed" in why and "no such table" in why, why
    names = [line.split()[0] for line in application.ran()]
    assert names == ["a_freeze.sh", "b_freeze.sh", "b_unfreeze.sh", "a_unfreeze.sh"]
    # One that does not come back to work is told of too.
    application.write("b_freeze.sh")
    application.write("b_unfreeze.sh", "exit 4")
    backup = stage.back_up(vault)
    status, why = outcome(backup)
    assert status == "0" and "b_unfreeze.sh failed (exit status: 4)" in why, why
    [log, *_] = stage.ok("GET", f"/operation-logs?checkpoint_id={backup['checkpoint_id']}")["operation_logs"]
    for shown in (["backup", "show", backup["id"]], ["task", "show", log["id"]]):
        assert "b_unfreeze.sh failed (exit status: 4)" in stage.cli(*shown).stdout
    assert "b_unfreeze.sh failed (exit status: 4)" in stage.log.read_text(encoding="utf-8")
    for script in application.scripts.iterdir():
        script.unlink()
    status, why = outcome(stage.back_up(vault))
    assert status == "0" and "no freeze scripts" in why, why
    assert stage.guest.leftovers() == []


def test_an_agent_that_is_killed_in_between_has_applications_go_on(stage, application, vault):
    gate = application.folder / "gate"
    os.mkfifo(gate)
    application.write("b_freeze.sh", f"cat {gate}")
    checkpoint = stage.start_backup(vault)
    wait_for("the script", lambda: application.has_run("b_freeze.sh"))
    application.agent.kill()
    [backup] = stage.backups(f"checkpoint_id={checkpoint}")
    backup = stage.settled_backup(backup["id"], "available")
    status, why = outcome(backup)
    assert status == "0" and why, why
    application.ran()
    application.agent.start()
    wait_for("the unfreeze scripts", lambda: application.has_run("a_unfreeze.sh"))
    with pytest.raises(OSError, match="No such device"):
        os.open(gate, os.O_WRONLY | os.O_NONBLOCK)  # Nobody waits there to freeze late.
    # Away, it is said to be: maybe only when its last connection is known to have ended.
    application.agent.kill()
    wait_for("that it is away", lambda: "not connected" in outcome(stage.back_up(vault))[1])


def test_applications_go_on_when_the_server_is_killed(stage, application, vault):
    gate = application.folder / "gate"
    os.mkfifo(gate)
    application.write("b_freeze.sh", f"cat {gate}")
    checkpoint = stage.start_backup(vault)
    wait_for("the script", lambda: application.has_run("b_freeze.sh"))
    stage.kill()
    gate.write_text("")
    wait_for("the unfreeze scripts", lambda: application.has_run("a_unfreeze.sh"))
    application.write("b_freeze.sh")
    stage.start()
    [backup] = stage.backups(f"checkpoint_id={checkpoint}")
    stage.settled_backup(backup["id"], "available")
    # Told to end, the agent lets go before it does.
    application.ran()
    application.write("b_freeze.sh", f"cat {gate}")
    checkpoint = stage.start_backup(vault)
    wait_for("the script", lambda: application.has_run("b_freeze.sh"))
    application.agent.process.send_signal(signal.SIGTERM)
    gate.write_text("")
    assert application.agent.process.wait(PATIENCE_S) == 0
    assert application.has_run("a_unfreeze.sh")
    [backup] = stage.backups(f"checkpoint_id={checkpoint}")
    stage.settled_backup(backup["id"], "available")


def test_a_token_names_a_server_that_is_there(stage):
    refused = stage.cli("agent", "token", "--server", "nobody", check=False)
    assert refused.returncode != 0 and "nobody" in refused.stderr
    wish = {"agent_token": {"server_id": "00000000-0000-4000-8000-000000000000"}}
    refused = stage.call("POST", "/agents/tokens", wish)
    assert refused.status_code == 404, refused.text
