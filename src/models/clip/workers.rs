//! Work on the CPU spread over cores by splitting the batch.
//!
//! burn's CPU backend runs most elementwise operations on one thread, so one
//! large batch leaves cores idle. Instead each core gets small batches and a
//! thread pool of its own with a single thread, which also keeps a batch's
//! activations in that core's cache.

use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use anyhow::{Result, anyhow};
use rayon::{ThreadPool, ThreadPoolBuilder};

/// One single-threaded pool for each core.
#[derive(Debug)]
pub(super) struct Workers {
    pools: Vec<ThreadPool>,
}

impl Workers {
    /// As many as the surrounding rayon pool has threads.
    pub(super) fn new() -> Result<Self> {
        let pool = |_| ThreadPoolBuilder::new().num_threads(1).build();
        let pools = (0..rayon::current_num_threads())
            .map(pool)
            .collect::<Result<_, _>>()?;
        Ok(Self { pools })
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.pools.len()
    }

    /// `work` of every item, in the items' order.
    pub(super) fn map<T: Sync, R: Send>(
        &self,
        items: &[T],
        work: impl Fn(&T) -> Result<R> + Sync,
    ) -> Result<Vec<R>> {
        let next = AtomicUsize::new(0);
        let results: Mutex<Vec<(usize, Result<R>)>> = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for pool in self.pools.iter().take(items.len()) {
                scope.spawn(|| {
                    pool.install(|| {
                        loop {
                            let i = next.fetch_add(1, Ordering::Relaxed);
                            let Some(item) = items.get(i) else { return };
                            let result = work(item);
                            // A poisoned lock means a panic that the scope passes on.
                            if let Ok(mut results) = results.lock() {
                                results.push((i, result));
                            }
                        }
                    });
                });
            }
        });
        let mut results = results
            .into_inner()
            .map_err(|_| anyhow!("a worker panicked"))?;
        results.sort_unstable_by_key(|(i, _)| *i);
        results.into_iter().map(|(_, result)| result).collect()
    }
}
