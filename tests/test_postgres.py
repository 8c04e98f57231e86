"""The same server with its catalogue in PostgreSQL.

`scripts/with_postgres.sh` starts the database and names it.
"""

import os
import uuid

from harness import CONFIG, MIB, Disk, Server, run


def test_a_backup_lives_in_postgresql(tmp_path):
    url = os.environ["CAIRN_TEST_POSTGRES"]
    name = f"cairn_{uuid.uuid4().hex}"
    run("psql", "-q", url, "-c", f"CREATE DATABASE {name}")
    own = f"{url.rsplit('/', 1)[0]}/{name}"
    disk = Disk(tmp_path / "images/disk.img").create(6 * MIB, seed=1)
    config = f'[catalogue]\nurl = "{own}"\n\n{CONFIG}'
    with Server(tmp_path, config=config) as server:
        vault = server.create_vault("disks", "disk", [server.protectables("disk")["disk.img"]])
        first = server.back_up(vault, "first")
        expected = disk.digest()
        assert server.stop() == 0
        server.start()
        assert [backup["id"] for backup in server.backups()] == [first["id"]]
        disk.wreck(seed=2)
        server.restore(first)
        assert disk.digest() == expected
        server.delete_backup(first["id"])
        assert not (server.data / "catalogue.sqlite").exists()
    rows = run("psql", "-q", "-A", "-t", own, "-c", "SELECT count(*) FROM vaults").stdout
    assert rows.strip() == "1"
