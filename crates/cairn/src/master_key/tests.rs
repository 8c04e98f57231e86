use cairn_testkit::{Fault, FaultyStore};
use cairn_types::ProjectId;
use object_store::memory::InMemory;

use super::*;

/// A repository with a project in it, and the file with its key.
struct Scene {
    store: FaultyStore,
    project: ProjectId,
    folder: tempfile::TempDir,
    first: MasterKey,
}

impl Scene {
    async fn new() -> Self {
        let store = FaultyStore::new(Arc::new(InMemory::new()));
        let folder = tempfile::tempdir().unwrap();
        let first = read_or_make(&folder.path().join("master.key")).unwrap();
        let repository = Repository::create(Arc::new(store.clone()), &first).await;
        let project = ProjectId::random();
        repository.unwrap().project(project).await.unwrap();
        Self {
            store,
            project,
            folder,
            first,
        }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("master.key")
    }

    fn store(&self) -> Arc<dyn ObjectStore> {
        Arc::new(self.store.clone())
    }

    async fn rotate(&self) -> Result<()> {
        rotate(self.store(), &self.file(), None).await
    }

    /// Whether what is there opens the repository and what was in it.
    async fn opens(&self) -> Opener {
        let (repository, opener) = open(self.store(), &self.file()).await.unwrap();
        repository.existing_project(self.project).await.unwrap();
        opener
    }

    /// The rotation is over: one key, which is not the first one, and that one opens nothing.
    async fn check_rotated(&self) {
        assert_eq!(self.opens().await, Opener::Kept);
        assert!(!new_file(&self.file()).exists());
        assert!(!same(&read(&self.file()).unwrap(), &self.first));
        let old = Repository::open(self.store(), &self.first).await.map(drop);
        assert_eq!(old.unwrap_err().kind(), Kind::Denied);
    }
}

#[tokio::test]
async fn a_rotation_may_die_or_fail_at_any_call() {
    for fault in [Fault::Once, Fault::Before, Fault::After] {
        let mut failed = 0;
        for call in 0.. {
            let scene = Scene::new().await;
            scene.store.set(Some(fault(call)));
            let ended = scene.rotate().await;
            let calls = scene.store.calls();
            scene.store.set(None);
            scene.opens().await;
            match ended {
                Ok(()) => scene.check_rotated().await,
                Err(_) => {
                    failed += 1;
                    scene.rotate().await.unwrap();
                    scene.check_rotated().await;
                }
            }
            if calls <= call {
                break;
            }
        }
        assert!(failed >= 3, "reading, writing and reading back");
    }
}

#[tokio::test]
async fn a_rotation_may_stop_between_its_steps() {
    let scene = Scene::new().await;
    let (file, second) = (scene.file(), MasterKey::generate());
    write(&new_file(&file), &second).unwrap();
    assert_eq!(scene.opens().await, Opener::Kept);
    let rotated = Repository::rotate_master_key(scene.store(), &scene.first, &second).await;
    rotated.unwrap();
    assert_eq!(scene.opens().await, Opener::New);
    scene.rotate().await.unwrap();
    assert!(same(&read(&file).unwrap(), &second), "it is gone on with");
    scene.check_rotated().await;
}

#[tokio::test]
async fn a_key_may_be_given() {
    let scene = Scene::new().await;
    let given = scene.folder.path().join("given");
    let second = read_or_make(&given).unwrap();
    let rotated = rotate(scene.store(), &scene.file(), Some(&given)).await;
    rotated.unwrap();
    assert!(same(&read(&scene.file()).unwrap(), &second));
    scene.check_rotated().await;
    let again = rotate(scene.store(), &scene.file(), Some(&given)).await;
    assert!(again.unwrap_err().to_string().contains("in use"));
}

#[tokio::test]
async fn another_key_than_the_one_that_was_begun_with_is_refused() {
    let scene = Scene::new().await;
    let given = scene.folder.path().join("given");
    read_or_make(&given).unwrap();
    write(&new_file(&scene.file()), &MasterKey::generate()).unwrap();
    let rotated = rotate(scene.store(), &scene.file(), Some(&given)).await;
    assert!(rotated.unwrap_err().to_string().contains("interrupted"));
    assert!(same(&read(&scene.file()).unwrap(), &scene.first));
    assert_eq!(scene.opens().await, Opener::Kept);
}

#[tokio::test]
async fn a_key_of_another_repository_opens_nothing_and_is_kept() {
    let scene = Scene::new().await;
    let other = MasterKey::generate();
    write(&scene.file(), &other).unwrap();
    assert!(scene.rotate().await.is_err());
    assert!(same(&read(&scene.file()).unwrap(), &other));
    Repository::open(scene.store(), &scene.first).await.unwrap();
}
