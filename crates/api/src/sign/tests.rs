use proptest::prelude::*;

use super::*;

const ACCESS_KEY: &str = "AKEXAMPLE0000000001";
const SECRET_KEY: &str = "sKeXaMpLe/0123456789+abcdefghijklmnopqrs";
const DATE: &str = "20261122T001530Z";

/// A request, and the signature that the vendor's Python SDK 3.1.219 makes of it
/// with the headers of [`headers`].
struct Golden {
    method: &'static str,
    path: &'static str,
    query: &'static str,
    body: &'static str,
    signature: &'static str,
}

const GOLDEN: &[Golden] = &[
    Golden {
        method: "GET",
        path: "/v3/f841e01fd2b14e7fa41b6ae7aa6b0594/vaults",
        query: "",
        body: "",
        signature: "a77b743e1fe2c0ee155ba9c42abc02ff5ed9e423108466072b59b6f24b4a51ac",
    },
    Golden {
        method: "GET",
        path: "/v3/f841e01fd2b14e7fa41b6ae7aa6b0594/vaults",
        query: "id=a&id=b&limit=10&name=web_1",
        body: "",
        signature: "180b49a82bbdd3f81dca9fc9b6e3297f933502a92244cddcc6f24e74b903d005",
    },
    Golden {
        method: "POST",
        path: "/v3/f841e01fd2b14e7fa41b6ae7aa6b0594/checkpoints",
        query: "",
        body: r#"{"checkpoint":{"vault_id":"3b5816b5-f29c-4172-9d9a-76c719a659ce"}}"#,
        signature: "3732960b9b43e733a84b9eaf75d71ea1753a16445c78e4700a5d6e18b66896b0",
    },
    Golden {
        method: "DELETE",
        path: "/v3/f841e01fd2b14e7fa41b6ae7aa6b0594/vault/3b5816b5-f29c-4172-9d9a-76c719a659ce/tags/a%2Fb%20c",
        query: "",
        body: "",
        signature: "b397b57d7a302c80c515101f1ca30106d6370fc7d20344938a6ab666645801fd",
    },
    Golden {
        method: "GET",
        path: "/v3/f841e01fd2b14e7fa41b6ae7aa6b0594/backups",
        query: "name=%E5%A4%87%20%E4%BB%BD~%2B%26%3D%2F&show_replication=true&sort=created_at%3Adesc%2Cname&status=available&status=error",
        body: "",
        signature: "e0f9fbd67410e175dbcbc022ec773dc054e1ed35aff3f5893993d7a7fd6d78db",
    },
    Golden {
        method: "PUT",
        path: "/v3/f841e01fd2b14e7fa41b6ae7aa6b0594/backups/5d822633-2bbf-4af8-a16e-5ab1c7705235/",
        query: "",
        body: r#"{"backup":{"name":"备份"}}"#,
        signature: "bb72ecc8d27031ae10bee0c2161153441d80e059711db867da491121642b75a1",
    },
];

fn headers() -> HeaderMap {
    let pairs = [
        ("content-type", "application/json"),
        ("host", "127.0.0.1:8774"),
        ("user-agent", "golden/1.0 (a;  b)"),
        ("x-project-id", "f841e01fd2b14e7fa41b6ae7aa6b0594"),
        ("x-sdk-date", DATE),
    ];
    let name = |name: &'static str| HeaderName::from_static(name);
    pairs
        .into_iter()
        .map(|(key, value)| (name(key), HeaderValue::from_static(value)))
        .collect()
}

fn request<'a>(golden: &'a Golden, headers: &'a HeaderMap) -> SignedRequest<'a> {
    let Golden {
        method,
        path,
        query,
        body,
        ..
    } = *golden;
    SignedRequest {
        method,
        path,
        query,
        headers,
        body: body.as_bytes(),
    }
}

fn signed(golden: &Golden) -> Authorization {
    let headers = headers();
    let header = sign(&request(golden, &headers), ACCESS_KEY, SECRET_KEY).unwrap();
    Authorization::parse(header.to_str().unwrap()).unwrap()
}

#[test]
fn signatures_are_those_of_the_vendors_sdk() {
    for golden in GOLDEN {
        let authorization = signed(golden);
        assert_eq!(authorization.access_key, ACCESS_KEY);
        let (path, query) = (golden.path, golden.query);
        assert_eq!(
            hex::encode(&authorization.signature),
            golden.signature,
            "{path}?{query}"
        );
        let headers = headers();
        let signed_at = authorization
            .verify(&request(golden, &headers), SECRET_KEY)
            .unwrap();
        assert_eq!(format_date(signed_at), DATE);
    }
}

#[test]
fn the_order_of_the_query_and_what_need_not_be_encoded_do_not_matter() {
    let headers = headers();
    let authorization = signed(&GOLDEN[1]);
    let mut other = request(&GOLDEN[1], &headers);
    for query in [
        "name=web_1&limit=10&id=b&id=a",
        "id=a&id=%62&limit=10&name=web%5F1&",
    ] {
        other.query = query;
        assert!(authorization.verify(&other, SECRET_KEY).is_ok(), "{query}");
    }
}

#[test]
fn a_change_anywhere_breaks_the_signature() {
    for golden in GOLDEN {
        let (authorization, headers) = (signed(golden), headers());
        let whole = request(golden, &headers);
        let query = format!("{}&x=1", golden.query);
        let path = format!("{}x", golden.path);
        let body = format!("{} ", golden.body);
        let mut changed = headers.clone();
        changed.insert(
            "x-project-id",
            HeaderValue::from_static("00000000000000000000000000000000"),
        );
        let tampered = [
            SignedRequest {
                method: "PATCH",
                ..whole
            },
            SignedRequest {
                path: &path,
                ..whole
            },
            SignedRequest {
                query: &query,
                ..whole
            },
            SignedRequest {
                body: body.as_bytes(),
                ..whole
            },
            SignedRequest {
                headers: &changed,
                ..whole
            },
        ];
        for request in tampered {
            let verified = authorization.verify(&request, SECRET_KEY);
            assert_eq!(verified, Err(SignatureError::Mismatch), "{request:?}");
        }
        assert_eq!(
            authorization.verify(&whole, "other"),
            Err(SignatureError::Mismatch)
        );
    }
}

#[test]
fn a_signature_of_another_length_is_no_match() {
    let mut authorization = signed(&GOLDEN[0]);
    authorization.signature.pop();
    let headers = headers();
    let verified = authorization.verify(&request(&GOLDEN[0], &headers), SECRET_KEY);
    assert_eq!(verified, Err(SignatureError::Mismatch));
}

#[test]
fn covered_headers_are_there_once() {
    let authorization = signed(&GOLDEN[0]);
    let mut twice = headers();
    twice.append(
        "x-project-id",
        HeaderValue::from_static("f841e01fd2b14e7fa41b6ae7aa6b0594"),
    );
    let mut missing = headers();
    missing.remove("user-agent");
    for headers in [twice, missing] {
        let verified = authorization.verify(&request(&GOLDEN[0], &headers), SECRET_KEY);
        assert!(
            matches!(verified, Err(SignatureError::Header { .. })),
            "{verified:?}"
        );
    }
}

#[test]
fn a_header_that_is_not_ours_is_refused() {
    let many = "a;".repeat(MAX_SIGNED_HEADERS) + "host;x-sdk-date";
    let cases = [
        ("", SignatureError::Malformed),
        ("Bearer abc", SignatureError::Algorithm),
        (
            "SDK-HMAC-SM3 Access=a, SignedHeaders=host;x-sdk-date, Signature=00",
            SignatureError::Algorithm,
        ),
        ("SDK-HMAC-SHA256 Access=a", SignatureError::Malformed),
        (
            "SDK-HMAC-SHA256 Access=a, Access=b, SignedHeaders=host;x-sdk-date, Signature=00",
            SignatureError::Malformed,
        ),
        (
            "SDK-HMAC-SHA256 Access=a, SignedHeaders=host;x-sdk-date, Signature=xyz",
            SignatureError::Malformed,
        ),
        (
            "SDK-HMAC-SHA256 Access=a, SignedHeaders=host;x sdk, Signature=00",
            SignatureError::Malformed,
        ),
        (
            "SDK-HMAC-SHA256 Access=a, SignedHeaders=Host;x-sdk-date, Signature=00",
            SignatureError::Malformed,
        ),
        (
            "SDK-HMAC-SHA256 Access=a, SignedHeaders=host;x-sdk-date, Signature=AB",
            SignatureError::Malformed,
        ),
        (
            "SDK-HMAC-SHA256 Access=a, SignedHeaders=host, Signature=00",
            SignatureError::Header {
                header: "x-sdk-date".to_owned(),
            },
        ),
    ];
    for (header, error) in cases {
        assert_eq!(Authorization::parse(header), Err(error), "{header}");
    }
    let header = format!("SDK-HMAC-SHA256 Access=a, SignedHeaders={many}, Signature=00");
    assert_eq!(
        Authorization::parse(&header),
        Err(SignatureError::Malformed)
    );
}

#[test]
fn a_signature_is_good_for_a_quarter_of_an_hour() {
    let signed_at = parse_date(DATE).unwrap();
    for (seconds, good) in [
        (0, true),
        (900, true),
        (-900, true),
        (901, false),
        (-901, false),
    ] {
        assert_eq!(
            within_window(signed_at, signed_at.plus_seconds(seconds)),
            good,
            "{seconds}"
        );
    }
    assert_eq!(
        parse_date("2026-11-22T00:15:30Z"),
        Err(SignatureError::Date)
    );
    assert_eq!(parse_date(""), Err(SignatureError::Date));
}

proptest! {
    #[test]
    fn any_header_is_read_or_refused(header in ".{0,200}") {
        let _ = Authorization::parse(&header);
        let _ = Authorization::parse(&format!("{ALGORITHM} {header}"));
    }

    #[test]
    fn any_request_that_is_signed_is_verified(
        path in "/[ -~]{0,40}",
        query in "[ -~]{0,40}",
        body in proptest::collection::vec(any::<u8>(), 0..100),
    ) {
        let headers = headers();
        let request =
            SignedRequest { method: "PUT", path: &path, query: &query, headers: &headers, body: &body };
        let header = sign(&request, ACCESS_KEY, SECRET_KEY).unwrap();
        let authorization = Authorization::parse(header.to_str().unwrap()).unwrap();
        prop_assert!(authorization.verify(&request, SECRET_KEY).is_ok());
    }
}
