//! Becoming an agent of a server.

use std::io::{IsTerminal, Read};
use std::net::{ToSocketAddrs, UdpSocket};

use cairn_api::AgentClient;
use cairn_api::agent_line::{EnrolAgentRequest, NewEnrolment};
use cairn_link::enrolment::{AgentEnd, Reply, Token};
use cairn_types::AgentId;
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::state::{Identity, State};

/// Bytes of a token at most, with what may stand around it.
const TOKEN_BYTES_MAX: u64 = 256;

/// Reads a token that was piped in.
pub(crate) fn token_from_input() -> Result<Zeroizing<String>> {
    let input = std::io::stdin();
    if input.is_terminal() {
        return Err(Error::TokenMissing);
    }
    let mut text = Zeroizing::new(String::new());
    let read = input.take(TOKEN_BYTES_MAX).read_to_string(&mut text);
    read.map_err(|_| Error::TokenMissing)?;
    Ok(text)
}

/// Registers an agent by a token, and keeps who it is.
///
/// Errors: `Conflict` there is one already; `Denied` the token is used, expired or unknown;
/// `Transient` the server cannot be reached.
pub async fn register(
    state: &State,
    server: &str,
    token: &str,
    name: Option<String>,
) -> Result<Identity> {
    let token = Token::parse(token.trim()).ok_or(Error::Token)?;
    state.begin()?;
    let client = AgentClient::new(server).map_err(Error::Client)?;
    let agent = AgentId::random();
    let (end, request) = AgentEnd::begin(&token, agent);
    let request = EnrolAgentRequest {
        enrolment: NewEnrolment {
            token_id: request.token.to_string(),
            agent_id: agent,
            public_key: hex::encode(request.public_key),
            proof: hex::encode(request.proof),
            host_name: name.unwrap_or_else(host_name),
            host_ip: host_ip(server).unwrap_or_else(|| "unknown".to_owned()),
            host_os: host_os(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        },
    };
    let enrolled = client.enrol(&request).await.map_err(Error::Enrolment)?;
    let enrolled = enrolled.enrolment;
    let mut reply = Reply {
        public_key: [0; 32],
        proof: [0; 32],
    };
    let unreadable = |_| Error::Enrolment(cairn_api::client::Error::Enrolment);
    hex::decode_to_slice(&enrolled.public_key, &mut reply.public_key).map_err(unreadable)?;
    hex::decode_to_slice(&enrolled.proof, &mut reply.proof).map_err(unreadable)?;
    let secret = end.finish(&reply).map_err(Error::Impostor)?;
    let there = (enrolled.project_id, enrolled.region);
    let identity = Identity::new(agent, server.to_owned(), there, &secret);
    state.keep(&identity)?;
    Ok(identity)
}

fn host_name() -> String {
    let uname = rustix::system::uname();
    uname.nodename().to_string_lossy().into_owned()
}

/// The address by which this host would reach the server: nothing is sent.
fn host_ip(server: &str) -> Option<String> {
    let (scheme, rest) = server.split_once("://")?;
    let host = rest.split('/').next()?;
    let port = if scheme == "https" { 443 } else { 80 };
    let addresses = host.to_socket_addrs();
    let mut addresses = addresses.or_else(|_| (host, port).to_socket_addrs()).ok()?;
    let address = addresses.next()?;
    let any = match address.is_ipv4() {
        true => "0.0.0.0:0",
        false => "[::]:0",
    };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(address).ok()?;
    Some(socket.local_addr().ok()?.ip().to_string())
}

/// What the host's system calls itself.
fn host_os() -> String {
    let uname = rustix::system::uname();
    let kernel = || {
        let (name, release) = (uname.sysname(), uname.release());
        format!("{} {}", name.to_string_lossy(), release.to_string_lossy())
    };
    let told = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let mut names = told
        .lines()
        .filter_map(|line| line.strip_prefix("PRETTY_NAME="));
    let name = names.next().map(|name| name.trim_matches('"').to_owned());
    name.filter(|name| !name.is_empty()).unwrap_or_else(kernel)
}
