//! What every handler works with.

use std::sync::Arc;

use cairn_audit::Trail;
use cairn_core::{Regions, Service};
use cairn_types::Clock;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::HttpRegions;
use crate::once::Running;

/// Where this server stands.
#[derive(Debug, Clone)]
pub struct Site {
    /// Its address as clients reach it, without a path: `http://127.0.0.1:8774`.
    pub endpoint: String,
    /// The region that it is.
    pub region: String,
}

/// What every handler works with. Cheap to clone.
#[derive(Clone)]
pub struct App {
    pub(crate) service: Service,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) site: Arc<Site>,
    pub(crate) trail: Trail,
    pub(crate) calls: TaskTracker,
    pub(crate) running: Arc<Running>,
    pub(crate) places: Arc<Semaphore>,
    pub(crate) regions: Option<Arc<HttpRegions>>,
    pub(crate) handshakes: Arc<Semaphore>,
    /// Places for files that are fetched out of backups.
    pub(crate) downloads: Arc<Semaphore>,
}

/// Connections for replicas of which the other end has not proven yet who it is.
const HANDSHAKES: usize = 16;
/// Files that are fetched out of backups at the same time.
const DOWNLOADS: usize = 32;
/// Requests that are answered at the same time; further ones wait.
const REQUESTS: usize = 512;

impl App {
    /// Handlers over this service, for clients of this site, who leave their traces in `trail`.
    pub fn new(service: Service, clock: Arc<dyn Clock>, site: Site, trail: Trail) -> Self {
        Self {
            service,
            clock,
            site: Arc::new(site),
            trail,
            calls: TaskTracker::new(),
            running: Arc::default(),
            places: Arc::new(Semaphore::new(REQUESTS)),
            regions: None,
            handshakes: Arc::new(Semaphore::new(HANDSHAKES)),
            downloads: Arc::new(Semaphore::new(DOWNLOADS)),
        }
    }

    /// The same, which also tells what other regions have.
    pub fn with_regions(self, regions: Arc<HttpRegions>) -> Self {
        Self {
            regions: Some(regions),
            ..self
        }
    }

    /// The names of the regions that replicas can go to, this one first.
    pub(crate) fn destinations(&self) -> Vec<String> {
        let here = std::iter::once(self.site.region.clone());
        let others = self.regions.iter().flat_map(|regions| regions.names());
        here.chain(others).collect()
    }

    /// Calls that change something. They go on when the client that asked is
    /// gone: who stops the server waits for them.
    pub fn calls(&self) -> &TaskTracker {
        &self.calls
    }
}
