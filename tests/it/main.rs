//! Everything that a user sees, on real parts: libclamav, the S3 and SQS protocols (ministack), freshclam.
//!
//! `make setup` installs what this needs.

#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

mod aws;
mod cli;
mod crash;
mod differential;
mod docs;
mod engine;
mod enqueue;
mod fail_closed;
mod freshclam;
mod idle;
mod messages;
mod nestings;
mod objects;
mod reload;
mod samples;
mod service;
mod shutdown;
mod trouble;
mod wait;
mod ways_in;
