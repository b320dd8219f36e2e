//! Where the reports of a sink can go, one way a file.

mod event_bridge;
mod object;
mod postgres;
mod sns;

pub use event_bridge::{EventBridgeForm, EventBridgeSinkConfig};
pub use object::ObjectSinkConfig;
pub use postgres::PostgresSinkConfig;
pub use sns::{SnsForm, SnsSinkConfig};
