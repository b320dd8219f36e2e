//! The places that reports can go to.

mod postgres;

pub use postgres::PostgresSinkConfig;
