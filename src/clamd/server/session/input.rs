//! What has arrived from a client.

use crate::clamd::frame::LONGEST_COMMAND;

/// What is read at once. A stream is taken in pieces of this size, whatever its client calls a chunk.
const READ_AT_ONCE: usize = 64 * 1024;
const _: () = assert!(READ_AT_ONCE > LONGEST_COMMAND);

/// Bytes that have arrived and are not used yet.
pub(super) struct Input {
    bytes: Box<[u8]>,
    begin: usize,
    end: usize,
}

impl Input {
    pub(super) fn new() -> Self {
        Self { bytes: vec![0; READ_AT_ONCE].into_boxed_slice(), begin: 0, end: 0 }
    }

    pub(super) fn rest(&self) -> &[u8] {
        self.bytes.get(self.begin..self.end).unwrap_or_default()
    }

    /// Only the last `count` bytes are still wanted.
    pub(super) fn keep(&mut self, count: usize) {
        self.begin = self.end.saturating_sub(count);
    }

    pub(super) fn clear(&mut self) {
        (self.begin, self.end) = (0, 0);
    }

    /// Where to read to. Never empty: what is kept while more is needed is at most a command.
    pub(super) fn space(&mut self) -> &mut [u8] {
        self.bytes.copy_within(self.begin..self.end, 0);
        (self.begin, self.end) = (0, self.end - self.begin);
        self.bytes.get_mut(self.end..).unwrap_or_default()
    }

    pub(super) fn filled(&mut self, count: usize) {
        self.end = (self.end + count).min(self.bytes.len());
    }
}
