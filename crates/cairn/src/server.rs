//! The server: what it is made of, how it starts, and how it ends.

use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use cairn_core::{FirstCredentials, FirstNames, Parts, Service, Worker};
use cairn_meta::Meta;
use cairn_repo::{LocalStore, Repository};
use cairn_server::{App, Site};
use cairn_source::Inventory;
use cairn_task::Engine;
use cairn_types::Clock;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::SystemClock;
use crate::config::Config;
use crate::data_dir::{Credentials, DataDir, master_key};

/// Requests under way may take this long to end when the server stops.
const DRAIN_REQUESTS: Duration = Duration::from_secs(10);

/// Runs the server until it is told to stop.
pub async fn run(config: Config) -> Result<()> {
    let data_dir = DataDir::open(&config.data_dir)?;
    let parts = open_parts(&config, open_repository(&config).await?).await?;
    let (meta, inventory) = (parts.meta.clone(), Arc::clone(&parts.inventory));
    let (clock, wake) = (Arc::clone(&parts.clock), Arc::clone(&parts.wake));
    let service = Service::new(parts);
    let listener = TcpListener::bind(config.listen).await;
    let listener = listener.with_context(|| format!("cannot listen on {}", config.listen))?;
    let endpoint = endpoint(&config, &listener)?;
    first_start(&config, &data_dir, &service, &endpoint).await?;
    data_dir.update_endpoint(&endpoint)?;

    let stop = CancellationToken::new();
    let worker = Arc::new(Worker::new(service.clone(), inventory));
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
    let site = Site {
        endpoint: endpoint.clone(),
        region: config.region.clone(),
    };
    let app = cairn_server::router(App::new(service, clock, site));

    let mut running = JoinSet::new();
    let grace = Duration::from_secs(config.drain_seconds);
    running.spawn(async move { engine.run(config.tasks, grace).await });
    let requests =
        axum::serve(listener, app).with_graceful_shutdown(stop.clone().cancelled_owned());
    let mut requests = std::pin::pin!(requests.into_future());
    tracing::info!(%endpoint, "cairn is ready");
    tokio::select! {
        served = &mut requests => served.context("the listener failed")?,
        told = told_to_stop() => told?,
    }
    tracing::info!("cairn is stopping");
    stop.cancel();
    // A client that keeps its connection open does not keep the server from ending.
    if tokio::time::timeout(DRAIN_REQUESTS, requests)
        .await
        .is_err()
    {
        tracing::warn!("some requests were still under way");
    }
    while running.join_next().await.is_some() {}
    meta.close().await;
    tracing::info!("cairn has stopped");
    Ok(())
}

/// The repository for the one process that writes to it; made if there is none.
async fn open_repository(config: &Config) -> Result<Repository> {
    let folder = config.repository();
    let key = master_key(&config.master_key_file(), &folder)?;
    let store = LocalStore::open(&folder).context("cannot open the repository")?;
    let repository = Repository::open_or_create(Arc::new(store), key).await;
    repository.context("cannot open the repository")
}

/// What a service over this repository is made of.
pub async fn open_parts(config: &Config, repository: Repository) -> Result<Parts> {
    let meta = Meta::open(&config.database_url()).await;
    Ok(Parts {
        meta: meta.context("cannot open the catalogue")?,
        repository,
        inventory: Arc::new(Inventory::new(config.sources.clone())?),
        clock: Arc::new(SystemClock) as Arc<dyn Clock>,
        master_key: master_key(&config.master_key_file(), &config.repository())?,
        wake: Arc::new(Notify::new()),
    })
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

async fn told_to_stop() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
