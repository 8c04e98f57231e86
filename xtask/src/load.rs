//! How many requests a second the API answers, with a large catalogue.
//!
//! The catalogue is filled directly, then a server is started on it and asked
//! over connections that stay open, as clients' pools do. The questions come
//! from this machine as well: what is measured is both sides on the same cores.

mod http;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::{Value, json};

use self::http::Connection;
use crate::server::Server;

/// What the load benchmark is given.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Vaults in the catalogue.
    #[arg(long, default_value_t = 1_000)]
    vaults: usize,
    /// Backups in all of them.
    #[arg(long, default_value_t = 100_000)]
    backups: usize,
    /// Connections that ask at the same time.
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// How long each question is asked, in seconds.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Items on a page of a list.
    #[arg(long, default_value_t = 10)]
    page: usize,
    /// Only the questions whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// The catalogue's database, empty; a SQLite file if not given.
    #[arg(long, env = "CAIRN_LOAD_CATALOGUE")]
    catalogue: Option<String>,
    /// The `cairn` program.
    #[arg(long, default_value = "target/release/cairn")]
    cairn: PathBuf,
    /// The program that fills a catalogue.
    #[arg(long, default_value = "target/release/examples/fill_catalogue")]
    fill: PathBuf,
}

/// What is asked: a name, and the target of the n-th request.
type Question<'a> = (&'a str, &'a (dyn Fn(usize) -> String + Sync));

/// Runs the benchmark and prints its table.
pub fn run(arguments: &Arguments) -> Result<()> {
    let place = std::env::temp_dir().join(format!("cairn-load-{}", std::process::id()));
    std::fs::create_dir(&place)?;
    let done = measure(arguments, &place);
    std::fs::remove_dir_all(&place)?;
    done
}

fn measure(arguments: &Arguments, place: &Path) -> Result<()> {
    let program = std::fs::canonicalize(&arguments.cairn).context("build the release first")?;
    let mut config =
        "[[source]]\nkind = \"images\"\nname = \"load\"\npath = \"images\"\n".to_owned();
    if let Some(url) = &arguments.catalogue {
        config.push_str(&format!("[catalogue]\nurl = {url:?}\n"));
    }
    make_one_backup(&Server::start(&program, place, &config)?, place)?;
    let file = place.join("data/catalogue.sqlite");
    let url = match &arguments.catalogue {
        Some(url) => url.clone(),
        None => format!("sqlite:{}", file.display()),
    };
    let mut fill = Command::new(&arguments.fill);
    fill.arg(&url);
    fill.args([&arguments.vaults, &arguments.backups].map(ToString::to_string));
    ensure!(
        fill.status()?.success(),
        "the catalogue could not be filled"
    );
    let server = Server::start(&program, place, &config)?;

    let credentials = server.credentials()?;
    let address = credentials["endpoint"].as_str().context("an endpoint")?;
    let address = address.trim_start_matches("http://").to_owned();
    let project = credentials["project_id"].as_str().context("a project")?;
    let token = sign_in(&address, &credentials)?;
    let base = format!("/v3/{project}");
    let ids = |list: &str| -> Result<Vec<String>> {
        let mut connection = Connection::open(&address, &token)?;
        let body = connection.get(&format!("{base}/{list}?limit=1000"))?;
        let body: Value = serde_json::from_slice(&body)?;
        let items = body[list].as_array().context("a list")?.iter();
        let ids = items.filter_map(|item| item["id"].as_str());
        Ok(ids.map(str::to_owned).collect())
    };
    let (vaults, backups) = (ids("vaults")?, ids("backups")?);
    let page = arguments.page;
    let at = |offset: usize| format!("limit={page}&offset={offset}");
    let behind = |ids: &[String], n: usize| format!("limit={page}&marker={}", ids[n % ids.len()]);
    let questions: [Question<'_>; 7] = [
        ("show a vault", &|n| {
            format!("{base}/vaults/{}", vaults[n % vaults.len()])
        }),
        ("show a backup", &|n| {
            format!("{base}/backups/{}", backups[n % backups.len()])
        }),
        ("list vaults, by offset", &|n| {
            format!("{base}/vaults?{}", at(n % (vaults.len() - page)))
        }),
        ("list vaults, by marker", &|n| {
            format!("{base}/vaults?{}", behind(&vaults, n))
        }),
        ("list backups, by offset", &|n| {
            format!("{base}/backups?{}", at(n % (backups.len() - page)))
        }),
        ("list backups, by marker", &|n| {
            format!("{base}/backups?{}", behind(&backups, n))
        }),
        ("list a vault's backups", &|n| {
            let vault = &vaults[n % vaults.len()];
            format!("{base}/backups?{}&vault_id={vault}", at(0))
        }),
    ];
    println!(
        "{} vaults, {} backups, {} connections, pages of {page}",
        arguments.vaults, arguments.backups, arguments.connections
    );
    println!(
        "{:<24} {:>10} {:>9} {:>9} {:>9}",
        "", "requests/s", "p50 ms", "p99 ms", "max ms"
    );
    let asked = questions
        .into_iter()
        .filter(|(name, _)| name.contains(&arguments.only));
    for (name, target) in asked {
        // What is asked first fills the caches; it is not counted.
        ask(&address, &token, arguments, Duration::from_secs(1), target)?;
        let length = Duration::from_secs(arguments.seconds);
        let mut took = ask(&address, &token, arguments, length, target)?;
        took.sort_unstable();
        let at = |share: f64| {
            let place = (took.len() as f64 * share) as usize;
            took[place.min(took.len() - 1)].as_secs_f64() * 1e3
        };
        let rate = took.len() as f64 / length.as_secs_f64();
        let (middle, late, last) = (at(0.5), at(0.99), at(1.0));
        println!("{name:<24} {rate:>10.0} {middle:>9.2} {late:>9.2} {last:>9.2}");
    }
    Ok(())
}

/// Has the server make the vault and the backup that all others are copies of.
fn make_one_backup(server: &Server, place: &Path) -> Result<()> {
    let images = place.join("images");
    std::fs::create_dir(&images)?;
    std::fs::File::create(images.join("disk.img"))?.set_len(1 << 20)?;
    server.call(&[
        "vault",
        "create",
        "load",
        "--size",
        "1000",
        "--resource",
        "disk.img",
    ])?;
    server.call(&["checkpoint", "create", "load", "--wait"])?;
    Ok(())
}

/// Asks over all connections for some time; how long each answer took.
fn ask(
    address: &str,
    token: &str,
    arguments: &Arguments,
    length: Duration,
    target: &(dyn Fn(usize) -> String + Sync),
) -> Result<Vec<Duration>> {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let asking: Vec<_> = (0..arguments.connections)
            .map(|number| {
                let over = &over;
                scope.spawn(move || -> Result<Vec<Duration>> {
                    let mut connection = Connection::open(address, token)?;
                    let mut took = Vec::new();
                    // Each connection walks its own way through what can be asked.
                    let mut next = number * 7919;
                    while !over.load(Ordering::Relaxed) {
                        let start = Instant::now();
                        connection.get(&target(next))?;
                        took.push(start.elapsed());
                        next += 104_729;
                    }
                    Ok(took)
                })
            })
            .collect();
        let start = Instant::now();
        while let Some(rest) = length.checked_sub(start.elapsed()) {
            thread::park_timeout(rest);
        }
        over.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        for asked in asking {
            all.append(&mut asked.join().expect("who asks does not panic")?);
        }
        Ok(all)
    })
}

fn sign_in(address: &str, credentials: &Value) -> Result<String> {
    let user = json!({
        "name": credentials["user_name"], "password": credentials["password"],
        "domain": { "name": credentials["domain_name"] },
    });
    let body = json!({ "auth": {
        "identity": { "methods": ["password"], "password": { "user": user } },
        "scope": { "project": { "id": credentials["project_id"] } },
    } });
    http::post_for_token(address, "/v3/auth/tokens", &body.to_string())
}
