//! As much HTTP as a load generator needs, so that it takes as little as can
//! be of the processors that it shares with the server.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use anyhow::{Context, Result, ensure};

/// A connection that stays open.
pub struct Connection {
    reader: BufReader<TcpStream>,
    token: String,
    host: String,
}

impl Connection {
    /// Opens a connection on which every request carries a token.
    pub fn open(address: &str, token: &str) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self {
            reader: BufReader::new(stream),
            token: token.to_owned(),
            host: address.to_owned(),
        })
    }

    /// Asks, and returns the body of an answer that must be a success.
    pub fn get(&mut self, target: &str) -> Result<Vec<u8>> {
        let (host, token) = (&self.host, &self.token);
        let request =
            format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nX-Auth-Token: {token}\r\n\r\n");
        self.reader.get_mut().write_all(request.as_bytes())?;
        let (headers, length) = self.headers()?;
        let mut body = vec![0; length];
        self.reader.read_exact(&mut body)?;
        let said = String::from_utf8_lossy(&body);
        ensure!(
            headers.starts_with("HTTP/1.1 200 "),
            "{target}: {headers}{said}"
        );
        Ok(body)
    }

    /// The head of an answer, and the length of its body.
    fn headers(&mut self) -> Result<(String, usize)> {
        let (mut headers, mut length) = (String::new(), 0);
        loop {
            let start = headers.len();
            ensure!(
                self.reader.read_line(&mut headers)? > 0,
                "the server hung up"
            );
            let line = &headers[start..];
            if line == "\r\n" {
                return Ok((headers, length));
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse()?;
            }
        }
    }
}

/// Posts a sign-in and returns the token of its answer.
pub fn post_for_token(address: &str, target: &str, body: &str) -> Result<String> {
    let mut connection = Connection::open(address, "")?;
    let length = body.len();
    let request = format!(
        "POST {target} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    );
    connection.reader.get_mut().write_all(request.as_bytes())?;
    let (headers, _) = connection.headers()?;
    let token = headers.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("x-subject-token")
            .then(|| value.trim().to_owned())
    });
    token.with_context(|| format!("no token: {headers}"))
}
