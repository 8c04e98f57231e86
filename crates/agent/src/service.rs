//! The agent at work: one connection waits at the server for work, those that it has taken
//! are answered. The server needs no way to reach this host.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use cairn_api::AgentClient;
use cairn_api::client::Error as ClientError;
use cairn_link::{Connection, End, EphemeralKey, HostEnd, Instance, Limit, Purpose, Taken};
use cairn_types::{Clock, Kind, Progress};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::host::FileHost;
use crate::rules::Rules;
use crate::scripts::Scripts;
use crate::state::{Identity, Last, State};

/// Connections at a time, the one that waits included.
const CONNECTIONS_MAX: usize = 4;
/// A connection that nobody has taken for so long is made anew: the server sees that the
/// agent lives, and no box between them forgets the connection.
const UNTAKEN: Duration = Duration::from_secs(45);
/// The pause before a further try; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// An agent that can be run.
pub struct Service {
    client: AgentClient,
    identity: Identity,
    instance: Instance,
    secret: Zeroizing<[u8; 32]>,
    host: Arc<HostEnd>,
    scripts: Arc<Scripts>,
    limits: Vec<Arc<Limit>>,
    state: State,
    clock: Arc<dyn Clock>,
}

/// How a wait for work ended.
enum Waited {
    /// The server has taken the connection.
    Taken(Taken),
    /// Nobody wanted anything.
    Untaken,
}

/// Why there is no connection.
enum NoConnection {
    Client(ClientError),
    Line(cairn_link::Error),
}

impl std::fmt::Display for NoConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Client(error) => error.fmt(f),
            Self::Line(error) => error.fmt(f),
        }
    }
}

impl Service {
    /// The agent whose state this is.
    ///
    /// Errors: `NotFound` none is registered; `Denied` others can read its secret; `Invalid`
    /// its rules cannot be read.
    pub fn new(state: State, clock: Arc<dyn Clock>) -> Result<Self> {
        let identity = state.identity()?;
        let rules = Rules::load(&state.rules())?;
        let secret = identity.secret().expect("it was checked when it was read");
        let scripts = Arc::new(state.scripts());
        let limit = rules.bytes_per_second().map(Limit::new);
        let host = FileHost::new(rules, Arc::clone(&scripts), clock.clone());
        Ok(Self {
            client: AgentClient::new(&identity.server).map_err(Error::Client)?,
            identity,
            instance: state.instance()?,
            secret,
            limits: limit.map(Arc::new).into_iter().collect(),
            host: Arc::new(HostEnd::new(Arc::new(host))),
            scripts,
            state,
            clock,
        })
    }

    /// Answers the server until `stop` is cancelled.
    ///
    /// Errors: `Conflict` another process is this agent; `NotFound` the server has removed it.
    pub async fn run(self, stop: &Progress) -> Result<()> {
        let _running = self.state.lock()?;
        let scripts = Arc::clone(&self.scripts);
        let prepared = tokio::task::spawn_blocking(move || scripts.prepare()).await;
        if let Err(error) = prepared.map_err(io::Error::other).and_then(|done| done) {
            tracing::error!(%error, "Scripts that bring applications to rest cannot be run.");
        }
        tracing::info!(
            agent.id = %self.identity.agent_id,
            server = self.identity.server,
            "The agent is running."
        );
        let this = Arc::new(self);
        let mut working = JoinSet::new();
        let ended = tokio::select! {
            ended = this.serve(&mut working) => ended,
            () = stop.cancelled() => Ok(()),
        };
        // What is asked and not answered will be asked again.
        working.shutdown().await;
        // What is at rest goes on now that nobody holds it.
        let scripts = Arc::clone(&this.scripts);
        let waited = tokio::task::spawn_blocking(move || scripts.wait()).await;
        waited.expect("it does not panic");
        ended
    }

    async fn serve(self: &Arc<Self>, working: &mut JoinSet<()>) -> Result<()> {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut pause = FIRST_PAUSE;
        loop {
            while working.try_join_next().is_some() {}
            let place = Arc::clone(&places).acquire_owned().await;
            let place = place.expect("nobody closes it");
            let began = Instant::now();
            match self.wait_for_work().await {
                Ok(Waited::Taken(taken)) => {
                    pause = FIRST_PAUSE;
                    working.spawn(Arc::clone(self).answer(taken, place));
                }
                Ok(Waited::Untaken) => pause = FIRST_PAUSE,
                Err(NoConnection::Client(error)) if error.kind() == Kind::NotFound => {
                    self.note(Some("the server does not know this agent".to_owned()));
                    return Err(Error::Removed);
                }
                Err(error) => {
                    tracing::info!(%error, "There is no connection to the server; it is tried again.");
                    self.note(Some(error.to_string()));
                    if began.elapsed() > LONGEST_PAUSE {
                        pause = FIRST_PAUSE;
                    }
                    sleep(jittered(pause)).await;
                    pause = (2 * pause).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Has a connection wait at the server.
    async fn wait_for_work(&self) -> Result<Waited, NoConnection> {
        let connection = self.connect().await?;
        self.note(None);
        match timeout(UNTAKEN, Taken::wait(connection, &self.limits)).await {
            Ok(Ok(taken)) => Ok(Waited::Taken(taken)),
            Ok(Err(error)) => Err(NoConnection::Line(error)),
            Err(_) => Ok(Waited::Untaken),
        }
    }

    async fn connect(&self) -> Result<Connection, NoConnection> {
        let agent = self.identity.agent_id;
        let ours = EphemeralKey::generate();
        let there = (self.identity.project_id, agent);
        let connected = self
            .client
            .connect(there, &self.instance.name(), &ours.public())
            .await;
        let (stream, theirs) = connected.map_err(NoConnection::Client)?;
        let secret = (Purpose::Agent(agent, self.instance), &self.secret[..]);
        let keys = ours.agree(End::Answering, &theirs, secret);
        let keys = keys.map_err(NoConnection::Line)?;
        Ok(Connection::new(Box::new(stream), keys))
    }

    async fn answer(self: Arc<Self>, taken: Taken, place: OwnedSemaphorePermit) {
        tracing::info!("The server has taken a connection.");
        let progress = Arc::new(Progress::default());
        let ended = taken.answer_for(&self.host, &self.limits, &progress).await;
        match ended {
            Ok(()) => tracing::info!(size_bytes = progress.done(), "The server is done."),
            Err(error) => tracing::info!(%error, "A connection has ended."),
        }
        drop(place);
    }

    fn note(&self, problem: Option<String>) {
        self.state.note(&Last {
            at_micros: self.clock.now().as_micros(),
            problem,
        });
    }
}

/// Between half a pause and all of it, so that many agents do not come at once.
fn jittered(pause: Duration) -> Duration {
    let [random, ..] = *uuid::Uuid::new_v4().as_bytes();
    pause.mul_f64(0.5 + f64::from(random) / 512.0)
}
