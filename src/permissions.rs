//! What somebody may do in a room.

/// What somebody may do; without auth everybody may read and write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permissions {
    /// Beside reading and writing: list rooms, import, and see the ids of clients.
    pub admin: bool,
}

impl Permissions {
    /// By name, as clients are told.
    pub fn names(self) -> &'static [&'static str] {
        match self.admin {
            true => &["read", "write", "admin"],
            false => &["read", "write"],
        }
    }
}
