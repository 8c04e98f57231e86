"""Agents: hosts that register by a token, and whose files are backed up over a line."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import threading

import pytest
from harness import CAIRN, MIB, PATIENCE_S, Server, run, wait_for
from test_share import same, state


class Agent:
    """An agent with its state in `folder`; it ends by its process id."""

    def __init__(self, server, folder, name):
        self.server, self.folder, self.name = server, folder, name
        self.state = folder / "agent"
        self.log = folder / "agent.log"
        self.process = None

    def command(self, *arguments, **kwargs):
        return run(CAIRN, "agent", *arguments, "--state", self.state, **kwargs)

    def register(self, token=None, check=True):
        token = token or json.loads(self.server.cli("agent", "token", "-o", "json").stdout)["token"]
        environment = {**os.environ, "CAIRN_AGENT_TOKEN": token}
        return self.command(
            "register", "--server", self.server.endpoint, "--name", self.name,
            env=environment, check=check,
        )

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [CAIRN, "agent", "run", "--state", self.state],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )
        return self

    def kill(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    @property
    def id(self):
        return self.server.protectables("native")[self.name]["id"]

    def sent_bytes(self):
        """What its connections have sent, as its log says."""
        plain = re.sub(r"\x1b\[\d+m", "", self.log.read_text())
        return [int(number) for number in re.findall(r"sent_bytes=(\d+)", plain)]


@pytest.fixture(name="lab")
def fixture_lab(tmp_path):
    with Server(tmp_path / "server") as server:
        agent = Agent(server, tmp_path, "db-1")
        agent.register()
        agent.start()
        agent.files = tmp_path / "files"
        (agent.files / "docs/deep").mkdir(parents=True)
        rng = random.Random(7)
        for number in range(300):
            (agent.files / f"docs/{number:03}").write_bytes(rng.randbytes(rng.randrange(3000)))
        (agent.files / "docs/large").write_bytes(rng.randbytes(8 * MIB))
        (agent.files / "skipped.tmp").write_bytes(b"not saved")
        (agent.files / os.fsdecode(b"\xff name\n")).write_bytes(b"odd")
        os.link(agent.files / "docs/large", agent.files / "docs/deep/same")
        os.symlink("/etc/passwd", agent.files / "docs/link")
        server.cli("agent", "add-path", "db-1", agent.files, "--exclude", "*.tmp")
        server.vault = server.create_vault("hosts", "file", [server.protectables("native")["db-1"]])
        yield server, agent
        agent.kill()


def listed(server, backup, path):
    answer = server.cli("backup", "files", backup["id"], path, "-o", "json").stdout
    return {entry["name"]: entry for entry in json.loads(answer)}


def test_the_files_of_a_host_are_backed_up_and_read_back(lab):
    server, agent = lab
    backup = server.back_up(server.vault)
    assert backup["resource_type"] == "OS::Native::Server"
    found = listed(server, backup, str(agent.files))
    assert sorted(found) == ["\\xff name\\x0a", "docs"]
    docs = listed(server, backup, f"{agent.files}/docs")
    assert len(docs) == 303
    for name in ("007", "large", "deep/same"):
        target = agent.folder / "fetched"
        server.cli("backup", "fetch", backup["id"], f"{agent.files}/docs/{name}", "--to", target)
        assert target.read_bytes() == (agent.files / "docs" / name).read_bytes()
        target.unlink()
    # What is not below the paths is not there, but the folders on the way are.
    assert list(listed(server, backup, "/")) == [agent.files.parts[1]]


def test_an_agent_that_is_killed_or_away_costs_only_time(lab):
    server, agent = lab
    agent.kill()
    checkpoint = server.ok("POST", "/checkpoints", {"checkpoint": {"vault_id": server.vault}})["checkpoint"]
    log = server.ok("GET", f"/operation-logs?checkpoint_id={checkpoint['id']}")["operation_logs"][0]
    assert log["status"] in ("waiting", "running")
    agent.start()
    assert server.finished(log["id"])["status"] == "success"


def test_the_agent_of_a_cloned_host_waits_and_is_told(lab, tmp_path):
    server, agent = lab
    (tmp_path / "clone").mkdir()
    clone = Agent(server, tmp_path / "clone", "db-1")
    shutil.copytree(agent.state, clone.state)
    wait_for("the first agent", lambda: "connected" in agent.command("status").stdout)
    clone.start()
    try:
        told = "Another agent with the identity"
        wait_for("the clone to be told", lambda: told in clone.command("status", check=False).stdout)
        assert told in clone.log.read_text()
        assert "Two agents have one identity" in server.log.read_text()
        backup = server.back_up(server.vault)
        assert listed(server, backup, agent.files)
        assert "The server has taken a connection" not in clone.log.read_text()
        # One that registers as itself is another.
        clone.kill()
        shutil.rmtree(clone.state)
        clone.name = "db-2"
        clone.register()
        clone.start()
        wait_for("its own name", lambda: "db-2" in server.protectables("native"))
    finally:
        clone.kill()


def test_a_stranger_is_nobody_and_a_token_is_used_once(lab, tmp_path):
    server, agent = lab
    token = json.loads(server.cli("agent", "token", "-o", "json").stdout)["token"]
    first = Agent(server, tmp_path / "first", "web-1")
    second = Agent(server, tmp_path / "second", "web-2")
    for one in (first, second):
        one.folder.mkdir()
    first.register(token)
    refused = second.register(token, check=False)
    assert refused.returncode != 0 and "token" in refused.stderr, refused.stderr
    assert not (second.state / "secret").exists()
    assert sorted(server.protectables("native")) == ["db-1", "web-1"]
    # Nobody but its owner reads what it proves by who it is.
    for path in (first.state, *first.state.iterdir()):
        assert path.stat().st_mode & 0o077 == 0, path
    # One that was removed is told so, and ends.
    server.cli("agent", "remove", "web-1")
    first.start()
    assert first.process.wait(PATIENCE_S) == 1
    assert "does not know this agent" in first.log.read_text(), first.log.read_text()


def test_what_changes_while_it_is_read_is_named(lab):
    server, agent = lab
    ended = threading.Event()

    def write():
        with open(agent.files / "docs/large", "r+b") as file:
            number = 0
            while not ended.is_set():
                file.seek(number * 4096 % (8 * MIB))
                file.write(os.urandom(4096))
                file.flush()
                number += 7

    writer = threading.Thread(target=write)
    writer.start()
    try:
        backup = server.back_up(server.vault)
    finally:
        ended.set()
        writer.join()
    options = [*server.repository(), "--json"]
    told = json.loads(run(CAIRN, "repo", "list", *options).stdout)
    [tree] = [one["tree"] for one in told if one["info"]["id"] == backup["id"]]
    assert any("docs/large" in problem for problem in tree["listed"]), tree
    assert backup["extend_info"]["file_problems"] == {"count": tree["problems"], "first": tree["listed"]}


def test_an_agent_ends_when_it_is_told_to(lab):
    _, agent = lab
    agent.process.send_signal(signal.SIGTERM)
    assert agent.process.wait(PATIENCE_S) == 0


def restore(server, backup, host, **details):
    body = {"restore": {"resource_id": server.protectables("native")[host]["id"]}}
    if details:
        body["restore"]["details"] = details
    answer = server.call("POST", f"/backups/{backup['id']}/restore", body)
    return answer


def restored(server, answer):
    assert answer.status_code == 202, answer.text
    log = server.finished(answer.json()["job_id"])
    assert log["status"] == "success", log


def test_files_go_back_to_where_they_were(lab):
    server, agent = lab
    before = state(agent.files)
    backup = server.back_up(server.vault)
    (agent.files / "docs/007").write_bytes(b"wrecked")
    (agent.files / "docs/large").unlink()
    (agent.files / "docs/008").unlink()
    (agent.files / "docs/008").symlink_to("/etc/passwd")
    (agent.files / "new").write_bytes(b"made since")
    restored(server, restore(server, backup, "db-1"))
    assert (agent.files / "new").read_bytes() == b"made since"
    (agent.files / "new").unlink()
    os.utime(agent.files, ns=(0, before["."][3]))
    same(state(agent.files), before)

    # A part of it, and one file.
    for name in ("docs/000", "docs/001"):
        (agent.files / name).unlink()
    restored(server, restore(server, backup, "db-1", source_path=f"{agent.files}/docs/000"))
    assert (agent.files / "docs/000").exists() and not (agent.files / "docs/001").exists()
    (agent.files / os.fsdecode(b"\xff name\n")).unlink()
    # As it is listed.
    server.cli("restore", backup["id"], "--path", f"{agent.files}/\\xff name\\x0a", "--wait")
    assert (agent.files / os.fsdecode(b"\xff name\n")).read_bytes() == b"odd"
    assert restore(server, backup, "db-1", source_path="a\\b").status_code == 400
    server.cli("restore", backup["id"], "--path", f"{agent.files}/docs", "--wait")
    same(state(agent.files / "docs"), {
        path.removeprefix("docs/") if path != "docs" else ".": entry
        for path, entry in rebased(before, "docs").items()
    })


def rebased(seen, folder):
    """What was seen below a folder, with the names of links as they are from there."""
    found = {}
    for path, entry in seen.items():
        if path == folder or path.startswith(f"{folder}/"):
            entry = [part.removeprefix(f"{folder}/") if isinstance(part, str) else part for part in entry]
            found[path] = entry
    return found


def test_files_go_to_another_host_by_a_path_that_is_named(lab, tmp_path):
    server, agent = lab
    backup = server.back_up(server.vault)
    other = Agent(server, tmp_path / "other", "db-2")
    other.folder.mkdir()
    other.register()
    other.start()
    try:
        refused = restore(server, backup, "db-2")
        assert refused.status_code == 400 and "destination_path" in refused.text
        for path in ("/a/../b", ".."):
            refused = restore(server, backup, "db-2", destination_path=path)
            assert refused.status_code == 400, refused.text
        target = tmp_path / "target"
        answer = restore(
            server, backup, "db-2", destination_path=str(target), source_path=str(agent.files)
        )
        restored(server, answer)
        there = state(agent.files)
        del there["skipped.tmp"]
        same(state(target), there)
    finally:
        other.kill()


def test_an_agent_that_forbids_restores_keeps_its_files(lab):
    server, agent = lab
    backup = server.back_up(server.vault)
    agent.kill()
    (agent.state / "agent.toml").write_text("allow_restore = false\n")
    (agent.state / "agent.toml").chmod(0o600)
    agent.start()
    (agent.files / "docs/007").unlink()
    answer = restore(server, backup, "db-1")
    assert answer.status_code == 202, answer.text
    log = server.finished(answer.json()["job_id"])
    message = log["error_info"]["message"]
    assert log["status"] == "failed" and "the host's agent does not allow restores" in message, log
    assert "may hold a part" not in message, "nothing was written"
    assert not (agent.files / "docs/007").exists()


def test_what_the_host_holds_back_of_a_path_is_told(lab):
    server, agent = lab
    agent.kill()
    (agent.state / "agent.toml").write_text(f'allow_paths = ["{agent.files}/docs"]\n')
    (agent.state / "agent.toml").chmod(0o600)
    agent.start()
    backup = server.back_up(server.vault)
    assert list(listed(server, backup, str(agent.files))) == ["docs"]
    reason = "left out: the host's agent does not allow what else is in this directory"
    problem = f"{str(agent.files)[1:]}/*: {reason}"
    assert backup["extend_info"]["file_problems"] == {"count": 1, "first": [problem]}


@pytest.fixture(name="device")
def fixture_device(tmp_path):
    """A block device of 8 MiB, of which the first and the last quarter are data."""
    if os.geteuid() != 0:
        pytest.skip("only root has block devices")
    content = tmp_path / "device.img"
    with open(content, "wb") as file:
        file.truncate(8 * MIB)
        for offset in (0, 6 * MIB):
            file.seek(offset)
            file.write(random.Random(offset).randbytes(2 * MIB))
    device = run("losetup", "--find", "--show", content).stdout.strip()
    yield device
    run("losetup", "--detach", device)


def read_device(device):
    run("blockdev", "--flushbufs", device)
    with open(device, "rb") as file:
        return file.read()


def test_a_block_device_is_restored_in_place(lab, device, tmp_path):
    server, agent = lab
    server.cli("agent", "add-path", "db-1", device)
    before = read_device(device)
    backup = server.back_up(server.vault)
    node = os.stat(device)
    with open(device, "r+b") as file:
        file.write(random.Random(1).randbytes(8 * MIB))
    assert read_device(device) != before
    restored(server, restore(server, backup, "db-1", source_path=device))
    assert read_device(device) == before
    now = os.stat(device)
    assert (now.st_mode, now.st_uid, now.st_rdev) == (node.st_mode, node.st_uid, node.st_rdev)

    def refused(expected, **details):
        answer = restore(server, backup, "db-1", source_path=device, **details)
        log = server.finished(answer.json()["job_id"])
        assert log["status"] == "failed" and expected in json.dumps(log), log

    # A node that somebody has put into a folder leads out of that: nothing is written there.
    folder = tmp_path / "folder"
    folder.mkdir()
    os.mknod(folder / device.removeprefix("/dev/"), node.st_mode, node.st_rdev)
    with open(device, "r+b") as file:
        file.write(b"changed since")
    changed = read_device(device)
    refused("in the way", destination_path=str(folder))
    assert read_device(device) == changed
    # One that is in use.
    run("/usr/sbin/mkfs.ext4", "-q", "-F", device)
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    run("mount", device, mounted)
    try:
        (mounted / "file").write_text("in use")
        refused("mounted")
        assert (mounted / "file").read_text() == "in use"
    finally:
        run("umount", mounted)
    # One of another size.
    with open(tmp_path / "device.img", "r+b") as file:
        file.truncate(4 * MIB)
    run("losetup", "--set-capacity", device)
    changed = read_device(device)
    refused("were saved")
    assert read_device(device) == changed
