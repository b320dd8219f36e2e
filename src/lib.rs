//! clamgate.
pub mod engine;
pub mod scan;
