"""tools/cairn_read.py against real repositories: it gets what Cairn gets, and refuses damage."""

import hashlib
import shutil
import sys

import pytest
from harness import CAIRN, MIB, ROOT, Disk, Server, run, wait_for

READER = ROOT / "tools/cairn_read.py"
sys.path.insert(0, str(READER.parent))
import cairn_read
GOLDEN = ROOT / "crates/repo/tests/golden"
# Where in an object a bit is flipped, in thousandths of its length.
PLACES = (0, 300, 700, 999)


def read(command, *arguments, check=True):
    """Runs the reader."""
    return run(sys.executable, READER, command, *arguments, check=check)


def listed(repository, key):
    """The backups that the reader lists: id and kind."""
    lines = (line.split("\t") for line in read("list", repository, key).stdout.splitlines())
    return {fields[0]: fields[1] for fields in lines}


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def restored_by_cairn(repository, key, backup, target):
    place = ("--repository", repository, "--master-key-file", key)
    run(CAIRN, "repo", "restore", *place, backup, target)
    return target


def check_same(repository, key, folder):
    """Restores every backup by both and compares them; returns the kinds that there were."""
    folder.mkdir()
    backups = listed(repository, key)
    for backup, kind in backups.items():
        mine = folder / f"read-{backup}"
        read("restore", repository, key, backup, mine)
        images = sorted(mine.iterdir()) if kind == "group" else [mine]
        for image in images:
            child = image.stem if kind == "group" else backup
            theirs = restored_by_cairn(repository, key, child, folder / f"cairn-{kind}-{child}")
            assert digest(image) == digest(theirs), (kind, child)
            assert image.stat().st_blocks <= theirs.stat().st_blocks + 16, "holes stay holes"
    return sorted(set(backups.values()))


@pytest.fixture(name="kept")
def fixture_kept(tmp_path):
    """A stopped server's repository: incrementals, a group, and what a deletion and its collection left."""
    disk = Disk(tmp_path / "images/disk.img").create(9 * MIB, seed=1)
    for seed, name in enumerate(("web-root.qcow2", "web-data.img")):
        Disk(tmp_path / "images" / name).create(2 * MIB, seed=seed)
    with Server(tmp_path) as server:
        vault = server.create_vault("disks", "disk", [server.protectables("disk")["disk.img"]])
        first = server.back_up(vault)
        before = server.objects()
        for seed in range(3):
            disk.change(0.6, seed)
            server.back_up(vault)
        web = server.create_vault("servers", "server", [server.protectables("server")["web-1"]])
        server.back_up(web)
        server.delete_backup(first["id"])
        gone = lambda: set(before) - set(server.objects())
        wait_for("the collection", lambda: any("/packs/" in name for name in gone()))
        assert server.stop() == 0
        yield server


def test_the_reader_gets_what_cairn_gets(kept, tmp_path):
    repository, key = kept.data / "repository", kept.data / "master.key"
    assert read("verify", repository).returncode == 0
    assert check_same(repository, key, tmp_path / "before") == ["disk", "group"]

    old = tmp_path / "old.key"
    shutil.copy(key, old)
    run(CAIRN, "repo", "rotate-key", *kept.repository())
    refused = read("list", repository, old, check=False)
    assert refused.returncode == 1 and "does not open" in refused.stderr
    assert check_same(repository, key, tmp_path / "after") == ["disk", "group"]


def test_the_reader_refuses_damage(kept, tmp_path):
    repository, key = kept.data / "repository", kept.data / "master.key"
    names = [backup for backup, kind in listed(repository, key).items() if kind == "disk"]
    right = {name: digest(restored_by_cairn(repository, key, name, tmp_path / name)) for name in names}
    objects = [path for path in sorted(repository.rglob("*")) if path.is_file() and path.name != ".lock"]
    hurt = set()
    for number, path in enumerate(objects):
        whole = path.read_bytes()
        for place in PLACES:
            damaged = bytearray(whole)
            damaged[len(whole) * place // 1000] ^= 4
            path.chmod(0o600)
            path.write_bytes(damaged)
            with pytest.raises(ValueError, match=path.name):
                cairn_read.verify(repository)
        for name in names:
            target = tmp_path / f"{number}-{name}"
            try:
                cairn_read.restore(repository, key, name, target)
                assert digest(target) == right[name]
            except cairn_read.FAULTS:
                hurt.add(next(iter(path.relative_to(repository).parts[2:]), "config"))
            target.unlink(missing_ok=True)
        path.write_bytes(whole)
    assert hurt >= {"config", "keys", "manifests", "packs", "receipts"}


@pytest.mark.parametrize("golden", sorted(GOLDEN.glob("[0-9]*")), ids=lambda path: path.name)
def test_the_reader_gets_what_cairn_gets_out_of_a_golden_repository(golden, tmp_path):
    key = GOLDEN / "master.key"
    read("verify", golden)
    kinds = check_same(golden, key, tmp_path / "restored")
    assert {"disk", "group"} <= set(kinds)
