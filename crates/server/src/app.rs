//! What every handler works with.

use std::sync::Arc;

use cairn_core::Service;
use cairn_types::Clock;

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
}

impl App {
    /// Handlers over this service, for clients of this site.
    pub fn new(service: Service, clock: Arc<dyn Clock>, site: Site) -> Self {
        Self {
            service,
            clock,
            site: Arc::new(site),
        }
    }
}
