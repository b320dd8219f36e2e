//! What the process says about itself: the log, and the events that it is made of.

pub mod events;
pub mod logs;
pub mod metrics;
