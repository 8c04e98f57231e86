//! Members on the wire: the projects that a backup is shared with.

use cairn_types::{BackupId, MemberStatus, ProjectId, ShareId, Timestamp, VaultId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::backup::Sort;
use crate::page::{self, MAX_LIMIT, Page};
use crate::query::query;
use crate::validate::{self, Invalid, Validate, require};
use crate::{BackupSortKey, wire_time};

/// The most projects that a backup is shared with.
/// Source: `AddMembersReq` in the vendor's definitions.
pub const MAX_MEMBERS: usize = 10;
/// The longest text that could stand for a project, in characters.
const MAX_MEMBER_CHARS: usize = 255;

/// The body of `AddMember`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AddMembersRequest {
    /// The projects to share with: texts here, because a wrong one has an error
    /// code of its own.
    pub members: Vec<String>,
}

impl Validate for AddMembersRequest {
    fn validate(&self) -> Result<(), Invalid> {
        validate::count("members", self.members.len(), (1, MAX_MEMBERS))?;
        self.members
            .iter()
            .try_for_each(|member| validate::text("members", member, MAX_MEMBER_CHARS))
    }
}

/// What `AddMember` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AddMembersResponse {
    /// The members that are new.
    pub members: Vec<Member>,
}

query! {
    /// Which members of a backup are listed.
    ///
    /// CBR: `ShowMembersDetail`.
    pub struct ListMembersQuery {
        one {
            /// Page size.
            limit: u32,
            /// Members left out first.
            offset: u32,
            /// Go on behind this share.
            marker: ShareId,
            /// In which order.
            sort: Sort,
            /// By project.
            dest_project_id: ProjectId,
            /// By the image that the member made of the backup.
            image_id: String,
            /// By what the member made of the share.
            status: MemberStatus,
            /// By the vault that the member took the backup into.
            vault_id: VaultId,
        }
        many {}
    }
}

impl ListMembersQuery {
    /// The part of the list that is asked for.
    pub fn page(&self) -> Page<ShareId> {
        Page::new(self.limit, self.offset, self.marker, MAX_LIMIT)
    }
}

impl Validate for ListMembersQuery {
    fn validate(&self) -> Result<(), Invalid> {
        page::limit(self.limit, MAX_LIMIT)?;
        let keys = self.sort.iter().flat_map(|sort| &sort.0);
        let has = |key| !matches!(key, BackupSortKey::Name | BackupSortKey::ProtectedAt);
        let known = keys.into_iter().all(|key| has(key.key));
        require(known, "sort", "A member has no such key.")
    }
}

/// What `ShowMembersDetail` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ListMembersResponse {
    /// The members of the page.
    pub members: Vec<Member>,
    /// How many match in all.
    pub count: u64,
}

/// What `ShowMemberDetail` and `UpdateMemberStatus` answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MemberResponse {
    /// The member.
    pub member: Member,
}

/// A project that a backup is shared with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Member {
    /// The share's id; the member's is the project's.
    pub id: ShareId,
    /// The backup.
    pub backup_id: BackupId,
    /// The project.
    pub dest_project_id: ProjectId,
    /// What the project made of it.
    pub status: MemberStatus,
    /// The project's vault that the backup was taken into.
    pub vault_id: Option<VaultId>,
    /// The image that the project made of the backup.
    pub image_id: Option<String>,
    /// When it was shared.
    #[serde(with = "wire_time")]
    pub created_at: Timestamp,
    /// When the project last changed it.
    #[serde(with = "wire_time::option")]
    pub updated_at: Option<Timestamp>,
}

/// The body of `UpdateMemberStatus`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct UpdateMemberRequest {
    /// `accepted` or `rejected`: a text here, because another has an error code
    /// of its own, and one client writes `accept` and `reject`.
    pub status: String,
    /// The vault to take the backup into.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vault_id: Option<VaultId>,
}

impl UpdateMemberRequest {
    /// What the member decides; none if the word is no decision.
    pub fn decision(&self) -> Option<MemberStatus> {
        match self.status.as_str() {
            "accepted" | "accept" => Some(MemberStatus::Accepted),
            "rejected" | "reject" => Some(MemberStatus::Rejected),
            _ => None,
        }
    }
}

impl Validate for UpdateMemberRequest {
    fn validate(&self) -> Result<(), Invalid> {
        validate::text("status", &self.status, MAX_MEMBER_CHARS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validate::parse_body;

    #[test]
    fn a_backup_is_shared_with_one_to_ten_projects() {
        let add = |count: usize| {
            let members = vec!["\"075e6035d300d48c2fd0c00b78b71ebf\""; count].join(",");
            parse_body::<AddMembersRequest>(format!("{{\"members\":[{members}]}}").as_bytes())
        };
        assert!(add(1).is_ok() && add(10).is_ok());
        assert!(add(0).is_err() && add(11).is_err());
        let domains = parse_body::<AddMembersRequest>(br#"{"domains":["x"]}"#);
        assert!(domains.unwrap_err().message.contains("members"));
    }

    #[test]
    fn a_member_decides_in_two_spellings() {
        let decision = |status: &str| {
            let body = format!(r#"{{"status":"{status}"}}"#);
            let request: UpdateMemberRequest = parse_body(body.as_bytes()).unwrap();
            request.decision()
        };
        for word in ["accepted", "accept"] {
            assert_eq!(decision(word), Some(MemberStatus::Accepted));
        }
        for word in ["rejected", "reject"] {
            assert_eq!(decision(word), Some(MemberStatus::Rejected));
        }
        assert_eq!(decision("pending"), None);
        assert_eq!(decision("gone"), None);
    }

    #[test]
    fn a_list_query_knows_the_keys_of_members() {
        let query = ListMembersQuery::parse("sort=status:asc,created_at&status=pending").unwrap();
        assert_eq!(query.status, Some(MemberStatus::Pending));
        for bad in [
            "sort=name",
            "marker=x",
            "vault_id=x",
            "status=accept",
            "limit=0",
        ] {
            assert!(ListMembersQuery::parse(bad).is_err(), "{bad}");
        }
    }
}
