//! Hybrid vaults that mirror another site: what is new there comes here as a
//! backup like any other, what is bad is counted and named and leaves nothing.

use cairn_api::Operation as Op;
use cairn_core::ExternalSettings;
use cairn_testkit::{Moment, SITE, Sabotage, Site, World, noise};
use cairn_types::{BackupId, ProjectId};
use serde_json::{Value, json};

use crate::client::{Answer, Client, vault_body};

fn code(answer: &Answer) -> &str {
    let code = answer.body["error_code"].as_str().unwrap_or("none");
    code.trim_start_matches("BackupService.")
}

/// A client whose first project mirrors a site in a disk vault.
struct Hybrid {
    client: Client,
    site: Site,
    vault: String,
}

fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = noise(seed, length);
    // A hole, so that what is stored is less than the disk.
    bytes[length / 2..length / 2 + 140_000].fill(0);
    bytes
}

impl Hybrid {
    async fn new() -> Self {
        let site = Site::new().await;
        let external = site.external();
        Self::with(site, external).await
    }

    async fn with(site: Site, external: cairn_core::External) -> Self {
        let world = World::with_externals(vec![external]).await;
        let client = Client::over(world).await;
        let vault = hybrid_vault(&client, "disk").await;
        Self {
            client,
            site,
            vault,
        }
    }

    async fn begin(&self) -> String {
        begin(&self.client, &self.vault).await
    }

    /// Synchronises, and returns the operation log when it is over.
    async fn sync(&self) -> Value {
        let log = self.begin().await;
        self.client.world.work().await;
        self.log(&log).await
    }

    async fn log(&self, id: &str) -> Value {
        let shown = self.client.call(Op::ShowOpLog, &[id], Value::Null).await;
        shown.body["operation_log"].clone()
    }

    async fn backups(&self) -> Vec<Value> {
        let listed = self.client.call(Op::ListBackups, &[], Value::Null).await;
        listed.body["backups"].as_array().unwrap().clone()
    }

    /// What a backup holds, restored onto a disk of the project.
    async fn restored(&self, backup: &Value, length: usize) -> Vec<u8> {
        let disk = self.client.world.disk().await;
        let body = json!({ "restore": { "volume_id": disk } });
        let id = backup["id"].as_str().unwrap();
        let begun = self.client.call(Op::RestoreBackup, &[id], body).await;
        assert_eq!(begun.status, 202, "{begun:?}");
        self.client.world.work().await;
        let log = self.log(begun.body["job_id"].as_str().unwrap()).await;
        assert_eq!(log["status"], "success", "{log}");
        self.client.world.images()[0][..length].to_vec()
    }

    /// Nothing is here but what is listed, and all of that is whole.
    async fn check(&self, case: &str) {
        let world = &self.client.world;
        let stored = world.stored(world.caller().project, case).await;
        let mut known: Vec<BackupId> = Vec::new();
        for backup in self.backups().await {
            assert_eq!(backup["status"], "available", "{case}");
            let children = backup["children"].as_array().unwrap().iter();
            for one in children.chain([&backup]) {
                known.push(one["id"].as_str().unwrap().parse().unwrap());
            }
        }
        known.sort();
        assert_eq!(stored, known, "{case}");
    }
}

async fn hybrid_vault(client: &Client, object_type: &str) -> String {
    let mut body = vault_body(object_type, 100, json!([]));
    body["vault"]["billing"]["cloud_type"] = json!("hybrid");
    let made = client.call(Op::CreateVault, &[], body).await;
    made.body["vault"]["id"].as_str().unwrap().to_owned()
}

async fn begin(client: &Client, vault: &str) -> String {
    let body = json!({ "sync": { "vault_id": vault, "auto_trigger": false } });
    let begun = client.call(Op::ImportCheckpoint, &[], body).await;
    assert_eq!(begun.status, 200, "{begun:?}");
    begun.body["sync"]["operation_log_id"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// The three counts of a synchronisation.
fn counts(log: &Value) -> [u64; 3] {
    let sync = &log["extra_info"]["sync"];
    [
        "sync_backup_num",
        "delete_backup_num",
        "err_sync_backup_num",
    ]
    .map(|count| sync[count].as_u64().unwrap())
}

fn message(log: &Value) -> &str {
    log["error_info"]["message"].as_str().unwrap()
}

#[tokio::test]
async fn what_is_new_there_comes_here_and_stands_alone() {
    let hybrid = Hybrid::new().await;
    let disk = bytes(1, 600_000);
    let first = hybrid.site.back_up_disk("db", &disk).await;
    let changed = bytes(2, 600_000);
    let second = hybrid.site.back_up_disk("db", &changed).await;
    let log = hybrid.sync().await;
    assert_eq!(
        (&log["status"], counts(&log)),
        (&json!("success"), [2, 0, 0])
    );
    assert_eq!(log["vault_id"], hybrid.vault);

    let backups = hybrid.backups().await;
    let [newer, older] = &backups[..] else {
        panic!("{backups:?}");
    };
    // Their ids were free, and everything is as it was there.
    assert_eq!(older["id"], first.to_string());
    assert_eq!(newer["id"], second.to_string());
    for backup in &backups {
        assert_eq!(backup["vault_id"], hybrid.vault);
        assert_eq!(backup["image_type"], "backup");
        assert_eq!(backup["name"], "of_db");
        assert_eq!(backup["resource_name"], "db");
        assert_eq!(backup["origin"]["external"], SITE);
        assert_eq!(backup["origin"]["backup_id"], backup["id"]);
        assert_eq!(
            backup["origin"]["project_id"],
            hybrid.site.project.to_string()
        );
        assert!(backup["origin"]["gone_at"].is_null());
        assert!(backup["protected_at"].is_string());
    }
    assert_eq!(older["created_at"], "2020-09-13T12:26:40.000000");
    let vault = hybrid
        .client
        .call(Op::ShowVault, &[&hybrid.vault], Value::Null)
        .await;
    let used = vault.body["vault"]["billing"]["used"].as_u64();
    assert_eq!(
        used,
        Some(2),
        "in MB, two disks of half a megabyte, rounded up"
    );
    hybrid.check("imported").await;

    // A second time brings nothing, and reads nothing but what is there.
    let again = hybrid.sync().await;
    assert_eq!(
        (&again["status"], counts(&again)),
        (&json!("success"), [0, 0, 0])
    );
    assert_eq!(hybrid.backups().await, backups);

    // The other site is not needed any more.
    hybrid.site.take("").await;
    assert!(hybrid.restored(older, disk.len()).await == disk);
    assert!(hybrid.restored(newer, changed.len()).await == changed);
}

#[tokio::test]
async fn what_has_gone_there_is_marked_once_and_stays_here() {
    let hybrid = Hybrid::new().await;
    let disk = bytes(1, 400_000);
    let kept = hybrid.site.back_up_disk("a", &disk).await;
    let gone = hybrid.site.back_up_disk("b", &disk).await;
    hybrid.sync().await;
    hybrid.site.own().await.delete(gone).await.unwrap();
    hybrid.client.world.clock.advance(60);
    let log = hybrid.sync().await;
    assert_eq!(
        (&log["status"], counts(&log)),
        (&json!("success"), [0, 1, 0])
    );
    for backup in hybrid.backups().await {
        let is_gone = backup["id"] == gone.to_string();
        assert_eq!(backup["origin"]["gone_at"].is_string(), is_gone, "{backup}");
        assert_eq!(backup["status"], "available");
        assert!(is_gone || backup["id"] == kept.to_string());
    }
    let again = hybrid.sync().await;
    assert_eq!(counts(&again), [0, 0, 0], "counted once");

    // What was deleted here is not brought back, unless somebody names it.
    let path = [kept.to_string()];
    let path = [path[0].as_str()];
    hybrid
        .client
        .call(Op::DeleteBackup, &path, Value::Null)
        .await;
    hybrid.client.world.work().await;
    assert_eq!(counts(&hybrid.sync().await), [0, 0, 0]);
    assert_eq!(hybrid.backups().await.len(), 1);
    let log = import(&hybrid, &path, SITE, "").await.remove(0);
    assert_eq!(
        (&log["status"], counts(&log)),
        (&json!("success"), [1, 0, 0])
    );
    assert_eq!(hybrid.backups().await.len(), 2);
    // With the vault goes what is remembered of it.
    hybrid
        .client
        .call(Op::DeleteVault, &[&hybrid.vault], Value::Null)
        .await;
    hybrid.client.world.work().await;
    let vault = hybrid_vault(&hybrid.client, "disk").await;
    let log = begin(&hybrid.client, &vault).await;
    hybrid.client.world.work().await;
    assert_eq!(counts(&hybrid.log(&log).await), [1, 0, 0]);
}

/// Imports backups by name and returns their operation logs.
async fn import(hybrid: &Hybrid, ids: &[&str], bucket: &str, path: &str) -> Vec<Value> {
    let entry = |id: &&str| {
        json!({ "backup_id": id, "backup_name": "named", "bucket_name": bucket,
            "created_at": 1_553_587_260, "image_path": path, "resource_name": "host-1",
            "resource_id": "96f7512d-239d-3f31-80cf-d1ce041df9a6",
            "resource_type": "OS::Native::Server" })
    };
    let body = json!({ "sync": ids.iter().map(entry).collect::<Vec<_>>() });
    let begun = hybrid.client.call(Op::ImportBackup, &[], body).await;
    assert_eq!(begun.status, 200, "{begun:?}");
    hybrid.client.world.work().await;
    let mut logs = Vec::new();
    for import in begun.body["sync"].as_array().unwrap() {
        let id = import["operation_log_id"].as_str().unwrap();
        logs.push(hybrid.log(id).await);
    }
    logs
}

#[tokio::test]
async fn backups_are_imported_by_name_each_once() {
    let hybrid = Hybrid::new().await;
    let disk = bytes(1, 400_000);
    let first = hybrid.site.back_up_disk("a", &disk).await.to_string();
    let second = hybrid.site.back_up_disk("b", &disk).await.to_string();
    let nobodys = "3b5816b5-f29c-4172-9d9a-76c719a659ce";
    let logs = import(&hybrid, &[&first, nobodys], SITE, "").await;
    assert_eq!(logs[0]["status"], "success", "{}", logs[0]);
    assert_eq!(logs[1]["status"], "failed");
    assert!(message(&logs[1]).contains("no such backup"), "{}", logs[1]);
    let project = hybrid.site.project;
    for (bucket, path, expected) in [
        ("elsewhere", String::new(), "failed"),
        (SITE, format!("{}/{second}", ProjectId::random()), "failed"),
        (SITE, format!("{project}/{second}"), "success"),
        (SITE, format!("{project}/{second}"), "success"),
        (SITE, second.clone(), "success"),
    ] {
        let logs = import(&hybrid, &[nobodys], bucket, &path).await;
        assert_eq!(logs[0]["status"], expected, "{bucket} {path}: {}", logs[0]);
    }
    let backups = hybrid.backups().await;
    assert_eq!(backups.len(), 2);
    // Named otherwise there, it has the id that was asked for.
    let named = backups.iter().find(|backup| backup["id"] == nobodys);
    let named = named.unwrap();
    assert_eq!(named["origin"]["backup_id"], second);
    assert_eq!(named["name"], "named");
    assert_eq!(named["resource_name"], "b", "it is what it is");
    assert!(hybrid.restored(named, disk.len()).await == disk);
    assert_eq!(counts(&hybrid.sync().await), [0, 0, 0], "both are here");
    hybrid.check("imported by name").await;
}

#[tokio::test]
async fn a_server_comes_with_its_disks_and_goes_onto_any_server() {
    let hybrid = Hybrid::new().await;
    let (root, data) = (bytes(1, 300_000), bytes(2, 500_000));
    let server = hybrid.site.back_up_server("vm", [&root, &data]).await;
    hybrid.site.back_up_disk("alone", &root).await;
    assert_eq!(
        counts(&hybrid.sync().await),
        [1, 0, 0],
        "disks alone go into it"
    );
    let vault = hybrid_vault(&hybrid.client, "server").await;
    let log = begin(&hybrid.client, &vault).await;
    hybrid.client.world.work().await;
    let log = hybrid.log(&log).await;
    assert_eq!(
        (&log["status"], counts(&log)),
        (&json!("success"), [1, 0, 0])
    );
    let id = server.to_string();
    let shown = hybrid
        .client
        .call(Op::ShowBackup, &[&id], Value::Null)
        .await;
    let backup = &shown.body["backup"];
    assert_eq!(backup["resource_type"], "OS::Nova::Server");
    assert_eq!(backup["extend_info"]["contain_system_disk"], true);
    let children = backup["children"].as_array().unwrap();
    assert_eq!(children.len(), 2);
    assert_eq!(children[0]["resource_name"], "vm-0");
    assert_eq!(children[0]["parent_id"], id);
    let checkpoint = backup["checkpoint_id"].as_str().unwrap();
    let point = hybrid
        .client
        .call(Op::ShowCheckpoint, &[checkpoint], Value::Null)
        .await;
    assert_eq!(point.body["checkpoint"]["status"], "available");
    let path = [id.as_str()];
    let metadata = hybrid.client.call(Op::ShowMetadata, &path, Value::Null);
    let metadata = metadata.await;
    let told: Value = serde_json::from_str(metadata.body["server"].as_str().unwrap()).unwrap();
    let definition = "<domain><name>vm</name></domain>";
    assert_eq!(told["server"]["metadata"]["definition"], definition);
    // It is remembered by this site's repository too.
    let project = hybrid.client.world.project().await;
    let stored = project.find(server).await.unwrap();
    assert_eq!(stored.info.definition.as_deref(), Some(definition));
    for child in &stored.children {
        let part = project.find(child.backup).await.unwrap();
        assert_eq!(part.info.definition, None);
    }

    let own = hybrid.client.world.server().await;
    let restore = async |body: Value| {
        let body = json!({ "restore": body });
        hybrid.client.call(Op::RestoreBackup, &[&id], body).await
    };
    let refused = restore(json!({ "server_id": own })).await;
    assert_eq!(code(&refused), "9900", "mappings are needed");
    let instances = hybrid
        .client
        .call(Op::ListProtectable, &["server"], Value::Null)
        .await;
    let disks = instances.body["instances"][0]["children"]
        .as_array()
        .unwrap();
    let of = |name: &str| disks.iter().find(|disk| disk["name"] == name).unwrap()["id"].clone();
    let mappings = json!([
        { "backup_id": children[0]["id"], "volume_id": of("web-root.img") },
        { "backup_id": children[1]["id"], "volume_id": of("web-data.img") },
    ]);
    let begun = restore(json!({ "server_id": own, "mappings": mappings })).await;
    assert_eq!(begun.status, 202, "{begun:?}");
    hybrid.client.world.work().await;
    let images = hybrid.client.world.images();
    assert!(images[1][..root.len()] == root[..]);
    assert!(images[2][..data.len()] == data[..]);
    hybrid.check("a server").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_comes_and_goes_into_any_share() {
    let hybrid = Hybrid::new().await;
    let world = &hybrid.client.world;
    let backup = hybrid.site.back_up_share("theirs", &world.files()).await;
    let before = world.share_files();
    let vault = hybrid_vault(&hybrid.client, "turbo").await;
    let log = begin(&hybrid.client, &vault).await;
    world.work().await;
    let log = hybrid.log(&log).await;
    assert_eq!(
        (&log["status"], counts(&log)),
        (&json!("success"), [1, 0, 0]),
        "{log}"
    );
    world.change_share(9);
    assert_ne!(world.share_files(), before);
    let body = json!({ "restore": { "resource_id": world.share().await } });
    let id = backup.to_string();
    let begun = hybrid.client.call(Op::RestoreBackup, &[&id], body).await;
    assert_eq!(begun.status, 202, "{begun:?}");
    world.work().await;
    assert_eq!(world.share_files(), before);
    hybrid.check("a share").await;
}

#[tokio::test]
async fn what_is_bad_is_counted_and_the_rest_comes() {
    let hybrid = Hybrid::new().await;
    let disk = |seed| bytes(seed, 400_000);
    let good = hybrid.site.back_up_disk("good", &disk(1)).await;
    let manifest = hybrid.site.back_up_disk("manifest", &disk(2)).await;
    let receipt = hybrid.site.back_up_disk("receipt", &disk(3)).await;
    let unfinished = hybrid.site.back_up_disk("unfinished", &disk(4)).await;
    let before = hybrid.site.objects("/packs/").await;
    let data = hybrid.site.back_up_disk("data", &disk(5)).await;
    hybrid.site.forge(&format!("manifests/{manifest}")).await;
    hybrid.site.forge(&format!("receipts/{receipt}")).await;
    let kept = hybrid.site.take(&format!("receipts/{unfinished}")).await;
    for pack in hybrid.site.objects("/packs/").await {
        if !before.contains(&pack) {
            hybrid.site.forge(&pack).await;
        }
    }
    let log = hybrid.sync().await;
    assert_eq!(log["status"], "failed", "{log}");
    assert_eq!(counts(&log), [1, 0, 4]);
    assert!(
        message(&log).starts_with("4 could not be taken over"),
        "{log}"
    );
    let backups = hybrid.backups().await;
    assert_eq!(backups.len(), 1, "{backups:?}");
    assert_eq!(backups[0]["id"], good.to_string());
    assert!(hybrid.restored(&backups[0], 400_000).await == disk(1));
    hybrid.check("beside bad ones").await;

    // What is whole again comes; what is not is counted again.
    hybrid.site.give_back(kept).await;
    let log = hybrid.sync().await;
    assert_eq!(counts(&log), [1, 0, 3]);
    // One that is here does not suffer from what becomes of it there.
    hybrid.site.forge(&format!("receipts/{good}")).await;
    hybrid.site.forge(&format!("manifests/{data}")).await;
    assert_eq!(counts(&hybrid.sync().await), [0, 0, 3]);
}

#[tokio::test]
async fn a_repository_that_is_foreign_or_none_gives_nothing() {
    let site = Site::new().await;
    site.back_up_disk("a", &bytes(1, 400_000)).await;
    let external = site.external_with_another_key();
    let hybrid = Hybrid::with(site, external).await;
    let log = hybrid.sync().await;
    assert_eq!(
        (&log["status"], counts(&log)),
        (&json!("failed"), [0, 0, 1])
    );
    assert!(message(&log).contains("master key"), "{log}");
    hybrid.site.take("config").await;
    let log = hybrid.sync().await;
    assert_eq!(
        (&log["status"], counts(&log)),
        (&json!("failed"), [0, 0, 1])
    );
    assert!(message(&log).contains("no repository"), "{log}");
    assert!(hybrid.backups().await.is_empty());
    hybrid.check("nothing").await;
}

#[tokio::test]
async fn a_site_is_for_one_project_and_for_the_vaults_that_are_named() {
    let site = Site::new().await;
    site.back_up_disk("a", &bytes(1, 400_000)).await;
    let settings = ExternalSettings {
        vaults: vec!["mirror".to_owned()],
        from_projects: vec![ProjectId::random(), site.project],
        ..ExternalSettings::default()
    };
    let external = site.external_of(settings);
    let mut hybrid = Hybrid::with(site, external).await;
    assert_eq!(counts(&hybrid.sync().await), [0, 0, 0], "another vault");
    let body = json!({ "vault": { "name": "mirror" } });
    let path = [hybrid.vault.as_str()];
    let renamed = hybrid.client.call(Op::UpdateVault, &path, body).await;
    assert_eq!(renamed.status, 200);
    let log = hybrid.sync().await;
    assert_eq!(counts(&log), [1, 0, 1], "a named project is not there");
    // Somebody else gets nothing of it, by no way.
    hybrid.client.become_stranger().await;
    hybrid.vault = hybrid_vault(&hybrid.client, "disk").await;
    let body = json!({ "vault": { "name": "mirror" } });
    let path = [hybrid.vault.as_str()];
    hybrid.client.call(Op::UpdateVault, &path, body).await;
    assert_eq!(counts(&hybrid.sync().await), [0, 0, 0]);
    let nobodys = "3b5816b5-f29c-4172-9d9a-76c719a659ce";
    let log = import(&hybrid, &[nobodys], SITE, "").await.remove(0);
    assert!(message(&log).contains("cannot be listed"), "{log}");
    assert!(hybrid.backups().await.is_empty());
}

#[tokio::test]
async fn a_full_vault_takes_nothing() {
    let hybrid = Hybrid::new().await;
    let first = hybrid.site.back_up_disk("a", &bytes(1, 400_000)).await;
    hybrid.sync().await;
    let first = first.to_string();
    hybrid
        .client
        .let_backup_occupy(&first, 100 * (1 << 30))
        .await;
    hybrid.site.back_up_disk("b", &bytes(2, 400_000)).await;
    let log = hybrid.sync().await;
    assert_eq!(
        (&log["status"], counts(&log)),
        (&json!("failed"), [0, 0, 1])
    );
    assert!(message(&log).contains("capacity"), "{log}");
    assert_eq!(hybrid.backups().await.len(), 1);
}

#[tokio::test]
async fn an_id_that_is_taken_here_is_replaced_and_remembered() {
    let hybrid = Hybrid::new().await;
    let disk = bytes(1, 400_000);
    let theirs = hybrid.site.back_up_disk("a", &disk).await.to_string();
    // Two vaults of different projects cannot both have it by its own id.
    hybrid.sync().await;
    let mut tx = hybrid.client.world.meta.begin().await.unwrap();
    let imports = tx.imports_of(&[theirs.parse().unwrap()]).await.unwrap();
    tx.remove_import(&imports[0]).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(counts(&hybrid.sync().await), [1, 0, 0]);
    let backups = hybrid.backups().await;
    assert_eq!(backups.len(), 2);
    let other = backups.iter().find(|backup| backup["id"] != theirs);
    let other = other.unwrap();
    assert_eq!(other["origin"]["backup_id"], theirs);
    assert!(hybrid.restored(other, disk.len()).await == disk);
    assert_eq!(counts(&hybrid.sync().await), [0, 0, 0]);
    hybrid.check("twice").await;
}

#[tokio::test]
async fn a_synchronisation_that_is_cut_off_anywhere_goes_on_or_leaves_nothing() {
    for kind in ["sync", "import_backup"] {
        for moment in [
            Moment::FailBefore,
            Moment::FailAfter,
            Moment::FailOnce,
            Moment::Repeat,
            Moment::CrashAfter,
        ] {
            let case = format!("{kind} {moment:?}");
            let hybrid = Hybrid::new().await;
            let backup = hybrid.site.back_up_disk("a", &bytes(1, 400_000)).await;
            let sabotage = Sabotage {
                kind,
                step: 0,
                moment,
            };
            let log = match kind {
                "sync" => hybrid.begin().await,
                _ => {
                    let id = backup.to_string();
                    let body = json!({ "sync": [{ "backup_id": id, "backup_name": "n",
                        "bucket_name": SITE, "created_at": 1, "image_path": "",
                        "resource_id": id, "resource_name": "r",
                        "resource_type": "OS::Cinder::Volume" }] });
                    let begun = hybrid.client.call(Op::ImportBackup, &[], body).await;
                    let log = &begun.body["sync"][0]["operation_log_id"];
                    log.as_str().unwrap().to_owned()
                }
            };
            hybrid.client.world.work_with(sabotage).await;
            let log = hybrid.log(&log).await;
            let failed = matches!(moment, Moment::FailBefore | Moment::FailAfter);
            assert_eq!(log["status"] == "failed", failed, "{case}: {log}");
            hybrid.check(&case).await;
            let here = hybrid.backups().await.len();
            assert_eq!(here, usize::from(moment != Moment::FailBefore), "{case}");
            hybrid.sync().await;
            assert_eq!(hybrid.backups().await.len(), 1, "{case}");
            hybrid.check(&case).await;
        }
    }
}
