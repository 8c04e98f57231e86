//! Every ailment of a store behind a network, met by a backup, a restore, a
//! deletion and a collection: each succeeds or says clearly that it failed;
//! nothing acknowledged is lost, nothing wrong is restored, and on the store
//! made well everything goes on.

use std::sync::Arc;
use std::time::Duration;

use cairn_repo::{Creation, RemoteStore, Result, RetryPolicy};
use cairn_testkit::{AilingStore, Ailment, Course, Fate, Request};
use cairn_types::{BackupId, Kind, Progress, ProjectId};
use object_store::ObjectStore;

use crate::common::{History, World, conformance, job};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Backup,
    Restore,
    Delete,
    Collect,
}

const ACTS: [Act; 4] = [Act::Backup, Act::Restore, Act::Delete, Act::Collect];

/// What every meeting starts from.
struct Start {
    store: AilingStore,
    project: ProjectId,
    history: History,
}

/// A store that is asked again, and soon.
fn remote(store: &AilingStore) -> Arc<dyn ObjectStore> {
    let policy = RetryPolicy {
        attempts: 3,
        first_pause: Duration::from_micros(100),
        longest_pause: Duration::from_micros(200),
        // Whoever is not answered within this is taken to hang.
        answer: Duration::from_millis(500),
        ..RetryPolicy::default()
    };
    Arc::new(RemoteStore::new(
        store.clone(),
        policy,
        Creation::Conditional,
    ))
}

impl Start {
    async fn new() -> Self {
        let store = AilingStore::new();
        let world = World::on(remote(&store)).await;
        // At its end more than a part of an upload.
        let history = History::new(&world, [120, 90, 20, 100]).await;
        Self {
            store,
            project: world.project_id,
            history,
        }
    }

    /// As after a restart: nothing is remembered of what was made before.
    async fn scene(&self) -> Scene {
        let store = self.store.fork();
        let world = World::open(remote(&store), self.project).await.unwrap();
        Scene {
            store,
            world,
            history: self.history.clone(),
        }
    }
}

/// A repository on a store that is well so far.
struct Scene {
    store: AilingStore,
    world: World,
    history: History,
}

impl Scene {
    async fn act(&self, act: Act) -> Result<()> {
        let project = &self.world.project;
        match act {
            Act::Backup => {
                let written = project
                    .write_disk(job(self.history.next.clone(), &self.history.disk))
                    .await;
                written.map(drop)
            }
            Act::Restore => {
                for (backup, bytes) in &self.history.kept {
                    let (restored, _) = self.world.restore(*backup).await?;
                    assert!(restored == *bytes, "a restore succeeded and is wrong");
                }
                Ok(())
            }
            Act::Delete => project.delete(self.history.to_delete).await,
            Act::Collect => {
                let promised: Vec<BackupId> = self.history.kept.keys().copied().collect();
                let collected = project.collect(&promised, Arc::new(Progress::default()));
                collected.await.map(drop)
            }
        }
    }

    /// Checks everything on the store made well, from a fresh start, and that
    /// what failed can be done now.
    async fn go_on(mut self, act: Act, done: bool, what: &str) {
        self.store.recover();
        self.world = self.world.reopen().await;
        if done && act == Act::Backup {
            self.history.keep_next();
        }
        self.act(Act::Restore).await.expect(what);
        let again = self.act(act).await;
        match again.map_err(|error| error.kind()) {
            Ok(()) => {}
            // The backup had got to its receipt.
            Err(Kind::Conflict) if act == Act::Backup => {}
            Err(kind) => panic!("{what}: then {kind:?}"),
        }
        match act {
            Act::Backup => self.history.keep_next(),
            Act::Delete => {
                let gone = self.world.project.find(self.history.to_delete).await;
                assert_eq!(gone.unwrap_err().kind(), Kind::NotFound, "{what}");
            }
            Act::Restore | Act::Collect => {}
        }
        let progress = Arc::new(Progress::default());
        self.world.project.collect(&[], progress).await.expect(what);
        self.act(Act::Restore).await.expect(what);
        self.world.must_be_whole(what).await;
    }
}

/// How an ailment is met by an act: once at the first, at one in the middle and
/// at the last of the requests that it concerns, and for good.
async fn meet(start: &Start, act: Act, ailment: Ailment) -> u64 {
    let scene = start.scene().await;
    scene.store.fall_ill(ailment, Course::Once(u64::MAX)).await;
    scene.act(act).await.unwrap();
    let requests = scene.store.recover();
    let Some(last) = requests.checked_sub(1) else {
        return 0;
    };
    let mut courses = vec![Course::Once(0), Course::Once(last / 2), Course::Once(last)];
    courses.dedup();
    // For good, and again and again, but for what costs its time each time.
    if !matches!(ailment.fate, Fate::Hangs | Fate::Stalls) {
        courses.extend([Course::From(0), Course::From(last / 2)]);
    }
    for course in courses {
        let scene = start.scene().await;
        scene.store.fall_ill(ailment, course).await;
        let done = scene.act(act).await;
        let what = format!("{act:?} meets {ailment:?} {course:?} of {requests}: {done:?}");
        if let Err(error) = &done {
            let kind = error.kind();
            let clear = !matches!(kind, Kind::Bug | Kind::Cancelled | Kind::Conflict);
            // What reads as another's is called so.
            assert!(
                clear || ailment.is_lie() && kind == Kind::Conflict,
                "{what}"
            );
        }
        let passing = matches!(course, Course::Once(_)) && !ailment.is_lie();
        assert!(
            done.is_ok() || !passing,
            "it passes and need not fail: {what}"
        );
        scene.go_on(act, done.is_ok(), &what).await;
    }
    requests
}

/// Meets an act with every ailment of some requests.
async fn meet_all(act: Act, of: &[Request]) -> u64 {
    let start = Start::new().await;
    let mut met = 0;
    for ailment in Ailment::ALL
        .iter()
        .filter(|ailment| of.contains(&ailment.request))
    {
        met += meet(&start, act, *ailment).await;
    }
    met
}

const WRITES: [Request; 6] = [
    Request::Put,
    Request::Create,
    Request::Start,
    Request::Part,
    Request::Complete,
    Request::Abort,
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_fails_at_writing() {
    for act in ACTS {
        let met = meet_all(act, &WRITES).await;
        assert_eq!(
            met > 0,
            matches!(act, Act::Backup | Act::Collect),
            "{act:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_fails_at_reading() {
    for act in ACTS {
        meet_all(act, &[Request::Get, Request::Head]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_fails_at_listing() {
    for act in ACTS {
        meet_all(act, &[Request::List]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restic_4612_a_listing_that_fails_is_not_an_empty_project() {
    let start = Start::new().await;
    for fate in [Fate::Refused, Fate::Breaks] {
        let request = Request::List;
        meet(&start, Act::Collect, Ailment { request, fate }).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_fails_at_deleting() {
    for act in ACTS {
        let met = meet_all(act, &[Request::Delete]).await;
        assert_eq!(
            met > 0,
            matches!(act, Act::Delete | Act::Collect),
            "{act:?}"
        );
    }
}

/// duplicacy 20 took what an eventually consistent listing did not show for
/// absent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn duplicacy_20_a_store_that_lists_nothing_is_not_made_a_new_repository() {
    let start = Start::new().await;
    let secrets = async |store: &AilingStore| {
        let key = format!("projects/{}/keys/1", start.project);
        let config = conformance::read(store, "config").await.unwrap();
        (config, conformance::read(store, &key).await.unwrap())
    };
    let before = secrets(&start.store).await;
    for fate in [Fate::Empty, Fate::Partial, Fate::Stale] {
        let mut scene = start.scene().await;
        let request = Request::List;
        scene
            .store
            .fall_ill(Ailment { request, fate }, Course::From(0))
            .await;
        scene.world = scene.world.reopen().await;
        // A restore finds what it needs or fails, and a backup stores again what it misses.
        let restored = scene.act(Act::Restore).await;
        let written = scene.act(Act::Backup).await;
        assert!(
            secrets(&scene.store).await == before,
            "{fate:?} made new keys"
        );
        let what = format!("{fate:?}: {restored:?} {written:?}");
        scene.go_on(Act::Backup, written.is_ok(), &what).await;
    }
}
