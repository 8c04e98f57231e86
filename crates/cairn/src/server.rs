//! The server: what it is made of, how it starts, and how it ends.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use cairn_audit::{Trail, TrailKey};
use cairn_core::{FirstCredentials, FirstNames, NoRegions, Parts, Regions, Service, Worker};
use cairn_meta::Meta;
use cairn_repo::Repository;
use cairn_server::{App, HttpRegions, Site};
use cairn_source::Inventory;
use cairn_task::Engine;
use cairn_types::Clock;
use rustix::fs::Mode;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::SystemClock;
use crate::config::Config;
use crate::data_dir::{Credentials, DataDir};
use crate::external;
use crate::master_key::{self, Opener};
use crate::notifications;

/// How often the server looks whether a verification is due.
const LOOK_EVERY: Duration = Duration::from_secs(300);
/// How often it looks whether a policy runs or a backup ends.
const RECONCILE_EVERY: Duration = Duration::from_secs(1);

/// Runs the server until it is told to stop.
pub async fn run(config: Config) -> Result<()> {
    // Whatever is made from here on, SQLite's files too, is its owner's alone.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    crate::listen::raise_file_limit();
    let data_dir = DataDir::open(&config.data_dir)?;
    warn_of_missing_folders(&config);
    let meta = open_catalogue(&config).await?;
    let repository = open_repository(&config, &meta).await?;
    let repository = repository
        .with_index_in(config.index())
        .with_parity(config.parity);
    let trail = open_trail(&config, &repository)?;
    let regions = Arc::new(open_regions(&config)?);
    let parts = Parts {
        regions: Arc::clone(&regions) as Arc<dyn Regions>,
        ..open_parts(&config, meta, repository)?
    };
    let (meta, inventory) = (parts.meta.clone(), Arc::clone(&parts.inventory));
    let (clock, wake) = (Arc::clone(&parts.clock), Arc::clone(&parts.wake));
    let service = Service::new(parts);
    let sender = config.notifications.sender(&config.region)?;
    let listener = TcpListener::bind(config.listen).await;
    let listener = listener.with_context(|| format!("cannot listen on {}", config.listen))?;
    let endpoint = endpoint(&config, &listener)?;
    first_start(&config, &data_dir, &service, &endpoint).await?;
    data_dir.update_endpoint(&endpoint)?;

    let stop = CancellationToken::new();
    tokio::task::spawn_blocking(move || inventory.clean_up()).await?;
    let worker = Arc::new(Worker::new(service.clone()));
    let owner = uuid::Uuid::new_v4().to_string();
    let engine = Engine::new(
        meta.clone(),
        worker,
        Arc::clone(&clock),
        owner,
        wake,
        stop.clone(),
    );
    if config.owns_catalogue() && engine.take_over().await? > 0 {
        // An earlier process ended in the middle: what it left half-written goes.
        service.collect_all().await?;
    }
    if config.owns_catalogue() {
        service.take_over_notifications().await?;
    }
    let site = Site {
        endpoint: endpoint.clone(),
        region: config.region.clone(),
    };
    let app = App::new(service.clone(), Arc::clone(&clock), site, trail).with_regions(regions);
    let calls = app.calls().clone();
    let router = cairn_server::router(app);

    let mut running = JoinSet::new();
    let grace = Duration::from_secs(config.drain_seconds);
    running.spawn(async move { engine.run(config.tasks, grace).await });
    running.spawn(verify_by_schedule(service.clone(), stop.clone()));
    running.spawn(reconcile(service.clone(), stop.clone()));
    let sending = notifications::run(service.clone(), sender, clock, stop.clone(), grace);
    running.spawn(sending);
    let requests = crate::listen::serve(listener, router, stop.clone());
    running.spawn(requests);
    tracing::info!(%endpoint, "cairn is ready");
    told_to_stop().await?;
    tracing::info!("cairn is stopping");
    stop.cancel();
    service.end_exports();
    service.end_downloads();
    while running.join_next().await.is_some() {}
    calls.close();
    calls.wait().await;
    meta.close().await;
    tracing::info!("cairn has stopped");
    Ok(())
}

/// Opens the catalogue; makes it if there is none.
pub async fn open_catalogue(config: &Config) -> Result<Meta> {
    let meta = Meta::open(&config.database_url()).await;
    meta.context("cannot open the catalogue")
}

/// Opens the repository for the one process that writes to it; makes it if
/// there is neither one nor a catalogue that has one.
///
/// The two belong together from the first start on: with another repository,
/// or none, the catalogue would promise what is not there.
async fn open_repository(config: &Config, meta: &Meta) -> Result<Repository> {
    let shown = config.repository.shown();
    let known = meta.read().await?.repository_id().await?;
    let file = config.master_key_file();
    let store = config.repository.open().await?;
    if let Some(known) = known {
        let opened = master_key::open(store, &file).await;
        let (repository, opener) =
            opened.with_context(|| format!("is the disk of the repository {shown} there?"))?;
        if opener == Opener::New {
            master_key::adopt(&file)?;
            tracing::warn!(
                file = %file.display(),
                "a rotation of the master key was interrupted and is finished: the old key opens nothing any more"
            );
        }
        if repository.id() != known {
            bail!("{shown} is not the repository that the catalogue belongs to");
        }
        let repository = repository.for_writing().await;
        let repository = repository.context("cannot become the repository's writer")?;
        return Ok(repository);
    }
    // A repository without its key is never given another.
    let key = if Repository::exists(&store).await? {
        master_key::read(&file)?
    } else {
        master_key::read_or_make(&file)?
    };
    let repository = Repository::open_or_create(store, &key).await;
    let repository = repository.context("cannot open the repository")?;
    if !repository.projects().await?.is_empty() {
        bail!(
            "the repository {shown} holds backups that the catalogue, which is new, does not know: \
             bring the catalogue back, or restore from the repository with `cairn repo`"
        );
    }
    let mut tx = meta.begin().await?;
    tx.insert_repository_id(&repository.id()).await?;
    tx.commit().await?;
    Ok(repository)
}

/// Opens the audit trail: without one, nothing is served.
pub fn open_trail(config: &Config, repository: &Repository) -> Result<Trail> {
    let key = repository.root_key().audit_key();
    let trail = Trail::open(&config.audit(), TrailKey::new(&key));
    trail.context("cannot open the audit trail")
}

/// What a service over this catalogue and this repository is made of.
pub fn open_parts(config: &Config, meta: Meta, repository: Repository) -> Result<Parts> {
    Ok(Parts {
        meta,
        repository,
        inventory: Arc::new(Inventory::new(config.sources.clone())?),
        clock: Arc::new(SystemClock) as Arc<dyn Clock>,
        wake: Arc::new(Notify::new()),
        quotas: config.quotas,
        verification: config.verify,
        compare_restored: config.compare_restored,
        region: config.region.clone(),
        regions: Arc::new(NoRegions),
        replication: config.replication.rules,
        externals: external::all(config),
        exports: config.exports.clone(),
    })
}

/// The other regions that the configuration names.
fn open_regions(config: &Config) -> Result<HttpRegions> {
    let clock = Arc::new(SystemClock) as Arc<dyn Clock>;
    let replication = &config.replication;
    let settings = replication.regions.clone();
    Ok(HttpRegions::new(
        settings,
        replication.bytes_per_second,
        &clock,
    )?)
}

/// The address that clients use.
fn endpoint(config: &Config, listener: &TcpListener) -> Result<String> {
    match &config.endpoint {
        Some(endpoint) => Ok(endpoint.clone()),
        None => Ok(format!("http://{}", listener.local_addr()?)),
    }
}

/// Gives an empty catalogue its first users, and their owner the credentials.
async fn first_start(
    config: &Config,
    data_dir: &DataDir,
    service: &Service,
    endpoint: &str,
) -> Result<()> {
    let names = FirstNames {
        domain: "cairn".to_owned(),
        project: config.region.clone(),
        user: "admin".to_owned(),
    };
    let keep = async |first: &FirstCredentials| {
        data_dir.keep_credentials(&Credentials::new(first, endpoint, &config.region))?;
        tracing::info!("the first start: credentials.json in the data directory opens this server");
        anyhow::Ok(())
    };
    service.set_up(&names, keep).await
}

/// A folder may be on a disk that comes later, so that this is no error.
fn warn_of_missing_folders(config: &Config) {
    for source in &config.sources {
        if let Some(path) = source.path()
            && !path.is_dir()
        {
            tracing::warn!(
                source = source.name(),
                ?path,
                "a source's folder is not there"
            );
        }
    }
}

/// Asks again and again whether a verification is due, until the server stops.
async fn verify_by_schedule(service: Service, stop: CancellationToken) {
    loop {
        if let Err(error) = service.verify_what_is_due().await {
            tracing::warn!(
                error = &error as &(dyn std::error::Error + 'static),
                "cannot look whether a verification is due"
            );
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

/// Starts the policies' runs that are due, deletes the backups that have ended and
/// ends the exports that nobody uses, until the server stops.
async fn reconcile(service: Service, stop: CancellationToken) {
    loop {
        let started = service.run_due_policies().await;
        let removed = service.remove_ended_backups().await;
        let exports = service.end_stale_exports().await;
        let silent = service.look_for_silent_agents().await;
        let mut busy = false;
        for (what, done) in [
            ("start policies", started),
            ("delete backups that have ended", removed),
            ("end exports", exports),
            ("look for silent agents", silent),
        ] {
            match done {
                Ok(count) => busy |= count > 0,
                Err(error) => tracing::warn!(
                    error = &error as &(dyn std::error::Error + 'static),
                    "cannot {what}"
                ),
            }
        }
        let pause = match busy {
            true => Duration::ZERO,
            false => RECONCILE_EVERY,
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn told_to_stop() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
