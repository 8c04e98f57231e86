//! What can be protected.

use crate::named::named;

named! {
    /// The type of a resource, by its CBR name.
    pub enum ResourceType: "resource type" {
        /// A virtual machine with all of its disks.
        Server = "OS::Nova::Server",
        /// A disk.
        Volume = "OS::Cinder::Volume",
        /// A bare-metal server.
        BareMetalServer = "OS::Ironic::BareMetalServer",
        /// A host that runs the agent.
        NativeServer = "OS::Native::Server",
        /// A share.
        Turbo = "OS::Sfs::Turbo",
        /// A desktop.
        Desktop = "OS::Workspace::DesktopV2",
    }
}

named! {
    /// What a vault protects; fixed when the vault is created.
    pub enum ObjectType: "object type" {
        /// Servers.
        Server = "server",
        /// Disks.
        Disk = "disk",
        /// Shares.
        Turbo = "turbo",
        /// Desktops.
        Workspace = "workspace",
        /// VMware machines (hybrid).
        Vmware = "vmware",
        /// Databases of the cloud.
        Rds = "rds",
        /// Files of hosts.
        File = "file",
    }
}

impl ObjectType {
    /// Whether a vault of this type takes resources of type `resource`.
    /// Source: the resource types that the vault resource of the Terraform provider maps. That a
    /// vault of files takes hosts with an agent is Cairn's.
    pub const fn accepts(self, resource: ResourceType) -> bool {
        match self {
            Self::Server => {
                matches!(
                    resource,
                    ResourceType::Server | ResourceType::BareMetalServer
                )
            }
            Self::Disk => matches!(resource, ResourceType::Volume),
            Self::Turbo => matches!(resource, ResourceType::Turbo),
            Self::Workspace => matches!(resource, ResourceType::Desktop),
            Self::File => matches!(resource, ResourceType::NativeServer),
            Self::Vmware | Self::Rds => false,
        }
    }
}

impl ObjectType {
    /// The usual type of what a vault of this type protects.
    pub const fn resource_type(self) -> ResourceType {
        match self {
            Self::Disk => ResourceType::Volume,
            Self::Turbo => ResourceType::Turbo,
            Self::Workspace => ResourceType::Desktop,
            Self::File => ResourceType::NativeServer,
            Self::Server | Self::Vmware | Self::Rds => ResourceType::Server,
        }
    }
}

impl ResourceType {
    /// The provider id that CBR gives to backups of this type.
    /// Source: the `BackupResp` schema of the vendor's OpenAPI.
    pub const fn provider_id(self) -> &'static str {
        match self {
            Self::Volume => "d1603440-187d-4516-af25-121250c7cc97",
            Self::Turbo => "3f3c3220-245c-4805-b811-758870015881",
            Self::Desktop => "86a80900-71bf-4961-956a-d52df944f84a",
            Self::Server | Self::BareMetalServer | Self::NativeServer => {
                "0daac4c5-6707-4851-97ba-169e36266b66"
            }
        }
    }
}
