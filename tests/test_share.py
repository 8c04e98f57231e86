"""Shares of files: backed up, wrecked, restored in place, elsewhere and without a server."""

import json
import os
import random
import shutil
import socket
import stat
import sys
import threading

import pytest
from harness import CAIRN, ROOT, Server, run, wait_for

READER = ROOT / "tools/cairn_read.py"
CONFIG = """\
[[source]]
kind = "share"
name = "home"
path = "home"
exclude = ["**/cache"]

[[source]]
kind = "share"
name = "spare"
path = "spare"
"""


def fill(folder, seed):
    """Makes files of every kind, size and name."""
    rng = random.Random(seed)
    (folder / "docs/deep/er").mkdir(parents=True)
    (folder / "cache").mkdir()
    (folder / "cache/skipped").write_bytes(b"not saved")
    for number in range(400):
        (folder / f"docs/{number:03}").write_bytes(rng.randbytes(rng.randrange(3000)))
    (folder / "docs/large").write_bytes(rng.randbytes(3 << 20))
    (folder / "empty").touch()
    (folder / os.fsdecode(b"\xff name\n")).write_bytes(b"odd")
    with open(folder / "sparse", "wb") as file:
        file.truncate(64 << 20)
        file.seek(20 << 20)
        file.write(b"in the middle")
    os.link(folder / "docs/large", folder / "docs/deep/same")
    os.symlink("../nowhere", folder / "docs/link")
    os.mkfifo(folder / "pipe", 0o640)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket"))
    os.setxattr(folder / "empty", "user.note", b"kept")
    os.chmod(folder / "docs/deep", 0o2750)
    os.utime(folder / "docs/deep/er", ns=(5, 1_000_000_007))
    os.utime(folder / "docs/link", ns=(5, 77), follow_symlinks=False)


def state(folder, leave_out=()):
    """All that a user can see of a folder, by path."""
    seen, first = {}, {}
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in leave_out)
        for name in [".", *folders, *names]:
            path = os.path.normpath(os.path.join(place, name))
            about = os.lstat(path)
            entry = [about.st_mode, about.st_uid, about.st_gid, about.st_mtime_ns]
            if stat.S_ISREG(about.st_mode):
                with open(path, "rb") as file:
                    entry += [file.read(), about.st_blocks * 512 < about.st_size // 2]
                entry.append(os.path.relpath(first.setdefault(about.st_ino, path), folder))
            if stat.S_ISLNK(about.st_mode):
                entry.append(os.readlink(path))
            else:
                entry.append([(one, os.getxattr(path, one)) for one in sorted(os.listxattr(path))])
            seen[os.path.relpath(path, folder)] = entry
    return seen


def same(one, other):
    """Compares two states and shows the first paths that differ."""
    differ = [path for path in sorted({*one, *other}) if one.get(path) != other.get(path)]
    assert not differ, differ[:5]


@pytest.fixture(name="kept")
def fixture_kept(tmp_path):
    """A server with a share, another one to restore to, and a backup."""
    server = Server(tmp_path, config=CONFIG)
    server.home, server.spare = tmp_path / "home", tmp_path / "spare"
    fill(server.home, seed=1)
    server.spare.mkdir()
    with server:
        server.shares = server.protectables("turbo")
        server.vault = server.create_vault("shares", "turbo", [server.shares["home"]])
        server.before = state(server.home, {"cache"})
        server.backup = server.back_up(server.vault)
        yield server


def restore_to(server, share, folder=None, **details):
    body = {"resource_id": server.shares[share]["id"]}
    if folder is not None:
        details["destination_path"] = folder
    if details:
        body["details"] = details
    return server.call("POST", f"/backups/{server.backup['id']}/restore", {"restore": body})


def test_a_share_comes_back_in_place(kept):
    entries = [os.lstat(kept.home / path) for path in kept.before]
    size = sum(entry.st_size for entry in entries if stat.S_ISREG(entry.st_mode))
    for path in ("docs/007", "docs/large", "sparse", "pipe"):
        (kept.home / path).unlink()
    (kept.home / "docs/008").write_bytes(b"wrecked")
    (kept.home / "docs/009").unlink()
    (kept.home / "docs/009").symlink_to("/etc/passwd")
    (kept.home / "new").write_bytes(b"made since")
    told = kept.restore(kept.backup)["extra_info"]["common"]
    assert told["bytes_done"] == told["bytes_total"] == size, "no byte counts twice"
    assert (kept.home / "new").read_bytes() == b"made since"
    (kept.home / "new").unlink()
    os.utime(kept.home, ns=(0, kept.before["."][3]))
    same(state(kept.home, {"cache"}), kept.before)
    assert (kept.home / "cache/skipped").read_bytes() == b"not saved"


def test_a_share_goes_to_another_share_and_into_a_folder(kept):
    for share, folder, target in (
        ("spare", None, kept.spare),
        ("home", "back/yesterday", kept.home / "back/yesterday"),
    ):
        answer = restore_to(kept, share, folder)
        assert answer.status_code == 202, answer.text
        log = kept.finished(answer.json()["job_id"])
        assert log["status"] == "success", log
        same(state(target), kept.before)
    before = state(kept.spare)
    for folder in ("../outside", "a/../../b", "docs/link/below"):
        answer = restore_to(kept, "spare", folder)
        if answer.status_code == 202:
            assert kept.finished(answer.json()["job_id"])["status"] == "failed"
    answer = restore_to(kept, "spare", "new", source_path="docs/none")
    log = kept.finished(answer.json()["job_id"])
    assert log["status"] == "failed" and "File does not exist" in log["error_info"]["message"]
    assert not (kept.spare / "new").exists()
    assert not (kept.spare.parent / "outside").exists()
    same(state(kept.spare), before)
    kept.cli("restore", kept.backup["name"], "--to", "spare", "--folder", "by cli", "--wait")
    same(state(kept.spare / "by cli"), kept.before)


def test_a_part_of_a_share_goes_back_to_where_it_was(kept):
    (kept.home / "007").write_bytes(b"another file")
    (kept.home / "docs/007").unlink()
    shutil.rmtree(kept.home / "docs/deep")
    for path in ("docs/007", "docs/deep"):
        assert restore_to(kept, "home", source_path=path).status_code == 202
        kept.all_operations_finished()
    assert (kept.home / "007").read_bytes() == b"another file"
    assert not (kept.home / "same").exists() and not (kept.home / "er").exists()
    found = state(kept.home, {"cache"})
    for path in ("docs/007", "docs/deep", "docs/deep/er"):
        assert found[path] == kept.before[path], path
    assert (kept.home / "docs/deep/same").read_bytes() == (kept.home / "docs/large").read_bytes()
    # And to the same place below another share, or into that itself.
    for folder, target in ((None, "docs/007"), ("/", "007")):
        assert restore_to(kept, "spare", folder, source_path="docs/007").status_code == 202
        kept.all_operations_finished()
        assert (kept.spare / target).read_bytes() == (kept.home / "docs/007").read_bytes()


def test_a_restore_that_fails_tells_what_it_has_replaced(kept):
    (kept.spare / "docs").mkdir()
    (kept.spare / "docs/link").write_bytes(b"old")
    (kept.spare / "socket").mkdir()
    log = kept.finished(restore_to(kept, "spare").json()["job_id"])
    message = log["error_info"]["message"]
    assert log["status"] == "failed" and 'cannot create "socket": Is a directory' in message, log
    # docs/deep, what is in it, docs/link and the pipe; no file was begun.
    assert "made or replaced: 4; what it was restored to may hold a part" in message, message
    assert (kept.spare / "docs/link").is_symlink()


def test_a_server_that_may_make_no_device_restores_the_rest(kept):
    for name, device in {"kept": (1, 3), "lost": (1, 5)}.items():
        os.mknod(kept.home / name, stat.S_IFCHR | 0o600, os.makedev(*device))
    os.chown(kept.home / "empty", 1234, 1234)
    kept.before = state(kept.home, {"cache"})
    kept.backup = kept.back_up(kept.vault)
    assert kept.stop() == 0
    # As any user but root.
    kept.wrapper = ("setpriv", "--bounding-set", "-mknod,-chown")
    kept.start()
    (kept.home / "lost").unlink()
    owner = "empty: not as it was: its owner could not be set"
    left_out = "left out: the system does not let it be made there"
    for share, problems in (
        # The device that is there is the one that was saved.
        ("home", [owner, f"lost: {left_out}"]),
        ("spare", [owner, f"kept: {left_out}", f"lost: {left_out}"]),
    ):
        job = restore_to(kept, share).json()["job_id"]
        log = kept.finished(job)
        assert log["status"] == "success", log
        told = log["extra_info"]["restore"]["file_problems"]
        assert told == {"count": len(problems), "first": problems}
        assert problems[-1] in kept.cli("task", "show", job).stdout
        found = state(getattr(kept, share), {"cache"})
        left = [problem.split(":")[0] for problem in problems]
        same(found | {path: kept.before[path] for path in left}, kept.before)


def test_only_what_changed_is_stored_again(kept):
    (kept.home / "docs/000").write_bytes(b"other bytes, but of this day")
    size = sum((kept.data / "repository" / name).stat().st_size for name in kept.objects())
    before = state(kept.home, {"cache"})
    kept.backup = kept.back_up(kept.vault)
    grown = sum((kept.data / "repository" / name).stat().st_size for name in kept.objects()) - size
    assert grown < 128 << 10
    assert restore_to(kept, "spare").status_code == 202
    kept.all_operations_finished()
    same(state(kept.spare), before)


def test_a_repository_gives_files_back_without_a_server(kept, tmp_path):
    assert kept.stop() == 0
    backup = kept.backup["id"]
    [listed] = json.loads(run(CAIRN, "repo", "list", "--json", *kept.repository()).stdout)
    assert (listed["tree"]["problems"], listed["tree"]["directories"]) == (0, 4)
    whole, part, read = tmp_path / "whole", tmp_path / "part", tmp_path / "read"
    run(CAIRN, "repo", "restore", backup, whole, *kept.repository())
    same(state(whole), kept.before)
    run(CAIRN, "repo", "restore", backup, part, "--path", "docs/deep", *kept.repository())
    same(state(part), state(whole / "docs/deep"))
    missing = run(
        CAIRN, "repo", "restore", backup, part, "--path", "docs/none", *kept.repository(), check=False
    )
    assert missing.returncode == 1 and "none" in missing.stderr
    # A folder that was made for nothing goes again; one that was there stays.
    (tmp_path / "empty").mkdir()
    for target in (tmp_path / "new/new", tmp_path / "empty/new"):
        words = (CAIRN, "repo", "restore", backup, target, "--path", "docs/none", *kept.repository())
        assert run(*words, check=False).returncode == 1
    assert not (tmp_path / "new").exists() and os.listdir(tmp_path / "empty") == []
    key = kept.data / "master.key"
    command = [sys.executable, READER, "restore", kept.data / "repository", key, backup, read]
    run(*command)
    same(state(read), kept.before)
    shutil.rmtree(read)


def test_what_cannot_be_read_is_named(kept):
    made = kept.home
    for _ in range(520):
        made = made / "d"
        made.mkdir()
    kept.backup = kept.back_up(kept.vault)
    listed = json.loads(run(CAIRN, "repo", "list", "--json", *kept.repository()).stdout)
    [tree] = [one["tree"] for one in listed if one["info"]["id"] == kept.backup["id"]]
    assert tree["problems"] == 1 and "directories" in tree["listed"][0]
    assert "could not be saved" in kept.log.read_text(encoding="utf-8")
    told = kept.backup["extend_info"]["file_problems"]
    assert told == {"count": 1, "first": tree["listed"]} and "left out" in told["first"][0]
    log = kept.ok("GET", f"/operation-logs?checkpoint_id={kept.backup['checkpoint_id']}")["operation_logs"][0]
    for shown in (["backup", "show", kept.backup["id"]], ["task", "show", log["id"]]):
        assert told["first"][0] in kept.cli(*shown).stdout


@pytest.fixture(name="btrfs")
def fixture_btrfs(tmp_path):
    """A folder that is a btrfs of its own."""
    image, folder = tmp_path / "image", tmp_path / "home"
    with open(image, "wb") as file:
        file.truncate(512 << 20)
    run("mkfs.btrfs", "-q", image)
    folder.mkdir()
    run("mount", "-o", "loop", image, folder)
    yield folder
    run("umount", folder)


def test_a_share_on_btrfs_is_of_one_moment(tmp_path, btrfs):
    ended, files, written = threading.Event(), [btrfs / "first", btrfs / "second"], []

    def write():
        """The second file is never ahead of the first, nor more than one step behind."""
        number = 0
        while not ended.is_set():
            for path in files:
                new = path.with_suffix(".new")
                with open(new, "wb") as file:
                    file.write(number.to_bytes(8, "big") * (1 << 15))
                    file.flush()
                    # Without it, a snapshot may have the new name and none of the bytes.
                    os.fsync(file.fileno())
                new.rename(path)
            written.append(number)
            number += 1

    for path in files:
        path.write_bytes(bytes(1 << 18))
    (tmp_path / "spare").mkdir()
    with Server(tmp_path, config=CONFIG) as server:
        server.shares = server.protectables("turbo")
        vault = server.create_vault("shares", "turbo", [server.shares["home"]])
        writer = threading.Thread(target=write)
        writer.start()
        try:
            backups = []
            for _ in range(5):
                # Both are written again, however slow the writer is.
                before = len(written)
                wait_for("the files to change", lambda: len(written) > before + 1)
                backups.append(server.back_up(vault))
        finally:
            ended.set()
            writer.join()
        assert sorted(path.name for path in btrfs.iterdir() if path.suffix != ".new") == ["first", "second"]
        seen = set()
        for server.backup in backups:
            assert server.backup["extend_info"]["files_moment"] == "snapshot"
            assert restore_to(server, "spare").status_code == 202
            server.all_operations_finished()
            numbers = []
            for name in ("first", "second"):
                content = (tmp_path / "spare" / name).read_bytes()
                assert len(content) == 1 << 18 and content == content[:8] * (1 << 15)
                numbers.append(int.from_bytes(content[:8], "big"))
            assert numbers[0] - numbers[1] in (0, 1), numbers
            seen.add(tuple(numbers))
        assert len(seen) == 5, "each is of another moment"
