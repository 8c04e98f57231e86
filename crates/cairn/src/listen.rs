//! Connections: how many there may be, how long each may take to say what it
//! wants, and how they end when the server stops.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use cairn_server::Peer;
use hyper::server::conn::http1::{self, UpgradeableConnection};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Connections that are open at the same time; further ones wait to be accepted.
const CONNECTIONS: usize = 1024;
/// How long a connection may take from one request's end to the end of the
/// next one's headers. What follows has the limit of a request.
const HEADER_TIME: Duration = Duration::from_secs(30);
/// How long to wait when the system has no more file descriptors to give.
const PAUSE: Duration = Duration::from_millis(100);
/// Requests under way may take this long to end when the server stops.
const DRAIN: Duration = Duration::from_secs(10);

/// Allows this process as many open files as the system lets it: a connection
/// is one, and so is every disk and pack at work.
pub fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if setrlimit(Resource::Nofile, raised).is_err() {
        tracing::warn!("the limit of open files stays as it is: {limit:?}");
    }
}

/// Answers connections until told to stop, then lets those that are at work
/// end, and the idle ones at once.
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let place = tokio::select! {
            place = Arc::clone(&places).acquire_owned() => place.expect("nobody closes it"),
            () = stop.cancelled() => break,
        };
        let (stream, peer) = tokio::select! {
            (stream, peer) = accept(&listener) => (stream, peer),
            () = stop.cancelled() => break,
        };
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIME);
        let service = TowerToHyperService::new(router.clone().layer(Extension(Peer(peer))));
        // One that becomes a line to another region is no longer ours.
        let connection = http.serve_connection(TokioIo::new(stream), service);
        let answered = answer(connection.with_upgrades(), stop.clone());
        connections.spawn(async move {
            if let Err(error) = answered.await {
                tracing::debug!(%error, "a connection broke off");
            }
            drop(place);
        });
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN, drained).await.is_err() {
        tracing::warn!("some requests were still under way");
    }
    connections.shutdown().await;
}

/// Answers what comes by a connection; when the server stops, what is under way, and no more.
async fn answer(
    connection: UpgradeableConnection<TokioIo<TcpStream>, TowerToHyperService<Router>>,
    stop: CancellationToken,
) -> hyper::Result<()> {
    tokio::pin!(connection);
    tokio::select! {
        answered = connection.as_mut() => return answered,
        () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Answers are small and come at once; waiting to fill a packet helps nobody.
                let _ = stream.set_nodelay(true);
                return (stream, peer);
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
