"""Replication between two servers: what goes over the wire, and what happens when it does not."""

import errno
import hashlib
import secrets
import socket
import time

import pytest
from harness import FINAL, MIB, PATIENCE_S, Disk, Server, wait_for
from wire import Wire

CONFIG = """\
region = "{name}"

[[source]]
kind = "images"
name = "lab"
path = "images"

[[source.server]]
name = "web-1"
disks = ["web-root.img", "web-data.img"]
"""

REGION = """
[replication]
{more}
[[replication.region]]
name = "right"
endpoint = "{endpoint}"
access_key = "{access_key}"
secret_key_file = "{secret}"
{own}
"""


class Pair:
    """Two servers, `left` and `right`, and the wire by which left replicates to right."""

    def __init__(self, folder, root_mib=40, data_mib=24, more="", own="", secret=None, there=CONFIG):
        self.disks, self.copies = {}, {}
        for name, size, seed in (("web-root.img", root_mib, 1), ("web-data.img", data_mib, 2)):
            path = folder / "left/images" / name
            self.disks[name] = Disk(path).create(size * MIB + 512, seed=seed, share=0.9)
            # The same disk, of other bytes, is there on the far side.
            self.copies[name] = Disk(folder / "right/images" / name).create(
                size * MIB + 512, seed=seed + 100, share=0.1
            )
        self.right = Server(folder / "right", there.format(name="right")).start()
        self.wire = Wire(self.right.port)
        known = self.right.credentials
        (folder / "left/secret").write_text((secret or known["secret_key"]) + "\n")
        region = REGION.format(
            more=more, own=own, endpoint=self.wire.endpoint, access_key=known["access_key"],
            secret="secret",
        )
        self.left = Server(folder / "left", CONFIG.format(name="left") + region).start()
        self.vault = self.left.create_vault(
            "servers", "server", [self.left.protectables("server")["web-1"]]
        )
        self.target = make_vault(self.right, "server", "replication")

    def replicate(self, backup, **change):
        """Asks for a replica; the answer."""
        place = {
            "destination_region": "right",
            "destination_project_id": self.right.project,
            "destination_vault_id": self.target,
        }
        body = {"replicate": {**place, **change}}
        return self.left.call("POST", f"/backups/{backup['id']}/replicate", body)

    def begin(self, backup):
        """Begins to replicate a backup; the replica's id."""
        answer = self.replicate(backup)
        assert answer.status_code == 202, answer.text
        return self.record(backup)["destination_backup_id"]

    def record(self, backup):
        """The newest replication record of a backup."""
        shown = self.left.ok("GET", f"/backups/{backup['id']}")["backup"]
        return shown["replication_records"][0]

    def ended(self, backup, wanted="success"):
        def final():
            record = self.record(backup)
            return record if record["status"] in ("success", "fail") else None

        record = wait_for("the end of a replication", final)
        assert record["status"] == wanted, record
        return record

    def stored(self):
        """What the packs on the far side hold, in bytes."""
        packs = (self.right.data / "repository").rglob("packs/**/*")
        return sum(path.stat().st_size for path in packs if path.is_file())

    def restores_to(self, replica, digests):
        """The replica is there and restores on the far side to these bytes."""
        shown = self.right.ok("GET", f"/backups/{replica}")["backup"]
        assert (shown["status"], shown["image_type"]) == ("available", "replication")
        for copy in self.copies.values():
            copy.wreck(seed=7)
        self.right.restore(shown)
        assert {name: copy.digest() for name, copy in self.copies.items()} == digests

    def digests(self):
        return {name: disk.digest() for name, disk in self.disks.items()}

    def close(self):
        for server in (self.left, self.right):
            if server.process.poll() is None:
                server.kill()


def make_vault(server, object_type, protect_type, size=100):
    billing = {
        "object_type": object_type, "protect_type": protect_type, "size": size,
        "consistent_level": "crash_consistent", "charging_mode": "post_paid",
    }
    body = {"vault": {"name": f"{protect_type}-{size}", "billing": billing, "resources": []}}
    return server.ok("POST", "/vaults", body)["vault"]["id"]


@pytest.fixture
def make_pair(tmp_path):
    pairs = []

    def make(**kwargs):
        pairs.append(Pair(tmp_path / str(len(pairs)), **kwargs))
        return pairs[-1]

    yield make
    for pair in pairs:
        print(f"--- left\n{pair.left.log_tail()}\n--- right\n{pair.right.log_tail()}")
        pair.close()


def operations(server):
    logs = server.ok("GET", "/operation-logs?operation_type=replication")["operation_logs"]
    return [(log["status"], log["extra_info"]["common"]["progress"]) for log in logs]


def test_a_cut_link_is_waited_for_and_only_what_is_new_goes_over(make_pair):
    pair = make_pair()
    first, before = pair.left.back_up(pair.vault), pair.digests()
    wire = pair.wire
    wire.cut_at = 20 * MIB
    replica = pair.begin(first)
    wire.wait_until(lambda wire: wire.is_cut)
    assert pair.record(first)["status"] in ("replicating", "waiting_replicate")
    shown = pair.right.ok("GET", f"/backups/{replica}")["backup"]
    assert shown["status"] == "protecting"
    wire.mend()
    record = pair.ended(first)
    assert (record["destination_region"], record["source_region"]) == ("right", "left")
    wait_for("the end of the far task", lambda: operations(pair.right) == [("success", 100)])
    assert operations(pair.left) == [("success", 100)]
    stored = pair.stored()
    assert stored > 50 * MIB
    assert wire.sent <= 1.1 * stored, f"{wire.sent} bytes for {stored}"

    # Once more: nothing has changed, and next to nothing goes over.
    second = pair.left.back_up(pair.vault)
    sent = wire.sent
    pair.begin(second)
    pair.ended(second)
    assert wire.sent - sent < MIB // 4, wire.sent - sent

    # A hundredth has changed, and about that goes over.
    for disk in pair.disks.values():
        disk.change(0.01, seed=5)
    third, after = pair.left.back_up(pair.vault), pair.digests()
    sent, stored = wire.sent, pair.stored()
    last = pair.begin(third)
    pair.ended(third)
    new = pair.stored() - stored
    assert wire.sent - sent <= 1.1 * new + MIB // 4, f"{wire.sent - sent} bytes for {new}"

    # The replicas stand alone.
    assert pair.left.stop() == 0
    pair.restores_to(last, after)
    pair.restores_to(replica, before)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_killed_server_goes_on_and_sends_little_again(make_pair, side):
    pair = make_pair(root_mib=150, data_mib=10)
    backup, before = pair.left.back_up(pair.vault), pair.digests()
    pair.wire.stop_at = 110 * MIB
    replica = pair.begin(backup)
    pair.wire.wait_until(lambda wire: wire.stopped)
    getattr(pair, side).kill()
    pair.wire.cut()
    pair.wire.mend()
    getattr(pair, side).start()
    pair.ended(backup)
    stored = pair.stored()
    again = pair.wire.sent - 1.02 * stored
    # The far side loses what was in no durable pack, the near side only what was on the way.
    most = {"left": 20, "right": 64}[side]
    assert again <= most * MIB, f"{pair.wire.sent} bytes for {stored}"
    pair.left.stop()
    pair.restores_to(replica, before)


def test_who_gives_up_leaves_nothing(make_pair):
    pair = make_pair()
    empty = pair.right.objects()
    backup = pair.left.back_up(pair.vault)
    pair.wire.stop_at = 10 * MIB
    replica = pair.begin(backup)
    pair.wire.wait_until(lambda wire: wire.stopped)
    # The same again is the same replica's, not another.
    assert pair.replicate(backup).json()["error_code"] == "BackupService.1009"
    start = time.monotonic()
    assert pair.right.call("DELETE", f"/replicas/{replica}").status_code == 204
    gone = lambda: pair.right.call("GET", f"/backups/{replica}").status_code == 404
    wait_for("the end of the replica", gone)
    assert time.monotonic() - start < 10
    pair.wire.mend()
    record = pair.ended(backup, "fail")
    assert record["extra_info"]["fail_reason"]
    wait_for("the collection of what had come", lambda: pair.right.objects() == empty)
    assert pair.right.call("DELETE", f"/replicas/{replica}").status_code == 404
    # It may be asked for again.
    again = pair.begin(backup)
    pair.ended(backup)
    assert pair.right.ok("GET", f"/backups/{again}")["backup"]["status"] == "available"


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_cancelled_replication_ends_on_both_sides(make_pair, side):
    pair = make_pair(own="bandwidth_mbit = 8")
    empty = pair.right.objects()
    backup = pair.left.back_up(pair.vault)
    replica = pair.begin(backup)
    pair.wire.wait_until(lambda wire: wire.sent > 2 * MIB)
    server = getattr(pair, side)
    [log] = server.ok("GET", "/operation-logs?operation_type=replication")["operation_logs"]
    start = time.monotonic()
    server.ok("POST", f"/operation-logs/{log['id']}/cancel")
    assert server.finished(log["id"])["status"] == "failed"
    assert pair.ended(backup, "fail")["extra_info"]["fail_reason"]
    other = pair.left if side == "right" else pair.right
    other.all_operations_finished()
    assert time.monotonic() - start < 10
    shown = pair.right.call("GET", f"/backups/{replica}")
    gone = shown.status_code == 404
    assert gone if side == "left" else shown.json()["backup"]["status"] == "error"
    wait_for("the collection of what had come", lambda: pair.right.objects() == empty)
    # It may be asked for again.
    assert pair.begin(backup) != replica


def test_a_limit_of_speed_is_kept(make_pair):
    pair = make_pair(root_mib=20, data_mib=4, more="bandwidth_mbit = 400", own="bandwidth_mbit = 40")
    backup = pair.left.back_up(pair.vault)
    start = time.monotonic()
    pair.begin(backup)
    pair.ended(backup)
    least = pair.wire.sent / (40e6 / 8)
    took = time.monotonic() - start
    assert 0.8 * least < took < 5 * least + 10, f"{took} s, and {least} s at 40 Mbit/s"


def test_refusals_are_those_of_the_far_side(make_pair):
    pair = make_pair()
    backup = pair.left.back_up(pair.vault)
    backups = make_vault(pair.right, "server", "backup")
    turbos = make_vault(pair.right, "turbo", "replication")
    refused = [
        ({"destination_region": "nowhere"}, 400, "1005"),
        ({"destination_vault_id": backup["id"]}, 400, "6120"),
        ({"destination_vault_id": backups}, 400, "6119"),
        ({"destination_vault_id": turbos}, 400, "6118"),
        ({"destination_project_id": secrets.token_hex(16)}, 400, "1011"),
    ]
    for change, status, code in refused:
        answer = pair.replicate(backup, **change)
        found = answer.status_code, answer.json()["error_code"]
        assert found == (status, f"BackupService.{code}"), answer.text
    pair.wire.cut()
    assert pair.replicate(backup).status_code == 503
    pair.wire.mend()
    assert pair.left.ok("GET", f"/backups/{backup['id']}")["backup"]["replication_records"] == []
    assert pair.right.backups() == []

    # What there is to replicate to, as far as left knows.
    regions = pair.left.ok("GET", "/replication-capabilities")["regions"]
    assert regions == [{"name": "left", "replication_destinations": ["left", "right"]}]
    query = f"region_id=right&external_project_id={pair.right.project}&protect_type=replication"
    vaults = pair.left.ok("GET", f"/vaults/external?{query}")["vaults"]
    assert {vault["id"] for vault in vaults} == {pair.target, turbos}


def test_a_wrong_secret_opens_nothing(make_pair):
    pair = make_pair(secret="x" * 40)
    backup = pair.left.back_up(pair.vault)
    answer = pair.replicate(backup)
    assert (answer.status_code, answer.json()["error_code"]) == (400, "BackupService.1005"), answer.text
    assert pair.right.backups() == []


def test_whatever_is_done_to_the_wire_nothing_wrong_is_stored(make_pair):
    pair = make_pair()
    backup, before = pair.left.back_up(pair.vault), pair.digests()
    pair.wire.flip_at = 9 * MIB
    pair.wire.cut_at = 18 * MIB
    replica = pair.begin(backup)
    pair.wire.wait_until(lambda wire: wire.is_cut)
    # Somebody else calls: signed, but knowing no secret; signed, and then garbage; not signed at all.
    path = f"/v3/{pair.right.project}/replicas/{replica}/connection"
    assert "not authentic" in pair.right.log.read_text()
    for rubbish in (b"", b"GET / HTTP/1.1\r\n\r\n", secrets.token_bytes(5000), b"\xff" * 400):
        assert foreign(pair.right, path, rubbish) == b""
    unsigned = pair.right.call("GET", path.removeprefix(f"/v3/{pair.right.project}"), headers={
        "Upgrade": "cairn-replica/1", "Connection": "upgrade", "authorization": "nobody",
        "X-Cairn-Key": "00" * 32,
    })
    assert unsigned.status_code == 401
    plain = pair.right.call("GET", path.removeprefix(f"/v3/{pair.right.project}"))
    assert plain.status_code == 400
    pair.wire.mend()
    pair.ended(backup)
    pair.restores_to(replica, before)


def foreign(server, path, rubbish):
    """Connects as a source would, with a good signature, and says something else; what comes back."""
    headers = {
        **server.signature("GET", path, "", b""),
        "Upgrade": "cairn-replica/1", "Connection": "upgrade", "X-Cairn-Key": secrets.token_hex(32),
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as raw:
        raw.sendall(f"GET {path} HTTP/1.1\r\n{head}\r\n".encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += raw.recv(4096)
        status, _, rest = answer.partition(b"\r\n\r\n")
        assert status.startswith(b"HTTP/1.1 101"), answer
        try:
            raw.sendall(rubbish)
            raw.shutdown(socket.SHUT_WR)
            while piece := raw.recv(4096):
                rest += piece
        except OSError as error:
            # It may have hung up before all was said.
            if error.errno not in (errno.ECONNRESET, errno.ENOTCONN, errno.EPIPE):
                raise
    return rest


RULES = "\n[replication]\ndisks = true\nreplicas = true\n"


def test_disks_and_replicas_are_replicated_where_that_is_set(make_pair):
    pair = make_pair(more="disks = true\nreplicas = true", there=CONFIG + RULES)
    disk = Disk(pair.left.images / "data.img").create(6 * MIB, seed=9)
    Disk(pair.right.images / "data.img").create(6 * MIB, seed=10)
    disks = pair.left.create_vault("disks", "disk", [pair.left.protectables()["data.img"]])
    backup = pair.left.back_up(disks)
    target = make_vault(pair.right, "disk", "replication")
    answer = pair.replicate(backup, destination_vault_id=target)
    assert answer.status_code == 202, answer.text
    record = pair.ended(backup)
    replica = pair.right.ok("GET", f"/backups/{record['destination_backup_id']}")["backup"]
    pair.right.restore(replica)
    assert hashlib.sha256((pair.right.images / "data.img").read_bytes()).hexdigest() == disk.digest()

    # The replica goes on to a further vault, of the same server.
    further = make_vault(pair.right, "disk", "replication", size=50)
    place = {
        "destination_region": "right", "destination_project_id": pair.right.project,
        "destination_vault_id": further,
    }
    pair.right.ok("POST", f"/backups/{replica['id']}/replicate", {"replicate": place})
    pair.right.all_operations_finished()
    shown = pair.right.ok("GET", f"/backups/{replica['id']}")["backup"]["replication_records"]
    assert [one["status"] for one in shown] == ["success"]


def test_a_replica_restores_onto_a_server_of_another_name(make_pair):
    there = CONFIG.replace('name = "lab"', 'name = "dr"').replace("web-1", "standby")
    pair = make_pair(there=there)
    before = pair.digests()
    backup = pair.left.back_up(pair.vault)
    replica = pair.begin(backup)
    pair.ended(backup)
    shown = pair.right.ok("GET", f"/backups/{replica}")["backup"]
    mappings = [
        f"--mapping={child['id']}={child['resource_name']}"
        for child in shown["children"]
    ]
    pair.right.cli("restore", replica, "--to", "standby", *mappings, "--wait")
    assert {name: copy.digest() for name, copy in pair.copies.items()} == before


def test_a_vault_is_replicated_as_a_whole(make_pair):
    pair = make_pair()
    backups = [pair.left.back_up(pair.vault, name=f"b{number}") for number in range(3)]
    place = {
        "vault_id": pair.vault, "destination_region": "right",
        "destination_project_id": pair.right.project, "destination_vault_id": pair.target,
    }
    begun = pair.left.ok("POST", "/checkpoints/replicate", {"replicate": place})["replication"]
    assert {one["backup_id"] for one in begun["backups"]} == {one["id"] for one in backups}
    for backup in backups:
        pair.ended(backup)
    names = sorted(one["name"] for one in pair.right.backups())
    assert names == ["b0", "b1", "b2"]
    again = pair.left.call("POST", "/checkpoints/replicate", {"replicate": place})
    assert again.json()["error_code"] == "BackupService.0001"
    # One that is deleted there may be asked for again.
    pair.right.delete_backup(pair.record(backups[0])["destination_backup_id"])
    pair.begin(backups[0])
    pair.ended(backups[0])
    assert {log["status"] for log in pair.left.ok("GET", "/operation-logs")["operation_logs"]} <= FINAL
