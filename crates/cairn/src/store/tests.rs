#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;

fn resolve(text: &str, base: &Path) -> Result<StoreConfig> {
    let section: StoreSection = toml::from_str(text)?;
    section.resolve(base, PathBuf::from("data/repository"))
}

fn with_credentials(credentials: &str) -> (tempfile::TempDir, Result<StoreConfig>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("credentials");
    let mut file = std::fs::File::create(path).unwrap();
    std::io::Write::write_all(&mut file, credentials.as_bytes()).unwrap();
    let text = "[s3]\nbucket = \"b\"\nprefix = \"/a/b/\"\nendpoint = \"http://localhost:1\"\n\
                credentials_file = \"credentials\"\nprofile = \"cairn\"\n";
    let resolved = resolve(text, folder.path());
    (folder, resolved)
}

#[test]
fn a_folder_is_found_beside_the_configuration() {
    let nothing = resolve("", Path::new("etc")).unwrap();
    assert_eq!(nothing.path(), Some(Path::new("data/repository")));
    let named = resolve("path = \"r\"", Path::new("etc")).unwrap();
    assert_eq!(named.path(), Some(Path::new("etc/r")));
}

#[test]
fn credentials_are_read_from_their_section_and_never_shown() {
    let (_folder, resolved) = with_credentials(
        "[default]\naws_access_key_id = other\naws_secret_access_key = other\n\n[cairn]\n\
         aws_access_key_id = AKIDPUBLIC\naws_secret_access_key=se=cret+/==\n[more]\n",
    );
    let config = resolved.unwrap();
    let Place::Bucket(bucket) = &config.place else {
        panic!("{config:?} is no bucket");
    };
    assert_eq!(bucket.s3.credentials.access_key, "AKIDPUBLIC");
    assert_eq!(bucket.s3.credentials.secret_key.as_str(), "se=cret+/==");
    assert!(
        bucket.s3.path_style,
        "a server of one's own has no hosts for buckets"
    );
    assert_eq!(config.shown(), "s3://b/a/b");
    for shown in [format!("{config:?}"), config.to_string()] {
        assert!(
            !shown.contains("cret") && !shown.contains("AKID"),
            "{shown}"
        );
    }
}

#[test]
fn what_is_shown_comes_to_the_same_store() {
    let (folder, resolved) =
        with_credentials("[cairn]\naws_access_key_id = a\naws_secret_access_key = b\n");
    let shown = resolved.unwrap().to_string();
    let shown = shown.replace("[repository.", "[");
    // The profile is not shown: nothing in the file but the key pair is of use.
    let again = shown.replace("region =", "profile = \"cairn\"\nregion =");
    assert_eq!(
        resolve(&again, folder.path())
            .unwrap()
            .to_string()
            .replace("[repository.", "["),
        shown
    );
}

#[test]
fn what_is_not_right_is_named() {
    let base = Path::new("");
    let wrong = [
        ("path = \"r\"\n[s3]\nbucket = \"b\"", "not both"),
        ("[s3]\nbucket = \"a/b\"", "bucket"),
        ("[s3]\nbucket = \"b\"\nendpoint = \"localhost\"", "endpoint"),
        ("[s3]\nbucket = \"b\"\nprofile = \"p\"", "profile"),
        ("[s3]\nbucket = \"b\"\nsecret_key = \"s\"", "secret_key"),
        (
            "[s3]\nbucket = \"b\"\ncredentials_file = \"nowhere\"",
            "nowhere",
        ),
        ("[limits]\nrequests = 0", "requests"),
    ];
    for (text, named) in wrong {
        let error = resolve(text, base).err();
        let error = format!("{:#}", error.expect(text));
        assert!(error.contains(named), "{text}: {error}");
    }
    let (_folder, nobody) = with_credentials("[cairn]\naws_access_key_id = a\n[next]\n");
    let error = format!("{:#}", nobody.unwrap_err());
    assert!(error.contains("aws_secret_access_key"), "{error}");
}
