//! The part of Keystone's version 3 API that CBR clients use: tokens, projects,
//! domains, the catalog, and the version document.
//!
//! Unlike in CBR, what is unset is left out: the OpenStack clients ask whether
//! a key is there.

use cairn_types::{DomainId, ProjectId, Timestamp, UserId};
use serde::{Deserialize, Serialize};

use crate::query::query;
use crate::validate::{self, Invalid, Validate, require};
use crate::wire_time;

/// The longest name, password or token in a request, in characters.
const MAX_TEXT_CHARS: usize = 4096;

query! {
    /// Which projects or domains are listed.
    pub struct NameQuery {
        one {
            /// Only those with this name.
            name: String,
        }
        many {}
    }
}

impl Validate for NameQuery {
    fn validate(&self) -> Result<(), Invalid> {
        Ok(())
    }
}

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// The body of `POST /v3/auth/tokens`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TokenRequest {
    /// Who asks, and for what.
    pub auth: Auth,
}

/// Who asks for a token, and for what.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Auth {
    /// Who asks.
    pub identity: Identity,
    /// What the token shall be good for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
}

/// How somebody proves who they are.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Identity {
    /// `password`, `token`.
    pub methods: Vec<String>,
    /// For the method `password`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<PasswordIdentity>,
    /// For the method `token`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenIdentity>,
}

/// A proof by password.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PasswordIdentity {
    /// The user and the password.
    pub user: PasswordUser,
}

/// A user, by id or by name and domain, and the password.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PasswordUser {
    /// The user's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<UserId>,
    /// The user's name, with the domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The user's domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<DomainRef>,
    /// The password.
    pub password: Secret,
}

/// A proof by another token.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TokenIdentity {
    /// The token.
    pub id: Secret,
}

/// What a token is good for: one project, one domain, or nothing in particular.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Scope {
    /// A project.
    Project {
        /// Which.
        project: ProjectRef,
    },
    /// A domain.
    Domain {
        /// Which.
        domain: DomainRef,
    },
    /// The word `unscoped`, or an object with that key.
    Unscoped(serde_json::Value),
}

/// A project, by id or by name and domain.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ProjectRef {
    /// Its id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<ProjectId>,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<DomainRef>,
}

/// A domain, by id or by name.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct DomainRef {
    /// Its id; a text, because OpenStack clients send `default`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl Validate for TokenRequest {
    fn validate(&self) -> Result<(), Invalid> {
        let identity = &self.auth.identity;
        let [method] = identity.methods.as_slice() else {
            return Err(Invalid::rule(
                "auth.identity.methods",
                "It takes one method.",
            ));
        };
        match method.as_str() {
            "password" => {
                let missing = || Invalid::rule("auth.identity.password", "It is missing.");
                let user = &identity.password.as_ref().ok_or_else(missing)?.user;
                let named = user.id.is_some() || (user.name.is_some() && user.domain.is_some());
                require(
                    named,
                    "auth.identity.password.user",
                    "It takes an id, or a name and a domain.",
                )?;
                validate::text(
                    "auth.identity.password.user.password",
                    &user.password.0,
                    MAX_TEXT_CHARS,
                )
            }
            "token" => {
                let missing = || Invalid::rule("auth.identity.token", "It is missing.");
                let token = identity.token.as_ref().ok_or_else(missing)?;
                validate::text("auth.identity.token.id", &token.id.0, MAX_TEXT_CHARS)
            }
            _ => Err(Invalid::rule(
                "auth.identity.methods",
                "It takes password or token.",
            )),
        }?;
        match &self.auth.scope {
            Some(Scope::Project { project }) => {
                let named = project.id.is_some() || project.name.is_some();
                require(named, "auth.scope.project", "It takes an id or a name.")
            }
            Some(Scope::Domain { domain }) => {
                let named = domain.id.is_some() || domain.name.is_some();
                require(named, "auth.scope.domain", "It takes an id or a name.")
            }
            Some(Scope::Unscoped(word)) => {
                let unscoped = word.as_str() == Some("unscoped") || word.get("unscoped").is_some();
                require(unscoped, "auth.scope", "It takes a project or a domain.")
            }
            None => Ok(()),
        }
    }
}

/// What `POST` and `GET /v3/auth/tokens` answer; the token itself is in the
/// header `X-Subject-Token`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TokenResponse {
    /// What the token is good for.
    pub token: Token,
}

/// What a token is good for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Token {
    /// How it was got.
    pub methods: Vec<String>,
    /// When it was issued.
    #[serde(with = "wire_time::token")]
    pub issued_at: Timestamp,
    /// When it ends.
    #[serde(with = "wire_time::token")]
    pub expires_at: Timestamp,
    /// Whose it is.
    pub user: TokenUser,
    /// The project that it is good for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<TokenProject>,
    /// The domain that it is good for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<NamedDomain>,
    /// What its owner may do.
    #[serde(default)]
    pub roles: Vec<Role>,
    /// Where the services are.
    #[serde(default)]
    pub catalog: Vec<CatalogEntry>,
}

/// A token's owner.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TokenUser {
    /// The user.
    pub id: UserId,
    /// The user's name.
    pub name: String,
    /// The user's domain.
    pub domain: NamedDomain,
}

/// A token's project.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TokenProject {
    /// The project.
    pub id: ProjectId,
    /// Its name.
    pub name: String,
    /// Its domain.
    pub domain: NamedDomain,
}

/// A domain.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NamedDomain {
    /// The domain.
    pub id: DomainId,
    /// Its name.
    pub name: String,
}

/// What somebody may do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Role {
    /// The role.
    pub id: String,
    /// Its name.
    pub name: String,
}

/// What `GET /v3/auth/catalog` answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CatalogResponse {
    /// The services.
    pub catalog: Vec<CatalogEntry>,
    /// Where this list is.
    pub links: Links,
}

/// A service, and where it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CatalogEntry {
    /// The service.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its type: `cbr`, `identity`.
    #[serde(rename = "type")]
    pub service_type: String,
    /// Where it is.
    pub endpoints: Vec<Endpoint>,
}

/// Where a service is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Endpoint {
    /// The endpoint.
    pub id: String,
    /// For whom: `public`.
    pub interface: String,
    /// In which region.
    pub region: String,
    /// The same.
    pub region_id: String,
    /// Its address.
    pub url: String,
}

/// What `GET /v3/projects` and `GET /v3/auth/projects` answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProjectsResponse {
    /// The projects.
    pub projects: Vec<Project>,
    /// Where this list is.
    pub links: Links,
}

/// A project.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Project {
    /// Its id.
    pub id: ProjectId,
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Its domain.
    pub domain_id: DomainId,
    /// What it is part of: its domain.
    pub parent_id: String,
    /// It can be used.
    pub enabled: bool,
    /// It stands for a domain.
    pub is_domain: bool,
    /// Where it is.
    pub links: Links,
}

/// What `GET /v3/auth/domains` answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DomainsResponse {
    /// The domains.
    pub domains: Vec<Domain>,
    /// Where this list is.
    pub links: Links,
}

/// What `GET /v3/users` answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UsersResponse {
    /// The users.
    pub users: Vec<ListedUser>,
    /// Where this list is.
    pub links: Links,
}

/// A user, in a list.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListedUser {
    /// The user's id.
    pub id: UserId,
    /// The user's name.
    pub name: String,
    /// What is said of the user.
    pub description: String,
    /// The user's domain.
    pub domain_id: DomainId,
    /// The user may sign in.
    pub enabled: bool,
    /// When the password ends; never.
    pub password_expires_at: Option<String>,
    /// Where it is.
    pub links: Links,
}

/// A domain, in a list.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Domain {
    /// Its id.
    pub id: DomainId,
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// It can be used.
    pub enabled: bool,
    /// Where it is.
    pub links: Links,
}

/// Where something is.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Links {
    /// Itself.
    #[serde(rename = "self")]
    pub this: String,
    /// The page before; only in lists.
    #[serde(default)]
    pub previous: Option<String>,
    /// The page behind; only in lists.
    #[serde(default)]
    pub next: Option<String>,
}

impl Links {
    /// A list of one page, or a single thing, at `address`.
    pub fn to(address: impl Into<String>) -> Self {
        Self {
            this: address.into(),
            previous: None,
            next: None,
        }
    }
}

/// What `GET /v3` answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct IdentityVersionResponse {
    /// The version.
    pub version: IdentityVersion,
}

/// A version of the identity API.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct IdentityVersion {
    /// The version, such as `v3.14`.
    pub id: String,
    /// `stable`.
    pub status: String,
    /// When it became so.
    pub updated: String,
    /// Where it is.
    pub links: Vec<VersionLink>,
    /// What it speaks.
    #[serde(rename = "media-types")]
    pub media_types: Vec<MediaType>,
}

/// Where a version is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VersionLink {
    /// `self`.
    pub rel: String,
    /// The address.
    pub href: String,
}

/// What a version speaks.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MediaType {
    /// The general type.
    pub base: String,
    /// The particular one.
    #[serde(rename = "type")]
    pub particular: String,
}

impl IdentityVersionResponse {
    /// The version that Cairn speaks, at `address`.
    /// Source: the version document of OpenStack Keystone's API reference.
    pub fn v3(address: impl Into<String>) -> Self {
        let link = VersionLink {
            rel: "self".to_owned(),
            href: address.into(),
        };
        let media_type = MediaType {
            base: "application/json".to_owned(),
            particular: "application/vnd.openstack.identity-v3+json".to_owned(),
        };
        let version = IdentityVersion {
            id: "v3.14".to_owned(),
            status: "stable".to_owned(),
            updated: "2020-04-07T00:00:00Z".to_owned(),
            links: vec![link],
            media_types: vec![media_type],
        };
        Self { version }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validate::parse_body;

    fn read(identity: &str, scope: &str) -> Result<TokenRequest, Invalid> {
        parse_body(format!(r#"{{"auth":{{"identity":{identity},"scope":{scope}}}}}"#).as_bytes())
    }

    const PASSWORD: &str = r#"{"methods":["password"],"password":{"user":
        {"name":"admin","domain":{"name":"lab"},"password":"s3cret"}}}"#;

    #[test]
    fn requests_by_password_and_token_are_read_with_each_scope() {
        let request = read(
            PASSWORD,
            r#"{"project":{"name":"lab","domain":{"id":"default"}}}"#,
        )
        .unwrap();
        assert!(matches!(request.auth.scope, Some(Scope::Project { .. })));
        let token = r#"{"methods":["token"],"token":{"id":"t"}}"#;
        let request = read(token, r#"{"domain":{"name":"lab"}}"#).unwrap();
        assert!(matches!(request.auth.scope, Some(Scope::Domain { .. })));
        assert!(read(token, r#""unscoped""#).is_ok());
        assert!(read(token, "null").unwrap().auth.scope.is_none());
    }

    #[test]
    fn incomplete_requests_are_refused() {
        for (identity, scope) in [
            (r#"{"methods":[]}"#, "null"),
            (r#"{"methods":["password"]}"#, "null"),
            (r#"{"methods":["token"]}"#, "null"),
            (r#"{"methods":["saml2"]}"#, "null"),
            (
                r#"{"methods":["password"],"password":{"user":{"name":"a","password":"b"}}}"#,
                "null",
            ),
            (PASSWORD, r#"{"project":{}}"#),
            (PASSWORD, r#"{"domain":{}}"#),
            (PASSWORD, r#"{"planet":{}}"#),
        ] {
            assert!(read(identity, scope).is_err(), "{identity} {scope}");
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        let shown = format!("{:?}", read(PASSWORD, "null").unwrap());
        assert!(!shown.contains("s3cret"), "{shown}");
    }

    #[test]
    fn the_version_document_names_its_address() {
        let value = serde_json::to_value(IdentityVersionResponse::v3("http://a/v3")).unwrap();
        assert_eq!(value["version"]["links"][0]["href"], "http://a/v3");
        assert_eq!(
            value["version"]["media-types"][0]["base"],
            "application/json"
        );
    }
}
