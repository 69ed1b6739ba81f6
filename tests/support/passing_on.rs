//! What journals of tests leave to the one inside them.

/// The named methods of [`Journal`](tallyroom::journal::Journal), passed on to a field.
macro_rules! pass_on {
    ($field:ident: $($method:ident),+) => {
        $(pass_on!(@$method $field);)+
    };
    (@durability $field:ident) => {
        fn durability(&self) -> tallyroom::journal::Durability {
            self.$field.durability()
        }
    };
    (@id $field:ident) => {
        fn id(&self) -> uuid::Uuid {
            self.$field.id()
        }
    };
    (@open $field:ident) => {
        fn open<'a>(
            &'a self,
            room: &'a tallyroom::ids::RoomName,
        ) -> StoreFuture<'a, tallyroom::journal::Opened, ReadError> {
            self.$field.open(room)
        }
    };
    (@snapshot_at $field:ident) => {
        fn snapshot_at<'a>(
            &'a self,
            room: &'a tallyroom::ids::RoomName,
            until: tallyroom::ids::Revision,
        ) -> StoreFuture<'a, Option<tallyroom::entry::Snapshot>, ReadError> {
            self.$field.snapshot_at(room, until)
        }
    };
    (@replay $field:ident) => {
        fn replay<'a>(
            &'a self,
            room: &'a tallyroom::ids::RoomName,
            after: Position,
            max_entries: usize,
        ) -> StoreFuture<'a, Vec<Arc<Batch>>, ReadError> {
            self.$field.replay(room, after, max_entries)
        }
    };
    (@save $field:ident) => {
        fn save<'a>(
            &'a self,
            room: &'a tallyroom::ids::RoomName,
            snapshot: tallyroom::entry::Snapshot,
        ) -> StoreFuture<'a, (), ReadError> {
            self.$field.save(room, snapshot)
        }
    };
    (@restart $field:ident) => {
        fn restart<'a>(
            &'a self,
            room: &'a tallyroom::ids::RoomName,
            after: Position,
            snapshot: tallyroom::entry::Snapshot,
        ) -> StoreFuture<'a, Position, AppendError> {
            self.$field.restart(room, after, snapshot)
        }
    };
    (@rooms $field:ident) => {
        fn rooms<'a>(
            &'a self,
            after: Option<&'a tallyroom::ids::RoomName>,
            max: usize,
        ) -> StoreFuture<'a, Vec<tallyroom::ids::RoomName>, ReadError> {
            self.$field.rooms(after, max)
        }
    };
}

pub(crate) use pass_on;
