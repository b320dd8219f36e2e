//! Whether a reload happens beside the old engine or after it.

use crate::config::ReloadMode;
use crate::scan::{Memory, Warm};

/// What a reload would do at this moment, and why.
#[derive(Debug)]
pub(super) struct Plan {
    mode: ReloadMode,
    memory: Memory,
    engine: Option<u64>,
    budget: u64,
}

impl Plan {
    /// Looks at the memory. `budget` bytes must be left for objects.
    pub(super) fn now(mode: ReloadMode, warm: &Warm, budget: u64) -> Self {
        Self { mode, memory: Memory::look(), engine: warm.engine_bytes(), budget }
    }

    /// Whether the old engine must go first.
    pub(super) fn is_drain(&self) -> bool {
        match self.mode {
            ReloadMode::Beside => false,
            ReloadMode::Drain => true,
            ReloadMode::Auto => !self.memory.holds_another(self.engine, self.budget),
        }
    }

    /// Into the log: `why` there is a reload, or `start` when there is none.
    pub(super) fn tell(&self, why: &'static str) {
        let how = if self.is_drain() { "drain" } else { "beside" };
        let (engine_bytes, room_bytes, budget_bytes) = (self.engine, self.memory.room(), self.budget);
        let (limit_bytes, used_bytes) = (self.memory.group.map(|group| group.limit), self.memory.group.map(|group| group.used));
        let available_bytes = self.memory.available;
        let message = if why == "start" { "how definitions are reloaded" } else { "reloading the definitions" };
        tracing::info!(why, how, engine_bytes, room_bytes, limit_bytes, used_bytes, available_bytes, budget_bytes, "{message}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mode_decides_and_auto_asks_the_memory() {
        let plan = |mode, room: Option<u64>| {
            Plan { mode, memory: Memory { group: None, available: room }, engine: Some(1000), budget: 500 }.is_drain()
        };
        for (room, auto) in [(None, false), (Some(1750), false), (Some(1749), true), (Some(0), true)] {
            assert_eq!(plan(ReloadMode::Auto, room), auto, "{room:?}");
            assert!(!plan(ReloadMode::Beside, room) && plan(ReloadMode::Drain, room));
        }
    }
}
