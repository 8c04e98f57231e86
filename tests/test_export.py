"""Backups that are served at once: by real clients of the protocol, libnbd's and QEMU's."""

import contextlib
import hashlib
import json
import os
import signal
import subprocess

import pytest
from harness import CAIRN, CONFIG, MIB, PATIENCE_S, Disk, Server, run, wait_for

SCRATCH = "\n[exports]\nscratch_gb = 0\n"


@contextlib.contextmanager
def serving(server, backup, socket, *options, environment=None):
    """`cairn backup serve` in a process of its own, once it is ready."""
    environment = environment or {"CAIRN_CREDENTIALS": str(server.credentials_file)}
    process = subprocess.Popen(
        [CAIRN, "backup", "serve", backup, "--socket", socket, *options, "-o", "json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment},
    )
    try:
        said = ""
        while not said.rstrip().endswith("}"):
            line = process.stdout.readline()
            assert line, process.stderr.read()
            said += line
        process.export = json.loads(said)
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE_S)
        process.stdout.close()
        process.stderr.close()


def uri(socket):
    return f"nbd+unix:///?socket={socket}"


def copied(socket, target):
    """All that is served, by nbdcopy."""
    run("nbdcopy", uri(socket), target)
    digest = hashlib.sha256(target.read_bytes()).hexdigest()
    target.unlink()
    return digest


@pytest.fixture(name="backups", scope="module")
def fixture_backups(lab):
    """Backups of the lab's disk and server, whose disks have changed since, and what they held."""
    single = lab.create_vault("export-disk", "disk", [lab.protectables()["disk.img"]])
    both = lab.create_vault("export-server", "server", [lab.protectables("server")["web-1"]])
    disk, server = lab.back_up(single), lab.back_up(both)
    held = {name: image.digest() for name, image in lab.disks.items()}
    for number, image in enumerate(lab.disks.values()):
        image.change(share=0.2, seed=number)
    named = {child["resource_name"]: child["id"] for child in server["children"]}
    return {"disk.img": disk["id"], **named, "server": server["id"]}, held


def test_every_byte_is_as_it_was(lab, backups, tmp_path):
    ids, held = backups
    for name, digest in held.items():
        with serving(lab, ids[name], tmp_path / "s") as process:
            assert copied(tmp_path / "s", tmp_path / "copy") == digest
            compared = run(
                "qemu-img", "convert", "-f", "raw", "-O", "raw", uri(tmp_path / "s"), tmp_path / "copy"
            )
            assert compared.returncode == 0
            assert hashlib.sha256((tmp_path / "copy").read_bytes()).hexdigest() == digest
            assert (tmp_path / "s").stat().st_mode & 0o777 == 0o600
            shown = lab.ok("GET", f"/exports/{process.export['id']}")["export"]
            assert (shown["backup_id"], shown["resource_name"]) == (ids[name], name)
        assert process.returncode == 0
        assert not (tmp_path / "s").exists()
    assert lab.ok("GET", "/exports") == {"exports": [], "count": 0}


def test_holes_are_told(lab, backups, tmp_path):
    ids, _ = backups
    with serving(lab, ids["disk.img"], tmp_path / "s"):
        told = json.loads(run("nbdinfo", "--map", "--json", uri(tmp_path / "s")).stdout)
        holes = sum(run["length"] for run in told if run["type"] == 3)
        # Two of five blocks were never written.
        assert 24 * MIB * 0.25 < holes < 24 * MIB * 0.55
        flags = json.loads(run("nbdinfo", "--json", uri(tmp_path / "s")).stdout)["exports"][0]
        assert flags["is_read_only"] and flags["can_multi_conn"] and not flags["can_trim"]
        refused = run("qemu-io", "-f", "raw", "-c", "write 0 4096", uri(tmp_path / "s"), check=False)
        assert refused.returncode != 0


def test_what_is_written_goes_with_the_export(lab, backups, tmp_path):
    ids, held = backups
    with serving(lab, ids["disk.img"], tmp_path / "s", "--writable") as process:
        commands = [
            "write -P 7 100000 300000", "write -z 200000 4096", "discard 1048576 65536", "flush",
            "read -P 7 100000 100000", "read -P 0 200000 4096", "read -P 0 1048576 65536",
        ]
        arguments = [part for command in commands for part in ("-c", command)]
        said = run("qemu-io", "-f", "raw", *arguments, uri(tmp_path / "s")).stdout
        assert "failed" not in said
        # Another connection sees the same.
        run("qemu-io", "-f", "raw", "-r", "-c", "read -P 7 204096 195904", uri(tmp_path / "s"))
        shown = lab.ok("GET", f"/exports/{process.export['id']}")["export"]
        assert shown["writable"] and 300000 < shown["written_bytes"] < MIB
    with serving(lab, ids["disk.img"], tmp_path / "s"):
        assert copied(tmp_path / "s", tmp_path / "copy") == held["disk.img"]


def test_a_backup_that_is_no_disks_is_refused(lab, backups, tmp_path):
    ids, _ = backups
    refused = lab.cli("backup", "serve", ids["server"], "--socket", tmp_path / "s", check=False)
    assert refused.returncode == 2
    assert ids["web-root.qcow2"] in refused.stderr and "several disks" in refused.stderr
    answer = lab.call("POST", f"/backups/{ids['server']}/exports", {"export": {}})
    assert (answer.status_code, answer.json()["error_code"]) == (400, "Cairn.0005")
    gone = lab.call("GET", "/exports/3b5816b5-f29c-4172-9d9a-76c719a659ce")
    assert (gone.status_code, gone.json()["error_code"]) == (404, "Cairn.0006")


def test_sockets_in_use_and_left_behind(lab, backups, tmp_path):
    ids, held = backups
    with serving(lab, ids["disk.img"], tmp_path / "s") as first:
        refused = lab.cli("backup", "serve", ids["disk.img"], "--socket", tmp_path / "s", check=False)
        assert refused.returncode == 2 and "cannot listen" in refused.stderr
        first.kill()
        first.wait()
        assert (tmp_path / "s").exists()
        # The server knows of no connection any more; the export itself ends after a while.
        listed = lab.ok("GET", "/exports")["exports"]
        assert [one["id"] for one in listed] == [first.export["id"]]
        lab.ok("DELETE", f"/exports/{first.export['id']}")
    with serving(lab, ids["disk.img"], tmp_path / "s"):
        assert copied(tmp_path / "s", tmp_path / "copy") == held["disk.img"]
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    refused = lab.cli("backup", "serve", ids["disk.img"], "--socket", tmp_path / "file", check=False)
    assert refused.returncode == 2
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"


def test_there_are_not_too_many(lab, backups):
    ids, _ = backups
    made = []
    while True:
        answer = lab.call("POST", f"/backups/{ids['disk.img']}/exports", {"export": {"writable": True}})
        if answer.status_code != 201:
            break
        made.append(answer.json()["export"]["id"])
    assert len(made) == 16 and answer.json()["error_code"] == "Cairn.0004"
    for export in made:
        lab.ok("DELETE", f"/exports/{export}")


def test_another_project_gets_nothing(lab, backups, tmp_path):
    ids, _ = backups
    other = lab.create_project("export-other")
    with serving(lab, ids["disk.img"], tmp_path / "s") as process:
        sign = {"access_key": other["access_key"], "secret_key": other["secret_key"]}
        for method, path, body in [
            ("POST", f"/backups/{ids['disk.img']}/exports", {"export": {}}),
            ("GET", f"/exports/{process.export['id']}", None),
            ("DELETE", f"/exports/{process.export['id']}", None),
            ("GET", f"/exports/{process.export['id']}/connection", None),
        ]:
            answer = lab.call(
                method, path, body, sign=sign, project=other["project_id"],
                headers={"x-project-id": lab.project, "upgrade": "nbd", "connection": "upgrade"},
            )
            assert answer.status_code in (401, 403, 404), (path, answer.text)


def ended(process):
    """What the command said when it had to end."""
    assert process.wait(PATIENCE_S) != 0
    return process.stderr.read()


def test_it_ends_with_the_backup_and_with_the_server(tmp_path):
    Disk(tmp_path / "images/disk.img").create(8 * MIB, seed=5)
    config = CONFIG.split("[[source.server]]", maxsplit=1)[0]
    with Server(tmp_path, config) as server:
        vault = server.create_vault("v", "disk", [server.protectables()["disk.img"]])
        backup = server.back_up(vault)["id"]
        kept = server.back_up(vault)["id"]
        with serving(server, backup, tmp_path / "s") as process:
            server.delete_backup(backup)
            wait_for("the export's end", lambda: server.ok("GET", "/exports")["count"] == 0)
            said = ended(process)
            assert "is gone, and what was written to it" in said and "Export does not exist" in said
        with serving(server, kept, tmp_path / "s") as process:
            opened = subprocess.Popen(
                ["qemu-io", "-f", "raw", "-r", uri(tmp_path / "s")],
                stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )
            wait_for(
                "a connection", lambda: server.ok("GET", "/exports")["exports"][0]["connections"] == 1
            )
            # While it is away it may have the export still; once it is back it says that it has not.
            assert server.stop() == 0
            opened.communicate(timeout=PATIENCE_S)
            assert any("the server does not answer" in line for line in process.stderr)
            server.start()
            assert "is gone, and what was written to it" in ended(process)


def test_damage_is_an_error_and_never_other_bytes(tmp_path):
    image = Disk(tmp_path / "images/disk.img").create(8 * MIB, seed=6, share=1)
    config = CONFIG.split("[[source.server]]", maxsplit=1)[0]
    with Server(tmp_path, config + SCRATCH) as server:
        vault = server.create_vault("v", "disk", [server.protectables()["disk.img"]])
        backup = server.back_up(vault)["id"]
        before = image.content()
        packs = [path for path in (server.data / "repository").rglob("packs/**/*") if path.is_file()]
        largest = max(packs, key=lambda path: path.stat().st_size)
        with open(largest, "r+b") as file:
            file.seek(largest.stat().st_size // 2)
            old = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([old[0] ^ 1]))
        with serving(server, backup, tmp_path / "s"):
            good = bad = 0
            for at in range(0, len(before), MIB):
                command = f"read -v {at} {MIB}"
                read = run("qemu-io", "-f", "raw", "-r", "-c", command, uri(tmp_path / "s"), check=False)
                if "read failed" in read.stdout + read.stderr:
                    bad += 1
                    continue
                rows = (line.split(":", 1)[1] for line in read.stdout.splitlines() if ": " in line[:12])
                held = b"".join(bytes.fromhex("".join(row.split()[:16])) for row in rows)
                assert held == before[at : at + MIB]
                good += 1
            assert bad > 0 and good + bad == 8
        # There is no room for what is written, which is said, and harms nothing.
        kept = server.back_up(vault, incremental=False)["id"]
        with serving(server, kept, tmp_path / "s", "--writable"):
            said = run(
                "qemu-io", "-f", "raw", "-c", "write -P 1 0 65536", uri(tmp_path / "s"), check=False
            )
            assert "No space left" in said.stdout + said.stderr
