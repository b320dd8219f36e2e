//! What the process says about itself: the log, the events that it is made of, and metrics.

pub mod events;
pub mod logs;
pub mod metrics;
