"""A server whose repository lies in a bucket of a real S3 server."""

import re
import subprocess
import time
import uuid
from contextlib import contextmanager

import pytest
from harness import CAIRN, CONFIG, MIB, Disk, Server, run, wait_for
from seaweed import ACCESS_KEY, BUCKET, SECRET_KEY, S3Server


@pytest.fixture(name="s3", scope="module")
def fixture_s3(tmp_path_factory):
    with S3Server(tmp_path_factory.mktemp("s3")) as server:
        yield server


class BucketServer(Server):
    """A server with its repository in a place of its own in the bucket."""

    def __init__(self, folder, s3, *, options="", limits="", secret=SECRET_KEY, bucket=BUCKET):
        folder.mkdir(parents=True, exist_ok=True)
        self.prefix = uuid.uuid4().hex
        (folder / "keys").write_text(
            f"[default]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {secret}\n",
            encoding="utf-8",
        )
        section = (
            f'[repository.s3]\nbucket = "{bucket}"\nprefix = "{self.prefix}"\n'
            f'endpoint = "{s3.endpoint}"\ncredentials_file = "keys"\n{options}\n'
            f"[repository.limits]\n{limits}\n"
        )
        super().__init__(folder, section + CONFIG)
        self.s3 = s3

    def repository(self):
        return ["--config", self.config, "--master-key-file", self.data / "master.key"]

    def objects(self):
        names = (name.removeprefix(f"{self.prefix}/") for name in self.s3.objects(f"/buckets/{BUCKET}/{self.prefix}"))
        others = re.compile(r"config|log/.*|probe/.*|.*/keys/.*|.*/losses")
        return [name for name in names if not others.fullmatch(name)]

    def start_in_vain(self):
        """Starts the server, which must end by itself; returns what it says."""
        command = [CAIRN, "server", "--config", self.config, "--data-dir", self.data, "--listen", "127.0.0.1:0"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 1, done.stderr
        assert SECRET_KEY not in done.stderr
        return done.stderr

    def verified(self):
        return run(CAIRN, "repo", "verify", "--full", *self.repository()).stdout


@contextmanager
def at_work(server, size=12 * MIB, share=0.6):
    """A server with a disk that a vault protects."""
    disk = Disk(server.images / "disk.img").create(size, 1, share)
    with server:
        yield disk, server.create_vault("disks", "disk", [server.protectables("disk")["disk.img"]])


def test_backup_restore_delete_and_collection_in_a_bucket(tmp_path, s3):
    server = BucketServer(tmp_path, s3)
    with at_work(server, 80 * MIB, share=0.9) as (disk, vault):
        first = server.back_up(vault, "first")
        before = disk.digest()
        disk.change(0.2, seed=2)
        second = server.back_up(vault, "second")
        changed = disk.digest()
        for backup, expected in ((first, before), (second, changed)):
            disk.wreck(seed=3)
            server.restore(backup)
            assert disk.digest() == expected
        assert "2 backups, no problems" in server.verified()
        assert not (server.data / "repository").exists()

        # The bucket and the key are enough.
        image = tmp_path / "restored.img"
        run(CAIRN, "repo", "restore", *server.repository(), second["id"], image)
        assert Disk(image).digest() == changed

        stored = len(server.objects())
        server.delete_backup(first["id"])
        server.delete_backup(second["id"])
        wait_for("the collection of everything", lambda: not server.objects())
        assert stored > 4
        assert server.stop() == 0
        server.start()
        third = server.back_up(vault, "third")
        disk.wreck(seed=4)
        server.restore(third)
        assert disk.digest() == changed


def test_a_server_killed_in_the_middle_of_an_upload_goes_on_and_hurts_nothing(tmp_path, s3):
    server = BucketServer(tmp_path, s3, limits=f"upload_bytes_per_second = {8 * MIB}")
    with at_work(server, 4 * MIB) as (disk, vault):
        kept = server.back_up(vault, "kept")
        expected = disk.digest()
        # More than a part of an upload: what is under way is at the server for some seconds.
        big = Disk(server.images / "big.img").create(48 * MIB, seed=5, share=1)
        other = server.create_vault("big", "disk", [server.protectables("disk")["big.img"]])
        checkpoint = server.start_backup(other)
        wait_for("an upload", s3.uploads)
        server.kill()
        assert "1 backup, no problems" in server.verified()
        server.start()
        [cut_off] = server.backups(f"checkpoint_id={checkpoint}")
        server.settled_backup(cut_off["id"], "available")
        assert "2 backups, no problems" in server.verified()
        whole = big.digest()
        big.wreck(seed=6)
        server.restore(cut_off)
        assert big.digest() == whole
        disk.wreck(seed=7)
        server.restore(kept)
        assert disk.digest() == expected


def test_a_store_that_dies_and_returns_costs_a_backup_only_time(tmp_path):
    with S3Server(tmp_path / "s3") as s3:
        server = BucketServer(tmp_path / "cairn", s3, limits=f"upload_bytes_per_second = {8 * MIB}")
        with at_work(server, 64 * MIB, share=1) as (disk, vault):
            checkpoint = server.start_backup(vault)
            wait_for("an upload", s3.uploads)
            s3.kill()
            wait_for("the first repetition", lambda: "asked again" in server.log.read_text(encoding="utf-8"))
            s3.start()
            [backup] = server.backups(f"checkpoint_id={checkpoint}")
            backup = server.settled_backup(backup["id"], "available")
            expected = disk.digest()
            disk.wreck(seed=2)
            server.restore(backup)
            assert disk.digest() == expected
            assert "1 backup, no problems" in server.verified()


def test_a_store_that_stays_away_for_too_long_fails_a_step_that_is_repeated(tmp_path):
    with S3Server(tmp_path / "s3") as s3:
        server = BucketServer(tmp_path / "cairn", s3, options="patience_seconds = 2")
        with at_work(server) as (disk, vault):
            kept = server.back_up(vault, "kept")
            before = disk.digest()
            s3.kill()
            disk.change(0.5, seed=2)
            after = disk.digest()
            [late] = server.backups(f"checkpoint_id={server.start_backup(vault)}")
            wait_for("the failure", lambda: "a step failed" in server.log.read_text(encoding="utf-8"))
            s3.start()
            late = server.settled_backup(late["id"], "available")
            for backup, expected in ((kept, before), (late, after)):
                server.restore(backup)
                assert disk.digest() == expected
            assert "2 backups, no problems" in server.verified()


def test_what_cannot_be_a_repository_is_refused_by_name(tmp_path, s3):
    wrong = BucketServer(tmp_path / "key", s3, secret="another")
    said = wrong.start_in_vain()
    assert f"s3://{BUCKET}/{wrong.prefix}" in said and "SignatureDoesNotMatch" in said
    nowhere = BucketServer(tmp_path / "bucket", s3, bucket="not-there").start_in_vain()
    assert "s3://not-there/" in nowhere and "NoSuchBucket" in nowhere
    assert not (wrong.data / "master.key").exists(), "no key is made for what is not there"


def test_a_repository_that_is_gone_is_not_made_anew(tmp_path, s3):
    server = BucketServer(tmp_path, s3)
    with server:
        assert server.stop() == 0
    text = server.config.read_text(encoding="utf-8")
    server.config.write_text(text.replace(server.prefix, uuid.uuid4().hex), encoding="utf-8")
    assert "there is no repository here" in server.start_in_vain()


def test_tls_by_a_certificate_of_ones_own(tmp_path):
    pair = (tmp_path / "certificate.pem", tmp_path / "key.pem")
    run(
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
        "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2",
        "-addext", "basicConstraints=critical,CA:FALSE", "-out", pair[0], "-keyout", pair[1],
    )
    with S3Server(tmp_path / "s3", pair) as s3:
        stranger = BucketServer(tmp_path / "stranger", s3, options="patience_seconds = 1").start_in_vain()
        assert "certificate" in stranger.lower(), stranger
        server = BucketServer(tmp_path / "cairn", s3, options=f'ca_file = "{pair[0]}"')
        with at_work(server) as (disk, vault):
            backup = server.back_up(vault)
            expected = disk.digest()
            disk.wreck(seed=2)
            server.restore(backup)
            assert disk.digest() == expected


def test_limits_hold(tmp_path, s3):
    rate = 4 * MIB
    server = BucketServer(tmp_path, s3, limits=f"upload_bytes_per_second = {rate}\nrequests = 1")
    with at_work(server, 24 * MIB, share=1) as (disk, vault):
        began = time.monotonic()
        server.back_up(vault)
        # All but the last part, which nobody has to wait behind.
        assert time.monotonic() - began >= (disk.path.stat().st_size - 5 * MIB) / rate - 1


def test_in_a_bucket_that_keeps_everything_deletion_hides_and_frees_nothing(tmp_path, s3):
    s3.create_locked_bucket("kept", days=1)
    server = BucketServer(tmp_path, s3, bucket="kept")
    with at_work(server) as (disk, vault):
        first = server.back_up(vault, "first")
        server.back_up(vault, "second")
        before = disk.digest()
        server.delete_backup(first["id"])
        server.all_operations_finished()
        assert "1 backup, no problems" in server.verified()
        versions = s3.request("GET", "kept", "versions")
        receipt = f"receipts/{first['id']}</Key>"
        assert versions.count(receipt) == 2, "the receipt and what hides it"
        assert "<DeleteMarker>" in versions and "<Version>" in versions
        [second] = server.backups()
        disk.wreck(seed=2)
        server.restore(second)
        assert disk.digest() == before
