//! Malware scanning for uploads: a ClamAV engine that is loaded once, stays warm, and never calls "clean" what it could not
//! scan completely.
//!
//! The `clamgate` program takes S3 event notifications from SQS, scans each object, acts on it (tag, promote, quarantine),
//! reports the verdict, and only then deletes the message. The library below it can be embedded: with
//! `default-features = false` it is the scanner alone.
//!
//! ```
//! use std::sync::Arc;
//! use clamgate::engine::{EICAR, EngineBuilder, Status, judge};
//!
//! # fn main() -> Result<(), clamgate::engine::LoadError> {
//! // A database directory as freshclam keeps it, /var/lib/clamav for example.
//! let engine = Arc::new(EngineBuilder::new().load("tests/data/signatures".as_ref())?);
//! let verdict = judge(&engine.scan_bytes(EICAR.concat().as_bytes()));
//! assert_eq!(verdict.status, Status::Infected);
//! assert_eq!(verdict.signatures, ["Win.Test.EICAR_HDB-1.UNOFFICIAL"]);
//! # Ok(())
//! # }
//! ```
//!
//! # Speed, for programs that embed the library
//!
//! Two things that make libclamav faster come with the crate, because the linker exports them from your executable:
//! [`EngineBuilder::pcre_jit`](engine::EngineBuilder::pcre_jit) and
//! [`EngineBuilder::fast_logical_expressions`](engine::EngineBuilder::fast_logical_expressions). They are on by default; nothing is
//! to be done.
//!
//! The third is an allocator, which is yours to choose. For what the `clamgate` program does, add mimalloc to your dependencies,
//!
//! ```toml
//! mimalloc = { version = "0.1", default-features = false, features = ["override"] }
//! ```
//!
//! and make it your global allocator. The feature makes it libclamav's, too: [`engine::allocator`] then says `mimalloc`.
//!
//! ```text
//! #[global_allocator]
//! static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
//! ```
//!
//! After an engine was dropped, [`engine::release_free_memory`] gives the memory back, with either allocator.
//!
//! # The modules, from the bottom up
//!
//! | module | what it is |
//! | --- | --- |
//! | [`engine`] | libclamav made safe: load, scan, observations, verdict. All `unsafe` is here. |
//! | [`scan`] | a pool of scan threads, inputs within a memory budget, warm reloads |
//! | `config` | the configuration, merged from file, environment and flags |
//! | `filter` | which objects of the queue are scanned at all |
//! | `queue`, `object`, `action`, `report` | where work comes from, where objects come from, what is done with them, who is told; none of them knows another |
//! | `pipeline` | joins those four with `scan` |
//! | `intake` | streams and files that clients bring, within the same budget |
//! | `service` | what all ways into the service share |
//! | `http`, `clamd` | the HTTP API, and clamd's protocol |
//! | `enqueue` | puts objects that exist already on the queue |
//! | `redrive` | moves dead letters back to the queue |
//! | `definitions` | runs freshclam, watches the database, reloads |
//! | `cli` | one subcommand a file |
//!
//! # What always holds
//!
//! 1. `CLEAN` means that every byte that libclamav could reach was scanned, with complete definitions, within all limits and
//!    without an error. Everything else has another status.
//! 2. What is tagged, copied or deleted is the version that was scanned, or has the ETag that was scanned.
//! 3. A message is deleted only after all of its records were acted on and reported. Doing that twice changes nothing.
//! 4. A reload never interrupts scans, and a bad update changes nothing. Where memory does not hold two engines, scans wait for
//!    the reload, and an update whose signatures and digests are right but which cannot be loaded leaves nothing to scan with.
//! 5. Memory, disk, threads and connections are bounded by the configuration, whatever the objects.

#[cfg(feature = "service")]
pub mod action;
#[cfg(feature = "service")]
pub mod aws;
#[cfg(feature = "service")]
mod backoff;
#[cfg(feature = "clamd")]
pub mod clamd;
#[cfg(feature = "service")]
pub mod cli;
#[cfg(feature = "service")]
pub mod config;
#[cfg(feature = "service")]
pub mod definitions;
pub mod engine;
#[cfg(feature = "service")]
pub mod enqueue;
#[cfg(feature = "service")]
pub mod filter;
#[cfg(feature = "service")]
pub mod health;
#[cfg(feature = "service")]
pub mod http;
#[cfg(feature = "service")]
mod https;
#[cfg(feature = "service")]
pub mod iam;
#[cfg(feature = "service")]
pub mod intake;
#[cfg(feature = "events")]
mod key;
#[cfg(feature = "service")]
pub mod object;
#[cfg(test)]
mod on_event;
#[cfg(feature = "service")]
pub mod pipeline;
#[cfg(feature = "events")]
pub mod queue;
#[cfg(feature = "service")]
pub mod readiness;
#[cfg(feature = "service")]
pub mod redrive;
#[cfg(feature = "service")]
pub mod report;
#[cfg(feature = "service")]
pub mod s3;
pub mod scan;
#[cfg(feature = "service")]
pub mod service;
#[cfg(feature = "service")]
pub mod shutdown;
#[cfg(feature = "service")]
pub mod telemetry;
#[cfg(feature = "service")]
mod unix_socket;
#[cfg(feature = "service")]
mod waiting;
