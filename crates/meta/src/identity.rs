//! Domains, projects, users, their grants, keys and tokens.

use cairn_types::{DomainId, ProjectId, Role, Timestamp, UserId};
use sqlx::any::AnyRow;

use crate::query::{Columns, FromRow, Statement, insert, optional, text};
use crate::{Result, Tx};

/// An account that owns projects and users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain {
    /// Its id.
    pub id: DomainId,
    /// Its name, unique.
    pub name: String,
}

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// Its id.
    pub id: ProjectId,
    /// The domain that owns it.
    pub domain: DomainId,
    /// Its name, unique in the domain.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
}

/// Somebody who may sign in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its id.
    pub id: UserId,
    /// The domain that the user belongs to.
    pub domain: DomainId,
    /// The name, unique in the domain.
    pub name: String,
    /// The password's argon2id hash in PHC form.
    pub password_hash: String,
    /// When the user was made.
    pub created_at: Timestamp,
}

/// A user's role in a project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Who.
    pub user: UserId,
    /// Where.
    pub project: ProjectId,
    /// As what.
    pub role: Role,
}

/// A pair for signing requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessKey {
    /// The public half (AK).
    pub access_key: String,
    /// Whose it is.
    pub user: UserId,
    /// The secret half (SK), sealed, in hexadecimal.
    pub sealed_secret: String,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// The digest of the token's text, in hexadecimal.
    pub digest: String,
    /// Whose it is.
    pub user: UserId,
    /// The project that it is scoped to; none for the domain.
    pub project: Option<ProjectId>,
    /// When it was issued.
    pub issued_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
}

impl FromRow for Domain {
    fn from_row(row: &AnyRow) -> Result<Self> {
        Ok(Self {
            id: row.parsed("id")?,
            name: row.text("name")?,
        })
    }
}

impl FromRow for Project {
    fn from_row(row: &AnyRow) -> Result<Self> {
        Ok(Self {
            id: row.parsed("id")?,
            domain: row.parsed("domain_id")?,
            name: row.text("name")?,
            created_at: row.time("created_at")?,
        })
    }
}

impl FromRow for User {
    fn from_row(row: &AnyRow) -> Result<Self> {
        Ok(Self {
            id: row.parsed("id")?,
            domain: row.parsed("domain_id")?,
            name: row.text("name")?,
            password_hash: row.text("password_hash")?,
            created_at: row.time("created_at")?,
        })
    }
}

impl FromRow for Grant {
    fn from_row(row: &AnyRow) -> Result<Self> {
        Ok(Self {
            user: row.parsed("user_id")?,
            project: row.parsed("project_id")?,
            role: row.parsed("role")?,
        })
    }
}

impl FromRow for AccessKey {
    fn from_row(row: &AnyRow) -> Result<Self> {
        Ok(Self {
            access_key: row.text("access_key")?,
            user: row.parsed("user_id")?,
            sealed_secret: row.text("sealed_secret")?,
            created_at: row.time("created_at")?,
        })
    }
}

impl FromRow for Token {
    fn from_row(row: &AnyRow) -> Result<Self> {
        Ok(Self {
            digest: row.text("digest")?,
            user: row.parsed("user_id")?,
            project: row.optional_parsed("project_id")?,
            issued_at: row.time("issued_at")?,
            expires_at: row.time("expires_at")?,
        })
    }
}

impl Tx {
    /// Adds a domain.
    pub async fn insert_domain(&mut self, domain: &Domain) -> Result<()> {
        let columns = [("id", text(domain.id)), ("name", text(&domain.name))];
        insert(self, "domains", columns).await
    }

    /// The domain with this id.
    pub async fn domain(&mut self, id: DomainId) -> Result<Option<Domain>> {
        let mut statement = Statement::new("SELECT * FROM domains");
        statement.equals("id", Some(id));
        statement.one(self).await
    }

    /// The domain with this name.
    pub async fn domain_by_name(&mut self, name: &str) -> Result<Option<Domain>> {
        let mut statement = Statement::new("SELECT * FROM domains");
        statement.equals("name", Some(name));
        statement.one(self).await
    }

    /// Every domain, by name.
    pub async fn domains(&mut self) -> Result<Vec<Domain>> {
        Statement::new("SELECT * FROM domains ORDER BY name")
            .all(self)
            .await
    }

    /// Adds a project.
    pub async fn insert_project(&mut self, project: &Project) -> Result<()> {
        let columns = [
            ("id", text(project.id)),
            ("domain_id", text(project.domain)),
            ("name", text(&project.name)),
            ("created_at", project.created_at.into()),
        ];
        insert(self, "projects", columns).await
    }

    /// The project with this id.
    pub async fn project(&mut self, id: ProjectId) -> Result<Option<Project>> {
        let mut statement = Statement::new("SELECT * FROM projects");
        statement.equals("id", Some(id));
        statement.one(self).await
    }

    /// Keeps others who call this for the same project out until the end of the
    /// transaction: for rules about several of its rows, such as how many there may be.
    pub async fn lock_project(&mut self, id: ProjectId) -> Result<()> {
        let lock = self.row_lock_beside_references();
        let mut statement = Statement::new("SELECT * FROM projects");
        statement.equals("id", Some(id)).push(" ");
        statement.push(lock);
        let _: Option<Project> = statement.one(self).await?;
        Ok(())
    }

    /// The projects that a user has a role in, oldest first, of this name if one is given.
    pub async fn projects_of(&mut self, user: UserId, name: Option<&str>) -> Result<Vec<Project>> {
        let mut statement = Statement::new("SELECT * FROM projects");
        statement.condition("id IN (SELECT project_id FROM grants WHERE user_id = ");
        statement.bind(text(user)).push(")").equals("name", name);
        statement.push(" ORDER BY created_at, id");
        statement.all(self).await
    }

    /// Every project, oldest first.
    pub async fn projects(&mut self) -> Result<Vec<Project>> {
        Statement::new("SELECT * FROM projects ORDER BY created_at, id")
            .all(self)
            .await
    }

    /// Adds a user.
    pub async fn insert_user(&mut self, user: &User) -> Result<()> {
        let columns = [
            ("id", text(user.id)),
            ("domain_id", text(user.domain)),
            ("name", text(&user.name)),
            ("password_hash", text(&user.password_hash)),
            ("created_at", user.created_at.into()),
        ];
        insert(self, "users", columns).await
    }

    /// The user with this id.
    pub async fn user(&mut self, id: UserId) -> Result<Option<User>> {
        let mut statement = Statement::new("SELECT * FROM users");
        statement.equals("id", Some(id));
        statement.one(self).await
    }

    /// The user with this name in a domain.
    pub async fn user_by_name(&mut self, domain: DomainId, name: &str) -> Result<Option<User>> {
        let mut statement = Statement::new("SELECT * FROM users");
        statement
            .equals("domain_id", Some(domain))
            .equals("name", Some(name));
        statement.one(self).await
    }

    /// The users of a domain by name, only the one of this name if one is given.
    pub async fn users(&mut self, domain: DomainId, name: Option<&str>) -> Result<Vec<User>> {
        let mut statement = Statement::new("SELECT * FROM users");
        statement
            .equals("domain_id", Some(domain))
            .equals("name", name)
            .push(" ORDER BY name");
        statement.all(self).await
    }

    /// Gives a user a role in a project, instead of one they have there.
    pub async fn insert_grant(&mut self, grant: &Grant) -> Result<()> {
        let mut statement =
            Statement::new("INSERT INTO grants (user_id, project_id, role) VALUES (");
        statement
            .list([text(grant.user), text(grant.project), text(grant.role)])
            .push(") ON CONFLICT (user_id, project_id) DO UPDATE SET role = excluded.role");
        statement.run(self).await?;
        Ok(())
    }

    /// A user's role in a project.
    pub async fn grant(&mut self, user: UserId, project: ProjectId) -> Result<Option<Grant>> {
        let mut statement = Statement::new("SELECT * FROM grants");
        statement
            .equals("user_id", Some(user))
            .equals("project_id", Some(project));
        statement.one(self).await
    }

    /// Adds an access key.
    pub async fn insert_access_key(&mut self, key: &AccessKey) -> Result<()> {
        let columns = [
            ("access_key", text(&key.access_key)),
            ("user_id", text(key.user)),
            ("sealed_secret", text(&key.sealed_secret)),
            ("created_at", key.created_at.into()),
        ];
        insert(self, "access_keys", columns).await
    }

    /// The access key with this public half.
    pub async fn access_key(&mut self, access_key: &str) -> Result<Option<AccessKey>> {
        let mut statement = Statement::new("SELECT * FROM access_keys");
        statement.equals("access_key", Some(access_key));
        statement.one(self).await
    }

    /// Adds a token.
    pub async fn insert_token(&mut self, token: &Token) -> Result<()> {
        let columns = [
            ("digest", text(&token.digest)),
            ("user_id", text(token.user)),
            ("project_id", optional(token.project)),
            ("issued_at", token.issued_at.into()),
            ("expires_at", token.expires_at.into()),
        ];
        insert(self, "tokens", columns).await
    }

    /// The token with this digest, whether or not it has ended.
    pub async fn token(&mut self, digest: &str) -> Result<Option<Token>> {
        let mut statement = Statement::new("SELECT * FROM tokens");
        statement.equals("digest", Some(digest));
        statement.one(self).await
    }

    /// Removes a token.
    pub async fn remove_token(&mut self, digest: &str) -> Result<()> {
        let mut statement = Statement::new("DELETE FROM tokens");
        statement.equals("digest", Some(digest));
        statement.run(self).await?;
        Ok(())
    }

    /// Removes the tokens that have ended by `now`.
    pub async fn remove_ended_tokens(&mut self, now: Timestamp) -> Result<u64> {
        let mut statement = Statement::new("DELETE FROM tokens");
        statement.condition("expires_at <= ").bind(now);
        statement.run(self).await
    }
}
