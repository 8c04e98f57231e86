//! Who asks: users, projects, passwords, tokens and access keys.

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use aws_lc_rs::digest;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use cairn_meta::{AccessKey, Domain, Grant, Project, Token, Tx, User};
use cairn_types::{DomainId, ProjectId, Role, Timestamp, UserId};
use zeroize::Zeroizing;

use crate::{Error, Refusal, Result, Service};

/// How long a token lives. Source: the life of an IAM user token, 24 hours.
const TOKEN_SECONDS: i64 = 24 * 60 * 60;
/// The longest name of a project or a user.
const MAX_NAME_CHARS: usize = 64;
/// What the secrets of access keys are sealed for.
const SECRET_CONTEXT: &str = "access key secret";

/// Who asks, and in which project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The user.
    pub user: UserId,
    /// The project that the request is about.
    pub project: ProjectId,
    /// What the user is there.
    pub role: Role,
    /// The id of the request, for the records it leaves.
    pub request_id: String,
}

impl Caller {
    /// The service itself, at work for a project: nobody asked it just now.
    pub(crate) fn service(project: ProjectId) -> Self {
        Self {
            user: UserId::from_uuid(uuid::Uuid::nil()),
            project,
            role: Role::Administrator,
            request_id: String::new(),
        }
    }

    /// Whether it is the service itself.
    pub(crate) fn is_service(&self) -> bool {
        self.user.uuid().is_nil()
    }
}

/// A sign-in by password.
pub struct PasswordSignIn {
    /// The user by id, or else by name and domain.
    pub user_id: Option<String>,
    /// The user's name.
    pub user_name: Option<String>,
    /// The domain's name or id.
    pub domain: Option<String>,
    /// The password.
    pub password: Zeroizing<String>,
}

/// What a token is asked to be good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Nothing said: the user's first project.
    Unscoped,
    /// A project by its id.
    ProjectId(String),
    /// A project by its name in the user's domain.
    ProjectName(String),
    /// The user's domain.
    Domain,
}

/// A token as it is handed out, once.
pub struct IssuedToken {
    /// The token itself; nothing else knows it.
    pub secret: String,
    /// Whose it is.
    pub user: User,
    /// The user's domain.
    pub domain: Domain,
    /// The project that it is scoped to.
    pub project: Option<Project>,
    /// The user's role there.
    pub role: Option<Role>,
    /// When it was issued.
    pub issued_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
}

/// The names that an empty catalogue starts with.
#[derive(Debug, Clone)]
pub struct FirstNames {
    /// The domain's name.
    pub domain: String,
    /// The project's name: the region's, as the SDKs look a project up by its region.
    pub project: String,
    /// The administrator's name.
    pub user: String,
}

/// What an empty catalogue was given, secrets included.
#[derive(Clone)]
pub struct FirstCredentials {
    /// The domain.
    pub domain: Domain,
    /// The project.
    pub project: Project,
    /// The user.
    pub user: UserId,
    /// The user's name.
    pub user_name: String,
    /// The user's password.
    pub password: Zeroizing<String>,
    /// The public half of the pair (AK).
    pub access_key: String,
    /// The secret half of the pair (SK).
    pub secret_key: Zeroizing<String>,
}

impl Service {
    /// Makes the first domain, project, administrator and access key in an
    /// empty catalogue; does nothing if there is a domain already.
    ///
    /// `keep` is given the secrets before anything is committed: where it
    /// fails, or the process ends behind it, the catalogue is still empty.
    pub async fn set_up<E>(
        &self,
        names: &FirstNames,
        keep: impl AsyncFnOnce(&FirstCredentials) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E>
    where
        E: From<Error>,
    {
        let mut tx = self.meta().begin().await.map_err(Error::from)?;
        if !tx.domains().await.map_err(Error::from)?.is_empty() {
            return Ok(());
        }
        let first = self.first_credentials(&mut tx, names).await?;
        keep(&first).await?;
        Ok(tx.commit().await.map_err(Error::from)?)
    }

    async fn first_credentials(&self, tx: &mut Tx, names: &FirstNames) -> Result<FirstCredentials> {
        let domain = Domain {
            id: DomainId::random(),
            name: names.domain.clone(),
        };
        tx.insert_domain(&domain).await?;
        self.new_tenant(tx, domain, &names.project, &names.user)
            .await
    }

    /// Makes a further project with an administrator of its own, in the first domain.
    ///
    /// Errors: `Invalid` if the project or the user exists.
    pub async fn add_project(&self, project: &str, user: &str) -> Result<FirstCredentials> {
        check_name("project", project)?;
        check_name("user", user)?;
        let taken = || Refusal::Invalid("the project or the user exists already".to_owned());
        let mut tx = self.meta().begin().await?;
        let domain = tx
            .domains()
            .await?
            .into_iter()
            .next()
            .ok_or(Refusal::NotAuthenticated)?;
        let made = match self.new_tenant(&mut tx, domain, project, user).await {
            Err(Error::Meta(error)) if error.is_duplicate() => return Err(taken().into()),
            made => made?,
        };
        tx.commit().await?;
        Ok(made)
    }

    /// Adds a project, a user who administers it, and an access key of that user.
    async fn new_tenant(
        &self,
        tx: &mut Tx,
        domain: Domain,
        project: &str,
        user: &str,
    ) -> Result<FirstCredentials> {
        let project = Project {
            id: ProjectId::random(),
            domain: domain.id,
            name: project.to_owned(),
            created_at: self.now(),
        };
        tx.insert_project(&project).await?;
        self.new_user(tx, domain, project, user, Role::Administrator)
            .await
    }

    /// Makes a user with a role in an existing project of the first domain.
    ///
    /// Errors: `Invalid` if the user exists, or the project does not.
    pub async fn add_user(
        &self,
        project: &str,
        user: &str,
        role: Role,
    ) -> Result<FirstCredentials> {
        check_name("user", user)?;
        let mut tx = self.meta().begin().await?;
        let project = named_project(&mut tx, project).await?;
        let domain = tx.domain(project.domain).await?;
        let domain = domain.ok_or(Refusal::NotAuthenticated)?;
        let made = match self.new_user(&mut tx, domain, project, user, role).await {
            Err(Error::Meta(error)) if error.is_duplicate() => {
                return Err(Refusal::Invalid("the user exists already".to_owned()).into());
            }
            made => made?,
        };
        tx.commit().await?;
        Ok(made)
    }

    /// Gives a user who exists a role in a project, in place of the one they may have there.
    ///
    /// Errors: `Invalid` if there is no such user or project.
    pub async fn grant_role(
        &self,
        project: &str,
        user: &str,
        role: Role,
    ) -> Result<(User, Project)> {
        let mut tx = self.meta().begin().await?;
        let project = named_project(&mut tx, project).await?;
        let user = tx.user_by_name(project.domain, user).await?;
        let user = user.ok_or_else(|| Refusal::Invalid("there is no such user".to_owned()))?;
        tx.insert_grant(&Grant {
            user: user.id,
            project: project.id,
            role,
        })
        .await?;
        tx.commit().await?;
        Ok((user, project))
    }

    /// Adds a user with a role in a project, and an access key of that user.
    async fn new_user(
        &self,
        tx: &mut Tx,
        domain: Domain,
        project: Project,
        user: &str,
        role: Role,
    ) -> Result<FirstCredentials> {
        let password = Zeroizing::new(random_text::<24>()?);
        let plain = password.clone();
        let password_hash = self.hash(move || hash_password(&plain)).await?;
        let user_name = user.to_owned();
        let user = User {
            id: UserId::random(),
            domain: domain.id,
            name: user_name.clone(),
            password_hash,
            created_at: self.now(),
        };
        tx.insert_user(&user).await?;
        tx.insert_grant(&Grant {
            user: user.id,
            project: project.id,
            role,
        })
        .await?;
        let (access_key, secret_key) = self.new_access_key(tx, user.id).await?;
        Ok(FirstCredentials {
            domain,
            project,
            user: user.id,
            user_name,
            password,
            access_key,
            secret_key,
        })
    }

    async fn new_access_key(
        &self,
        tx: &mut Tx,
        user: UserId,
    ) -> Result<(String, Zeroizing<String>)> {
        let access_key = format!("CAIRN{}", random_text::<15>()?.to_uppercase());
        let secret = Zeroizing::new(random_text::<40>()?);
        let sealed = self.root_key().seal(SECRET_CONTEXT, secret.as_bytes());
        let key = AccessKey {
            access_key: access_key.clone(),
            user,
            sealed_secret: hex::encode(sealed),
            created_at: self.now(),
        };
        tx.insert_access_key(&key).await?;
        Ok((access_key, secret))
    }

    /// The user and the secret behind an access key.
    ///
    /// Errors: `Denied` if there is no such key.
    pub async fn secret_of(&self, access_key: &str) -> Result<(UserId, Zeroizing<Vec<u8>>)> {
        let key = self.meta().look().await?.access_key(access_key).await?;
        let key = key.ok_or(Refusal::NotAuthenticated)?;
        let sealed = hex::decode(&key.sealed_secret).map_err(|_| Refusal::NotAuthenticated)?;
        let secret = self.root_key().open(SECRET_CONTEXT, &sealed)?;
        Ok((key.user, secret))
    }

    /// Issues a token to who knows the password.
    ///
    /// Errors: `Denied`, the same for an unknown user, a wrong password and a
    /// project that the user has no role in.
    pub async fn sign_in(&self, who: PasswordSignIn, scope: &Scope) -> Result<IssuedToken> {
        let mut tx = self.meta().read().await?;
        let user = find_user(&mut tx, &who).await?;
        drop(tx);
        // An unknown user costs as much as a wrong password, so that names cannot be probed.
        let Some(user) = user else {
            let password = who.password;
            self.hash(move || hash_password(&password)).await?;
            return Err(Refusal::NotAuthenticated.into());
        };
        let (password, hash) = (who.password, user.password_hash.clone());
        if !self
            .hash(move || password_matches(&password, &hash))
            .await?
        {
            return Err(Refusal::NotAuthenticated.into());
        }
        let ends = self.now().plus_seconds(TOKEN_SECONDS);
        self.issue_token(user, scope, ends).await
    }

    /// Issues a token to the holder of another. It ends when that one ends, so
    /// that no token can be kept alive by renewing it.
    pub async fn sign_in_again(&self, token: &str, scope: &Scope) -> Result<IssuedToken> {
        let (held, user) = self.token(token).await?;
        let scope = match (scope, held.project) {
            (Scope::Unscoped, Some(project)) => Scope::ProjectId(project.to_string()),
            _ => scope.clone(),
        };
        self.issue_token(user, &scope, held.expires_at).await
    }

    async fn issue_token(
        &self,
        user: User,
        scope: &Scope,
        expires_at: Timestamp,
    ) -> Result<IssuedToken> {
        let now = self.now();
        let mut tx = self.meta().begin().await?;
        let project = find_project(&mut tx, &user, scope).await?;
        let domain = tx
            .domain(user.domain)
            .await?
            .ok_or(Refusal::NotAuthenticated)?;
        let role = match &project {
            Some(project) => tx.grant(user.id, project.id).await?.map(|grant| grant.role),
            None => None,
        };
        let secret = random_text::<48>()?;
        let token = Token {
            digest: token_digest(&secret),
            user: user.id,
            project: project.as_ref().map(|project| project.id),
            issued_at: now,
            expires_at,
        };
        tx.remove_ended_tokens(now).await?;
        tx.insert_token(&token).await?;
        tx.commit().await?;
        Ok(IssuedToken {
            secret,
            user,
            domain,
            project,
            role,
            issued_at: token.issued_at,
            expires_at: token.expires_at,
        })
    }

    /// A token that has not ended, described as when it was issued.
    pub async fn describe_token(&self, token: &str) -> Result<IssuedToken> {
        let (held, user) = self.token(token).await?;
        let mut tx = self.meta().read().await?;
        let domain = tx
            .domain(user.domain)
            .await?
            .ok_or(Refusal::NotAuthenticated)?;
        let (mut project, mut role) = (None, None);
        if let Some(id) = held.project {
            project = tx.project(id).await?;
            role = tx.grant(user.id, id).await?.map(|grant| grant.role);
        }
        Ok(IssuedToken {
            secret: token.to_owned(),
            user,
            domain,
            project,
            role,
            issued_at: held.issued_at,
            expires_at: held.expires_at,
        })
    }

    /// Ends a token of this user.
    ///
    /// Errors: `Denied` if it is another's, or there is none.
    pub async fn end_token(&self, user: UserId, token: &str) -> Result<()> {
        let held = self.held_token(token).await?;
        if held.user != user {
            return Err(Refusal::NotAllowed.into());
        }
        let mut tx = self.meta().begin().await?;
        tx.remove_token(&held.digest).await?;
        Ok(tx.commit().await?)
    }

    async fn token(&self, token: &str) -> Result<(Token, User)> {
        let held = self.held_token(token).await?;
        let user = self.meta().look().await?.user(held.user).await?;
        Ok((held, user.ok_or(Refusal::NotAuthenticated)?))
    }

    async fn held_token(&self, token: &str) -> Result<Token> {
        let held = self
            .meta()
            .look()
            .await?
            .token(&token_digest(token))
            .await?;
        let held = held.filter(|held| held.expires_at > self.now());
        Ok(held.ok_or(Refusal::NotAuthenticated)?)
    }

    /// The user behind a token, and the project that it is scoped to.
    pub async fn user_of_token(&self, token: &str) -> Result<(UserId, Option<ProjectId>)> {
        let held = self.held_token(token).await?;
        Ok((held.user, held.project))
    }

    /// Lets a user into a project.
    ///
    /// Errors: `Denied` without a role there, as for a project that does not exist.
    pub async fn enter(
        &self,
        user: UserId,
        project: ProjectId,
        request_id: &str,
    ) -> Result<Caller> {
        let grant = self.meta().look().await?.grant(user, project).await?;
        Ok(Caller {
            user,
            project,
            role: grant.ok_or(Refusal::NotAllowed)?.role,
            request_id: request_id.to_owned(),
        })
    }

    /// The projects that a user has a role in.
    pub async fn projects_of(&self, user: UserId, name: Option<&str>) -> Result<Vec<Project>> {
        Ok(self.meta().read().await?.projects_of(user, name).await?)
    }

    /// A user's own record and domain.
    pub async fn user_and_domain(&self, user: UserId) -> Result<(User, Domain)> {
        let mut tx = self.meta().read().await?;
        let user = tx.user(user).await?.ok_or(Refusal::NotAuthenticated)?;
        let domain = tx
            .domain(user.domain)
            .await?
            .ok_or(Refusal::NotAuthenticated)?;
        Ok((user, domain))
    }

    /// The first project of the catalogue: the owner of sources that name none.
    pub async fn first_project(&self) -> Result<Option<Project>> {
        Ok(self
            .meta()
            .read()
            .await?
            .projects()
            .await?
            .into_iter()
            .next())
    }
}

/// The project with this name or id.
async fn named_project(tx: &mut Tx, project: &str) -> Result<Project> {
    let mut projects = tx.projects().await?.into_iter();
    let found = projects.find(|found| found.name == project || found.id.to_string() == project);
    Ok(found.ok_or_else(|| Refusal::Invalid("there is no such project".to_owned()))?)
}

/// Checks the name of a project or a user.
fn check_name(what: &str, name: &str) -> Result<()> {
    let length = name.chars().count();
    let good = |c: char| c.is_alphanumeric() || "._-@+ ".contains(c);
    if (1..=MAX_NAME_CHARS).contains(&length) && name.chars().all(good) && name.trim() == name {
        return Ok(());
    }
    let text = "takes 1 to 64 letters, digits, spaces inside and any of . _ - @ +";
    Err(Refusal::Invalid(format!("the name of a {what} {text}")).into())
}

async fn find_user(tx: &mut Tx, who: &PasswordSignIn) -> Result<Option<User>> {
    if let Some(id) = who.user_id.as_deref() {
        return match id.parse() {
            Ok(id) => Ok(tx.user(id).await?),
            Err(_) => Ok(None),
        };
    }
    let (Some(name), Some(domain)) = (who.user_name.as_deref(), who.domain.as_deref()) else {
        return Ok(None);
    };
    let domain = match tx.domain_by_name(domain).await? {
        Some(domain) => Some(domain),
        None => match domain.parse() {
            Ok(id) => tx.domain(id).await?,
            Err(_) => None,
        },
    };
    match domain {
        Some(domain) => Ok(tx.user_by_name(domain.id, name).await?),
        None => Ok(None),
    }
}

async fn find_project(tx: &mut Tx, user: &User, scope: &Scope) -> Result<Option<Project>> {
    let name = match scope {
        Scope::ProjectName(name) => Some(name.as_str()),
        _ => None,
    };
    let mut projects = tx.projects_of(user.id, name).await?.into_iter();
    let found = match scope {
        Scope::Domain => return Ok(None),
        Scope::Unscoped => return Ok(projects.next()),
        Scope::ProjectName(_) => projects.next(),
        Scope::ProjectId(id) => projects.find(|project| project.id.to_string() == *id),
    };
    Ok(Some(found.ok_or(Refusal::NotAuthenticated)?))
}

/// Random text of letters and digits, `N` of them, each drawn evenly.
pub(crate) fn random_text<const N: usize>() -> Result<String> {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| Error::Random)?;
    Ok(bytes
        .iter()
        .map(|byte| char::from(LETTERS[usize::from(byte % 32)]))
        .collect())
}

fn token_digest(token: &str) -> String {
    hex::encode(digest::digest(&digest::SHA256, token.as_bytes()))
}

fn hash_password(password: &str) -> Result<String> {
    let hash = Argon2::default()
        .hash_password(password.as_bytes())
        .map_err(Error::Password)?;
    Ok(hash.to_string())
}

fn password_matches(password: &str, hash: &str) -> Result<bool> {
    let unreadable = |_| Error::Password(argon2::password_hash::Error::PasswordInvalid);
    let hash = PasswordHash::new(hash).map_err(unreadable)?;
    Ok(Argon2::default()
        .verify_password(password.as_bytes(), &hash)
        .is_ok())
}
