//! Signatures by access key and secret key, `SDK-HMAC-SHA256`: one
//! implementation, by which the client signs and the server verifies.
//!
//! A signature covers the method, the path, the query, the headers that it
//! lists and the body. Whoever verifies must also check the time
//! ([`within_window`]), or a request could be repeated for ever.
//!
//! Source: `signer/` of the vendor's Python SDK, whose signatures the tests hold.

use std::fmt::Write as _;

use aws_lc_rs::{digest, hmac};
use cairn_types::{Kind, Timestamp};
use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{percent_decode_str, percent_encode};

use crate::query::UNRESERVED;

/// The algorithm's name, which begins the header.
pub const ALGORITHM: &str = "SDK-HMAC-SHA256";
/// The header with the time of signing.
pub const DATE_HEADER: &str = "x-sdk-date";
/// How far the time of signing may be from the verifier's, before or behind, in seconds.
pub const WINDOW_SECONDS: i64 = 15 * 60;
/// The most headers that a signature may cover.
pub const MAX_SIGNED_HEADERS: usize = 64;

/// The form of the time of signing.
const DATE_FORM: &str = "%Y%m%dT%H%M%SZ";

/// Why a signature is not accepted. The messages go to the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// The header cannot be read.
    #[error("malformed Authorization header")]
    Malformed,
    /// Another algorithm than ours.
    #[error("unsupported signature algorithm")]
    Algorithm,
    /// A header that must be signed is not, or is missing, or comes twice.
    #[error("header {header} must be there once and be signed")]
    Header {
        /// The header's name.
        header: String,
    },
    /// The time of signing cannot be read.
    #[error("malformed X-Sdk-Date header")]
    Date,
    /// The signature is not of this request and this key.
    #[error("verify aksk signature fail")]
    Mismatch,
}

impl SignatureError {
    /// What a caller should do about it.
    pub const fn kind(&self) -> Kind {
        Kind::Denied
    }
}

/// What a signature covers.
#[derive(Debug, Clone, Copy)]
pub struct SignedRequest<'a> {
    /// The method, in capitals.
    pub method: &'a str,
    /// The path as it is sent, still encoded.
    pub path: &'a str,
    /// The query as it is sent, still encoded, without `?`; may be empty.
    pub query: &'a str,
    /// All headers.
    pub headers: &'a HeaderMap,
    /// The whole body; may be empty.
    pub body: &'a [u8],
}

/// A header `Authorization`, read but not yet verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorization {
    /// Which key signed.
    pub access_key: String,
    /// Which headers are covered, in their order.
    signed_headers: Vec<HeaderName>,
    /// The signature.
    signature: Vec<u8>,
}

impl Authorization {
    /// A digest of the request that this signature is of: the same when the
    /// very same request comes again. The body counts even where it was not signed.
    pub fn digest(&self, body: &[u8]) -> String {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(self.access_key.as_bytes());
        context.update(&self.signature);
        context.update(digest::digest(&digest::SHA256, body).as_ref());
        hex::encode(context.finish())
    }

    /// Reads the header.
    ///
    /// Errors: `Malformed`, `Algorithm`; `Header` if the date is not covered.
    pub fn parse(header: &str) -> Result<Self, SignatureError> {
        let (algorithm, rest) = header
            .trim()
            .split_once(' ')
            .ok_or(SignatureError::Malformed)?;
        if algorithm != ALGORITHM {
            return Err(SignatureError::Algorithm);
        }
        let (mut access_key, mut signed_headers, mut signature) = (None, None, None);
        for part in rest.split(',') {
            let (name, value) = part
                .trim()
                .split_once('=')
                .ok_or(SignatureError::Malformed)?;
            let place = match name {
                "Access" => &mut access_key,
                "SignedHeaders" => &mut signed_headers,
                "Signature" => &mut signature,
                _ => return Err(SignatureError::Malformed),
            };
            if place.replace(value).is_some() {
                return Err(SignatureError::Malformed);
            }
        }
        let access_key = access_key.ok_or(SignatureError::Malformed)?;
        let signature = parse_signature(signature.ok_or(SignatureError::Malformed)?)?;
        let signed_headers =
            parse_signed_headers(signed_headers.ok_or(SignatureError::Malformed)?)?;
        Ok(Self {
            access_key: access_key.to_owned(),
            signed_headers,
            signature,
        })
    }

    /// Verifies the signature, in constant time, and returns when it was made.
    ///
    /// Errors: `Mismatch`; `Date` or `Header` if the request lacks what is covered.
    pub fn verify(
        &self,
        request: &SignedRequest<'_>,
        secret_key: &str,
    ) -> Result<Timestamp, SignatureError> {
        let (text, signed_at) = string_to_sign(request, &self.signed_headers)?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret_key.as_bytes());
        hmac::verify(&key, text.as_bytes(), &self.signature)
            .map_err(|_| SignatureError::Mismatch)?;
        Ok(signed_at)
    }
}

/// Signs a request and returns the header `Authorization`. All headers that
/// are there are covered; the date must be among them.
pub fn sign(
    request: &SignedRequest<'_>,
    access_key: &str,
    secret_key: &str,
) -> Result<HeaderValue, SignatureError> {
    let mut names: Vec<_> = request.headers.keys().cloned().collect();
    names.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    let (text, _) = string_to_sign(request, &names)?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret_key.as_bytes());
    let signature = hex::encode(hmac::sign(&key, text.as_bytes()));
    let names: Vec<_> = names.iter().map(HeaderName::as_str).collect();
    let names = names.join(";");
    let value =
        format!("{ALGORITHM} Access={access_key}, SignedHeaders={names}, Signature={signature}");
    HeaderValue::from_str(&value).map_err(|_| SignatureError::Malformed)
}

/// Writes a time of signing for the header [`DATE_HEADER`].
pub fn format_date(instant: Timestamp) -> String {
    instant.format(DATE_FORM)
}

/// Reads a time of signing.
pub fn parse_date(text: &str) -> Result<Timestamp, SignatureError> {
    Timestamp::parse(DATE_FORM, text).map_err(|_| SignatureError::Date)
}

/// Whether a time of signing is near enough to `now`.
pub const fn within_window(signed_at: Timestamp, now: Timestamp) -> bool {
    let seconds = now.seconds_since(signed_at);
    seconds >= -WINDOW_SECONDS && seconds <= WINDOW_SECONDS
}

/// Reads the signature. Only as it is written by those who sign, in small
/// letters: a changed request is another request.
fn parse_signature(text: &str) -> Result<Vec<u8>, SignatureError> {
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(SignatureError::Malformed);
    }
    hex::decode(text).map_err(|_| SignatureError::Malformed)
}

/// Reads the list of covered headers, which must hold the date. The host need
/// not be there: the vendor's SDK for Go does not sign it.
fn parse_signed_headers(list: &str) -> Result<Vec<HeaderName>, SignatureError> {
    let capitals = list.bytes().any(|byte| byte.is_ascii_uppercase());
    if capitals || list.split(';').count() > MAX_SIGNED_HEADERS {
        return Err(SignatureError::Malformed);
    }
    let names: Result<Vec<_>, _> = list
        .split(';')
        .map(|name| name.parse::<HeaderName>())
        .collect();
    let names = names.map_err(|_| SignatureError::Malformed)?;
    if !names.iter().any(|name| name.as_str() == DATE_HEADER) {
        return Err(SignatureError::Header {
            header: DATE_HEADER.to_owned(),
        });
    }
    Ok(names)
}

/// The text that is signed, and the time of signing in it.
fn string_to_sign(
    request: &SignedRequest<'_>,
    signed_headers: &[HeaderName],
) -> Result<(String, Timestamp), SignatureError> {
    let date = single(request.headers, &HeaderName::from_static(DATE_HEADER))?;
    let date = std::str::from_utf8(date).map_err(|_| SignatureError::Date)?;
    let signed_at = parse_date(date)?;
    let canonical = canonical_request(request, signed_headers)?;
    Ok((
        format!("{ALGORITHM}\n{date}\n{}", sha256_hex(&canonical)),
        signed_at,
    ))
}

/// The one form that both sides bring a request into. Bytes, because a header
/// may hold some that are no text.
fn canonical_request(
    request: &SignedRequest<'_>,
    signed_headers: &[HeaderName],
) -> Result<Vec<u8>, SignatureError> {
    let mut canonical = Vec::with_capacity(512);
    for line in [
        request.method,
        &canonical_path(request.path),
        &canonical_query(request.query),
    ] {
        canonical.extend_from_slice(line.as_bytes());
        canonical.push(b'\n');
    }
    for name in signed_headers {
        canonical.extend_from_slice(name.as_str().as_bytes());
        canonical.push(b':');
        canonical.extend_from_slice(single(request.headers, name)?);
        canonical.push(b'\n');
    }
    canonical.push(b'\n');
    let names: Vec<_> = signed_headers.iter().map(HeaderName::as_str).collect();
    canonical.extend_from_slice(names.join(";").as_bytes());
    canonical.push(b'\n');
    canonical.extend_from_slice(sha256_hex(request.body).as_bytes());
    Ok(canonical)
}

/// The path: decoded as a whole, then split and encoded piece by piece, so that
/// an encoded slash counts as a slash; always ends with one.
fn canonical_path(path: &str) -> String {
    let decoded: Vec<u8> = percent_decode_str(path).collect();
    let mut canonical = String::with_capacity(path.len() + 1);
    for (at, piece) in decoded.split(|byte| *byte == b'/').enumerate() {
        let slash = if at == 0 { "" } else { "/" };
        write!(canonical, "{slash}{}", percent_encode(piece, UNRESERVED))
            .expect("writing to a string does not fail");
    }
    if !canonical.ends_with('/') {
        canonical.push('/');
    }
    canonical
}

/// The query: pairs decoded, sorted by key and then by value, encoded again.
fn canonical_query(query: &str) -> String {
    let pieces = query.split('&').filter(|piece| !piece.is_empty());
    let mut pairs: Vec<(Vec<u8>, Vec<u8>)> = pieces
        .map(|piece| {
            let (key, value) = piece.split_once('=').unwrap_or((piece, ""));
            (decode(key), decode(value))
        })
        .collect();
    pairs.sort();
    let written: Vec<_> = pairs
        .iter()
        .map(|(key, value)| {
            format!(
                "{}={}",
                percent_encode(key, UNRESERVED),
                percent_encode(value, UNRESERVED)
            )
        })
        .collect();
    written.join("&")
}

/// One key or value as the handlers read it: what is signed must be what is done.
fn decode(text: &str) -> Vec<u8> {
    let text = text.replace('+', " ");
    percent_decode_str(&text).collect()
}

/// The trimmed value of a header that is there exactly once.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<&'a [u8], SignatureError> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Ok(value.as_bytes().trim_ascii()),
        _ => Err(SignatureError::Header {
            header: name.as_str().to_owned(),
        }),
    }
}

/// The SHA-256 of some bytes, in hexadecimal digits.
fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(digest::digest(&digest::SHA256, bytes))
}

#[cfg(test)]
mod tests;
