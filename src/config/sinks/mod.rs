//! Where the reports of a sink can go, one way a file.

mod event_bridge;
mod object;
mod sns;

pub use event_bridge::{EventBridgeForm, EventBridgeSinkConfig};
pub use object::ObjectSinkConfig;
pub use sns::{SnsForm, SnsSinkConfig};
