//! What a user may be in a project.

use crate::named::named;

named! {
    /// A user's role in a project. The three below the administrator are the
    /// system roles of CBR; source: the permissions of the service in the Open
    /// Telekom Cloud documentation.
    pub enum Role: "role" {
        /// Everything, what concerns the whole domain included: organization policies, migration.
        Administrator = "admin",
        /// Everything in the project.
        FullAccess = "CBR FullAccess",
        /// Everything in the project but making, changing and deleting policies.
        BackupsAndVaultsFullAccess = "CBR BackupsAndVaultsFullAccess",
        /// Looking.
        ReadOnlyAccess = "CBR ReadOnlyAccess",
    }
}
