//! The clocks and the random numbers of a guest: equal events give equal rows, over any batching, restart and rebuild.
//! Clocks stand still, so every sleep is over at once; all random bytes are equal.

use std::convert::Infallible;
use std::time::Duration;

use rand::TryRng;
use wasmtime::component::{HasData, Resource, ResourceTable};
use wasmtime_wasi::HostWallClock;
use wasmtime_wasi::p2::bindings::clocks::monotonic_clock;
use wasmtime_wasi::p2::{DynPollable, Pollable, subscribe};

/// `wasi:clocks/wall-clock`: 1970-01-01T00:00:00Z.
pub(super) struct StoppedWallClock;

/// `wasi:clocks/monotonic-clock`, with the table of its pollables. No host call waits: a deadline of the guest's holds.
pub(super) struct StoppedClock<'s>(pub(super) &'s mut ResourceTable);

/// [`StoppedClock`] for the linker.
pub(super) struct HasStoppedClock;

/// `wasi:random`.
pub(super) struct EqualBytes;

/// A time that has come.
struct Past;

impl HostWallClock for StoppedWallClock {
    fn resolution(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn now(&self) -> Duration {
        Duration::ZERO
    }
}

impl HasData for HasStoppedClock {
    type Data<'s> = StoppedClock<'s>;
}

impl StoppedClock<'_> {
    fn past(&mut self) -> wasmtime::Result<Resource<DynPollable>> {
        let past = self.0.push(Past)?;
        subscribe(self.0, past)
    }
}

impl monotonic_clock::Host for StoppedClock<'_> {
    fn now(&mut self) -> wasmtime::Result<monotonic_clock::Instant> {
        Ok(0)
    }

    fn resolution(&mut self) -> wasmtime::Result<monotonic_clock::Duration> {
        Ok(1_000_000_000)
    }

    fn subscribe_instant(&mut self, _: monotonic_clock::Instant) -> wasmtime::Result<Resource<DynPollable>> {
        self.past()
    }

    fn subscribe_duration(&mut self, _: monotonic_clock::Duration) -> wasmtime::Result<Resource<DynPollable>> {
        self.past()
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Past {
    async fn ready(&mut self) {}
}

impl TryRng for EqualBytes {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(u32::from_ne_bytes([BYTE; 4]))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(u64::from_ne_bytes([BYTE; 8]))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        bytes.fill(BYTE);
        Ok(())
    }
}

/// Half of its bits are set.
const BYTE: u8 = 0b0101_0110;
