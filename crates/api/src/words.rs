//! Closed sets of words that occur on the wire alone. Those that the rest of
//! Cairn knows too live in `types`.

use cairn_types::{ObjectType, named};

named! {
    /// How a vault is paid for.
    pub enum ChargingMode: "charging mode" {
        /// In advance, for a period.
        PrePaid = "pre_paid",
        /// By use.
        PostPaid = "post_paid",
    }
}

named! {
    /// Where a vault's resources run.
    pub enum CloudType: "cloud type" {
        /// In this cloud.
        Public = "public",
        /// On a site outside.
        Hybrid = "hybrid",
    }
}

named! {
    /// What a backup of a running server is worth.
    pub enum ConsistentLevel: "consistent level" {
        /// As after a power cut.
        CrashConsistent = "crash_consistent",
        /// As its applications wish.
        AppConsistent = "app_consistent",
    }
}

named! {
    /// How a vault protects.
    pub enum ProtectType: "protect type" {
        /// By backups.
        Backup = "backup",
        /// By copies that come from another region.
        Replication = "replication",
        /// By copies that come from another site.
        Hybrid = "hybrid",
    }
}

named! {
    /// The unit of a paid period.
    pub enum PeriodType: "period type" {
        /// Months.
        Month = "month",
        /// Years.
        Year = "year",
    }
}

named! {
    /// How a backup came to be.
    pub enum ImageType: "image type" {
        /// It was made here.
        Backup = "backup",
        /// It is a copy from another region.
        Replication = "replication",
    }
}

named! {
    /// Whose backups a list shows.
    pub enum OwnType: "own type" {
        /// The project's own.
        Private = "private",
        /// Those that others share with it.
        Shared = "shared",
        /// Both.
        AllGranted = "all_granted",
    }
}

named! {
    /// The types of protectables, as the path names them.
    pub enum ProtectableType: "protectable type" {
        /// Servers.
        Server = "server",
        /// Disks.
        Disk = "disk",
        /// Shares.
        Turbo = "turbo",
        /// Desktops.
        Workspace = "workspace",
        /// Desktops, by their newer name.
        WorkspaceV2 = "workspace_v2",
        /// Hosts whose agents connect to the server: Cairn's own.
        Native = "native",
    }
}

impl ProtectableType {
    /// The type of the vaults that take such protectables.
    pub const fn object_type(self) -> ObjectType {
        match self {
            Self::Server => ObjectType::Server,
            Self::Disk => ObjectType::Disk,
            Self::Turbo => ObjectType::Turbo,
            Self::Workspace | Self::WorkspaceV2 => ObjectType::Workspace,
            Self::Native => ObjectType::File,
        }
    }
}

named! {
    /// What a list of backups can be sorted by.
    pub enum BackupSortKey: "sort key" {
        /// When it was asked for.
        CreatedAt = "created_at",
        /// When it last changed.
        UpdatedAt = "updated_at",
        /// Its name.
        Name = "name",
        /// Its state.
        Status = "status",
        /// When it was finished.
        ProtectedAt = "protected_at",
        /// Its id.
        Id = "id",
    }
}

named! {
    /// What is done with tags.
    pub enum TagAction: "tag action" {
        /// They are added.
        Create = "create",
        /// They are removed.
        Delete = "delete",
    }
}

named! {
    /// What a search by tags answers.
    pub enum TagSearchAction: "tag search action" {
        /// The vaults.
        Filter = "filter",
        /// How many there are.
        Count = "count",
    }
}

named! {
    /// What a search by tags can also look at.
    pub enum MatchKey: "match key" {
        /// The name.
        ResourceName = "resource_name",
    }
}

named! {
    /// How an agent stands.
    pub enum AgentStatus: "agent status" {
        /// In service.
        Normal = "normal",
        /// Not heard of for too long.
        Abnormal = "abnormal",
        /// Taken off its host.
        Uninstall = "uninstall",
    }
}

named! {
    /// Where an agent's host stands.
    pub enum AgentType: "agent type" {
        /// On a site outside.
        Native = "native",
        /// In this cloud.
        Cloud = "cloud",
    }
}
