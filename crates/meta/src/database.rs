//! The database itself: opening it, its transactions, and all that differs
//! between SQLite and PostgreSQL.

use std::time::Duration;

use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::pool::PoolConnection;
use sqlx::{Any, AnyConnection, AnyPool, Connection, Transaction};

use crate::{Error, Result};

/// Connections that read at the same time.
const READERS: u32 = 8;
/// Connections that write at the same time, where the database can have more than one writer.
const WRITERS: u32 = 8;
/// How long a transaction waits for its turn before it fails as transient.
const WAIT: Duration = Duration::from_secs(30);

/// SQLite's settings: readers beside the writer, and no commit answered before it is on disk.
const SQLITE_SETTINGS: &str = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
     PRAGMA foreign_keys = ON; PRAGMA busy_timeout = 30000;";

/// The open catalogue. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Meta {
    readers: AnyPool,
    writers: AnyPool,
    kind: DatabaseKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DatabaseKind {
    Sqlite,
    Postgres,
}

impl DatabaseKind {
    fn of_url(url: &str) -> Result<Self> {
        match url.split_once(':').map(|(scheme, _)| scheme) {
            Some("sqlite") => Ok(Self::Sqlite),
            Some("postgres" | "postgresql") => Ok(Self::Postgres),
            _ => Err(Error::Open {
                reason: "its URL starts with neither sqlite: nor postgres:".into(),
            }),
        }
    }

    /// SQLite has one writer; asking for its lock at once keeps two
    /// transactions from each waiting for the other.
    const fn begin_writing(self) -> &'static str {
        match self {
            Self::Sqlite => "BEGIN IMMEDIATE",
            Self::Postgres => "BEGIN ISOLATION LEVEL READ COMMITTED",
        }
    }

    const fn begin_reading(self) -> &'static str {
        match self {
            Self::Sqlite => "BEGIN DEFERRED",
            Self::Postgres => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        }
    }

    /// What lets one of several claimers take a row and the others pass it by.
    const fn claim_lock(self) -> &'static str {
        match self {
            Self::Sqlite => "",
            Self::Postgres => "FOR UPDATE SKIP LOCKED",
        }
    }

    /// Makes a read of a row wait for whoever is changing it, where writers run side by side.
    const fn row_lock(self) -> &'static str {
        match self {
            Self::Sqlite => "",
            Self::Postgres => "FOR UPDATE",
        }
    }

    /// As [`row_lock`](Self::row_lock), but lets others make rows that refer to the locked one.
    const fn row_lock_beside_references(self) -> &'static str {
        match self {
            Self::Sqlite => "",
            Self::Postgres => "FOR NO KEY UPDATE",
        }
    }
}

impl Meta {
    /// Opens the catalogue at `url` (`sqlite:PATH` or `postgres://…`), makes it
    /// if SQLite has none there, and brings its tables to this version.
    ///
    /// Errors: `Invalid` for a URL or a database of a newer version; `Transient` if it cannot be reached.
    pub async fn open(url: &str) -> Result<Self> {
        sqlx::any::install_default_drivers();
        let kind = DatabaseKind::of_url(url)?;
        let url = match kind {
            DatabaseKind::Sqlite if !url.contains('?') => format!("{url}?mode=rwc"),
            _ => url.to_owned(),
        };
        let options: AnyConnectOptions = url.parse().map_err(|_| Error::Open {
            reason: "its URL cannot be read".into(),
        })?;
        let writers = if kind == DatabaseKind::Sqlite {
            1
        } else {
            WRITERS
        };
        let writers = pool(kind, writers).connect_with(options.clone()).await?;
        sqlx::migrate!("./migrations").run(&writers).await?;
        let readers = pool(kind, READERS).connect_with(options).await?;
        Ok(Self {
            readers,
            writers,
            kind,
        })
    }

    /// Starts a transaction that may write. Dropped without [`Tx::commit`], it changes nothing.
    pub async fn begin(&self) -> Result<Tx> {
        let tx = self.writers.begin_with(self.kind.begin_writing()).await?;
        Ok(Tx {
            connection: Held::Transaction(tx),
            kind: self.kind,
        })
    }

    /// Starts a transaction that reads the catalogue as it is at one point in time.
    pub async fn read(&self) -> Result<Tx> {
        let tx = self.readers.begin_with(self.kind.begin_reading()).await?;
        Ok(Tx {
            connection: Held::Transaction(tx),
            kind: self.kind,
        })
    }

    /// For a single read, which is at one point in time by itself: it costs one
    /// trip to the database and not three.
    pub async fn look(&self) -> Result<Tx> {
        Ok(Tx {
            connection: Held::Single(self.readers.acquire().await?),
            kind: self.kind,
        })
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<()> {
        sqlx::query("SELECT 1").execute(&self.readers).await?;
        Ok(())
    }

    /// Waits for the transactions under way and closes every connection.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writers.close().await;
    }
}

fn pool(kind: DatabaseKind, connections: u32) -> AnyPoolOptions {
    AnyPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(WAIT)
        .after_connect(move |connection, _| {
            Box::pin(async move {
                if kind == DatabaseKind::Sqlite {
                    sqlx::raw_sql(SQLITE_SETTINGS)
                        .execute(&mut *connection)
                        .await?;
                }
                Ok(())
            })
        })
        // Where a commit fails (a full disk), SQLite has ended the transaction and
        // the driver believes that it goes on: such a connection is of no more use.
        .before_acquire(|connection, _| {
            Box::pin(async move { Ok(!connection.is_in_transaction()) })
        })
}

/// A transaction: every query of the catalogue is a method of it.
#[derive(Debug)]
pub struct Tx {
    connection: Held,
    kind: DatabaseKind,
}

/// The connection behind a transaction.
#[derive(Debug)]
enum Held {
    Transaction(Transaction<'static, Any>),
    /// Every statement is a transaction of its own.
    Single(PoolConnection<Any>),
}

impl Tx {
    /// Makes what the transaction did durable and visible.
    pub async fn commit(self) -> Result<()> {
        if let Held::Transaction(tx) = self.connection {
            tx.commit().await?;
        }
        Ok(())
    }

    pub(crate) fn connection(&mut self) -> &mut AnyConnection {
        match &mut self.connection {
            Held::Transaction(tx) => tx,
            Held::Single(connection) => connection,
        }
    }

    pub(crate) const fn claim_lock(&self) -> &'static str {
        self.kind.claim_lock()
    }

    pub(crate) const fn row_lock(&self) -> &'static str {
        self.kind.row_lock()
    }

    pub(crate) const fn row_lock_beside_references(&self) -> &'static str {
        self.kind.row_lock_beside_references()
    }
}

#[cfg(test)]
mod tests {
    use sqlx::Executor;

    use super::*;
    use crate::Domain;
    use cairn_types::DomainId;

    async fn add(tx: &mut Tx) -> Result<()> {
        let name = DomainId::random().to_string().repeat(64);
        let id = DomainId::random();
        tx.insert_domain(&Domain { id, name }).await
    }

    #[tokio::test]
    async fn a_catalogue_that_was_full_goes_on_when_there_is_room() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("catalogue").display());
        let meta = Meta::open(&url).await.unwrap();
        let mut tx = meta.begin().await.unwrap();
        // The one writing connection may add no page from here on.
        tx.connection()
            .execute("PRAGMA max_page_count = 1")
            .await
            .unwrap();
        tx.commit().await.unwrap();
        let mut tx = meta.begin().await.unwrap();
        let mut full = None;
        while full.is_none() {
            full = add(&mut tx).await.err();
        }
        assert_eq!(full.unwrap().kind(), cairn_types::Kind::Exhausted);
        drop(tx);
        // SQLite has ended that transaction by itself.
        let mut tx = meta.begin().await.unwrap();
        add(&mut tx).await.unwrap();
        tx.commit().await.unwrap();
    }
}
