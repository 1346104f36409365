//! What a daemon has from the machine that it runs on: the wall clock, the disk, its threads. The simulation puts its own in
//! their place, for all that runs on its thread.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::SystemTime;

use object_store::ObjectStore;
use tokio::task::JoinHandle;

/// A machine that is not the real one.
pub(crate) trait Machine: Send + Sync {
    fn now(&self) -> SystemTime;
    /// What stands between silverd and the files of its tables.
    fn store(&self, disk: Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore>;
}

thread_local! {
    static SIMULATED: RefCell<Option<Arc<dyn Machine>>> = const { RefCell::new(None) };
}

/// The machine of this thread; `None` for the real one.
pub(crate) fn simulated() -> Option<Arc<dyn Machine>> {
    SIMULATED.with_borrow(Clone::clone)
}

/// Makes this the machine of the thread, and gives the one before.
#[cfg(test)]
pub(crate) fn replace(machine: Option<Arc<dyn Machine>>) -> Option<Arc<dyn Machine>> {
    SIMULATED.replace(machine)
}

/// Does work that may block the thread. A simulation has one thread, which waits for it.
pub(crate) fn block_in_place<T>(work: impl FnOnce() -> T) -> T {
    match simulated() {
        None => tokio::task::block_in_place(work),
        Some(_) => work(),
    }
}

/// Starts a task. In a simulation it ends with its daemon.
pub(crate) fn spawn(task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    match simulated() {
        None => tokio::spawn(task),
        Some(_) => tokio::task::spawn_local(task),
    }
}
