//! What the tables match on.

use silverd_core::config::SilverTable;
use silverd_core::route::Router;

use crate::tables::quarantine::routing_id;

/// Finds the events that no table takes.
pub(super) struct Routing {
    pub(super) router: Router,
    /// The quarantine's commits name it.
    pub(super) id: String,
}

impl Routing {
    pub(super) fn new(tables: &[SilverTable]) -> Self {
        Self { router: Router::new(tables), id: routing_id(tables) }
    }
}
