//! Everything that a user sees, on real parts: libclamav, the S3 and SQS protocols (ministack), freshclam.
//!
//! `make setup` installs what this needs.

#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

mod access;
mod allocator;
mod aws;
mod calls;
mod chance;
mod clamd;
mod clamd_beside;
mod clamd_bounds;
mod clamd_clients;
mod cli;
mod crash;
mod demos;
mod dialects;
mod differential;
mod docs;
mod engine;
mod enqueue;
mod every_way_in;
mod fail_closed;
mod faults;
mod filters;
mod freshclam;
mod gate;
mod harmless;
mod http;
mod http_limits;
mod http_objects;
mod idle;
mod messages;
mod nestings;
mod objects;
mod one_shot;
mod outcomes;
mod overwritten;
mod pages;
mod postgres;
mod proxy;
mod quarantine;
mod races;
mod ranges;
mod receiver;
mod recorder;
mod redrive;
mod reload;
mod samples;
mod service;
mod shutdown;
mod sinks;
mod sinks_aws;
mod sinks_mail;
mod sinks_postgres;
mod sinks_webhook;
mod trouble;
mod wait;
mod web;
