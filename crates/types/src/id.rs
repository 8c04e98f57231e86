//! Typed ids. A resource of CBR has a hyphenated UUID; projects, domains and
//! users, which belong to identity, have 32 hexadecimal digits.

use uuid::Uuid;

/// A text that is not an id of the kind asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no id of the kind: {kind}")]
pub struct IdError {
    /// What kind of id was expected.
    pub kind: &'static str,
    /// The text that was given, cut to 64 characters.
    pub text: String,
}

/// The written forms of ids, as regular expressions.
mod pattern {
    #![allow(
        non_upper_case_globals,
        reason = "named like the functions that write the forms"
    )]
    pub(super) const hyphenated: &str =
        "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$";
    pub(super) const simple: &str = "^[0-9a-fA-F]{32}$";
}

macro_rules! id {
    ($(#[$meta:meta])* $name:ident, $kind:literal, $form:ident, $length:literal) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Uuid);

        impl $name {
            /// Makes an id of 16 bytes; those that are drawn at random are UUIDs of version 4.
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// A new random id.
            pub fn random() -> Self {
                Self(Uuid::new_v4())
            }

            /// The 16 bytes of the id.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }

            /// The id as a UUID.
            pub const fn uuid(&self) -> Uuid {
                self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{}", self.0.$form())
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl std::str::FromStr for $name {
            type Err = IdError;
            /// Accepts the one written form only, in either case.
            fn from_str(text: &str) -> Result<Self, IdError> {
                let wrong = || IdError { kind: $kind, text: text.chars().take(64).collect() };
                if text.len() != $length {
                    return Err(wrong());
                }
                Uuid::try_parse(text).map(Self).map_err(|_| wrong())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(from)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                utoipa::openapi::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::Type::String)
                    .pattern(Some(pattern::$form))
                    .into()
            }
        }

        impl utoipa::ToSchema for $name {}
    };
}

id!(/// A vault.
    VaultId, "vault", hyphenated, 36);
id!(/// A backup: one resource's copy in a checkpoint.
    BackupId, "backup", hyphenated, 36);
id!(/// A checkpoint: one act of protecting a vault.
    CheckpointId, "checkpoint", hyphenated, 36);
id!(/// A policy.
    PolicyId, "policy", hyphenated, 36);
id!(/// A policy of an organization.
    OrganizationPolicyId, "organization policy", hyphenated, 36);
id!(/// An operation log, and the task behind it: one id names both.
    OperationLogId, "operation log", hyphenated, 36);
id!(/// A resource: a volume, a server, a share.
    ResourceId, "resource", hyphenated, 36);
id!(/// A backup agent: the id is its own, made where it runs.
    AgentId, "agent", hyphenated, 36);
id!(/// A share: one backup shown to one other project.
    ShareId, "share", hyphenated, 36);
id!(/// A replication record: one copy of a backup elsewhere.
    ReplicationId, "replication record", hyphenated, 36);
id!(/// A target of notifications.
    TargetId, "notification target", hyphenated, 36);
id!(/// A notification: one event told to one target.
    NotificationId, "notification", hyphenated, 36);
id!(/// An export: the disk of a backup, served without restoring it.
    ExportId, "export", hyphenated, 36);
id!(/// A project (tenant).
    ProjectId, "project", simple, 32);
id!(/// A domain (account).
    DomainId, "domain", simple, 32);
id!(/// A user.
    UserId, "user", simple, 32);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_in_their_one_written_form() {
        let vault: VaultId = "3b5816b5-f29c-4172-9d9a-76c719a659ce".parse().unwrap();
        assert_eq!(vault.to_string(), "3b5816b5-f29c-4172-9d9a-76c719a659ce");
        let project: ProjectId = "f841e01fd2b14e7fa41b6ae7aa6b0594".parse().unwrap();
        assert_eq!(project.to_string(), "f841e01fd2b14e7fa41b6ae7aa6b0594");
    }

    #[test]
    fn other_forms_are_refused() {
        for text in [
            "",
            "x",
            "f841e01fd2b14e7fa41b6ae7aa6b0594",
            "{3b5816b5-f29c-4172-9d9a-76c719a659ce}",
        ] {
            assert!(text.parse::<VaultId>().is_err(), "{text}");
        }
        assert!(
            "3b5816b5-f29c-4172-9d9a-76c719a659ce"
                .parse::<ProjectId>()
                .is_err()
        );
        assert!("é".repeat(18).parse::<VaultId>().is_err());
    }
}
