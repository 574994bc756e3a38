//! The budget of a request: memory and time, for the request and for all requests together.
//!
//! A request runs on one thread. [`enter`] gives the thread a budget until the returned scope is dropped, and whatever runs in
//! between finds it with [`current`]. Each loop whose length depends on input calls [`RequestBudget::check`], and each
//! allocation that does calls [`RequestBudget::charge`]. A thread without a budget has no limit of memory.
//!
//! Invariant: what a request has charged is free again when its scope is dropped.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::limits::MemoryLimits;
use crate::search::store::StoreError;

/// Interval at which a request looks whether its client is still there.
const CLIENT_CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// Time that a request goes on after its client has closed its side of the connection. Some clients close only their sending
/// side and still read the response.
const GONE_GRACE: Duration = Duration::from_secs(2);

/// The memory that all requests share.
#[derive(Debug)]
pub struct RequestMemory {
    held: AtomicUsize,
    bytes_max: usize,
}

impl RequestMemory {
    pub fn new(bytes_max: usize) -> Arc<RequestMemory> {
        Arc::new(RequestMemory { held: AtomicUsize::new(0), bytes_max })
    }

    /// Returns the memory that all requests of this process share, on whatever listener they come.
    pub fn of_process() -> Arc<RequestMemory> {
        static MEMORY: OnceLock<Arc<RequestMemory>> = OnceLock::new();
        Arc::clone(MEMORY.get_or_init(|| RequestMemory::new(MemoryLimits::detect().requests)))
    }

    /// Bytes that requests hold now.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: usize) -> Result<(), StoreError> {
        let wanted = self.held.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if wanted <= self.bytes_max {
            return Ok(());
        }
        self.give_back(bytes);
        Err(StoreError::MemoryExceeded { breaker: "parent", wanted, limit: self.bytes_max })
    }

    fn give_back(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Tells whether the client of a request has closed its side of the connection.
pub type ClientCheck = Box<dyn Fn() -> bool>;

/// The budget of one request. Used by the thread of the request only.
pub struct RequestBudget {
    memory: Arc<RequestMemory>,
    bytes_max: usize,
    held: Cell<usize>,
    deadline: Cell<Instant>,
    timeout_ms: Cell<u64>,
    is_client_gone: Option<ClientCheck>,
    client_check_at: Cell<Instant>,
    /// When to give up, once the client is gone.
    give_up_at: Cell<Option<Instant>>,
}

impl fmt::Debug for RequestBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestBudget").field("bytes_max", &self.bytes_max).field("held", &self.held).finish()
    }
}

impl RequestBudget {
    /// Creates a budget of at most `bytes_max` bytes of the shared memory.
    pub fn new(memory: &Arc<RequestMemory>, bytes_max: usize, timeout: Duration) -> RequestBudget {
        let now = Instant::now();
        RequestBudget {
            memory: Arc::clone(memory),
            bytes_max,
            held: Cell::new(0),
            deadline: Cell::new(now + timeout),
            timeout_ms: Cell::new(timeout.as_millis().try_into().unwrap_or(u64::MAX)),
            is_client_gone: None,
            client_check_at: Cell::new(now),
            give_up_at: Cell::new(None),
        }
    }

    /// Creates a budget without a limit of memory, for a thread that serves nobody else.
    pub fn unlimited(timeout: Duration) -> RequestBudget {
        RequestBudget::new(&RequestMemory::new(usize::MAX), usize::MAX, timeout)
    }

    /// Gives the request up soon after `is_gone` returns true.
    #[must_use]
    pub fn with_client(mut self, is_gone: ClientCheck) -> RequestBudget {
        self.is_client_gone = Some(is_gone);
        self
    }

    /// Ends the budget's time no later than after `timeout`.
    pub fn limit_time(&self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        if deadline < self.deadline.get() {
            self.deadline.set(deadline);
            self.timeout_ms.set(timeout.as_millis().try_into().unwrap_or(u64::MAX));
        }
    }

    /// Fails if the time is over or the client is gone. Cheap enough for each turn of a loop that does some work.
    pub fn check(&self) -> Result<(), StoreError> {
        let now = Instant::now();
        if now >= self.deadline.get() {
            return Err(StoreError::TimedOut(self.timeout_ms.get()));
        }
        if self.give_up_at.get().is_some_and(|at| now >= at) {
            return Err(StoreError::ClientGone);
        }
        if let Some(is_gone) = &self.is_client_gone
            && now >= self.client_check_at.get()
        {
            self.client_check_at.set(now + CLIENT_CHECK_INTERVAL);
            if self.give_up_at.get().is_none() && is_gone() {
                self.give_up_at.set(Some(now + GONE_GRACE));
            }
        }
        Ok(())
    }

    /// Takes memory that the request holds until its end. Fails if that exceeds the request's limit or that of all requests.
    pub fn charge(&self, bytes: usize) -> Result<(), StoreError> {
        let wanted = self.held.get().saturating_add(bytes);
        if wanted > self.bytes_max {
            return Err(StoreError::MemoryExceeded { breaker: "request", wanted, limit: self.bytes_max });
        }
        self.memory.take(bytes)?;
        self.held.set(wanted);
        Ok(())
    }

    /// Gives back memory that was charged and is free again before the end of the request.
    pub fn refund(&self, bytes: usize) {
        let bytes = bytes.min(self.held.get());
        self.held.set(self.held.get() - bytes);
        self.memory.give_back(bytes);
    }

    /// Bytes that the request holds now.
    pub fn held(&self) -> usize {
        self.held.get()
    }
}

impl Drop for RequestBudget {
    fn drop(&mut self) {
        self.memory.give_back(self.held.get());
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Rc<RequestBudget>>> = const { RefCell::new(None) };
}

/// The time in which a thread has a budget.
#[derive(Debug)]
#[must_use = "the budget ends when this is dropped"]
pub struct BudgetScope {
    outer: Option<Rc<RequestBudget>>,
}

/// Gives the thread a budget until the scope is dropped.
pub fn enter(budget: RequestBudget) -> BudgetScope {
    BudgetScope { outer: CURRENT.replace(Some(Rc::new(budget))) }
}

impl Drop for BudgetScope {
    fn drop(&mut self) {
        CURRENT.set(self.outer.take());
    }
}

/// Returns the budget of this thread, if it has one.
pub fn current() -> Option<Rc<RequestBudget>> {
    CURRENT.with_borrow(Clone::clone)
}

/// Checks the budget of this thread.
pub fn check() -> Result<(), StoreError> {
    current().map_or(Ok(()), |budget| budget.check())
}

/// Charges the budget of this thread.
pub fn charge(bytes: usize) -> Result<(), StoreError> {
    current().map_or(Ok(()), |budget| budget.charge(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_request_and_all_requests_together_have_a_limit() {
        let memory = RequestMemory::new(100);
        let first = RequestBudget::new(&memory, 60, MINUTE);
        first.charge(60).unwrap();
        let over = first.charge(1).unwrap_err();
        assert!(matches!(over, StoreError::MemoryExceeded { breaker: "request", wanted: 61, limit: 60 }));
        let second = RequestBudget::new(&memory, 60, MINUTE);
        second.charge(40).unwrap();
        let over = second.charge(1).unwrap_err();
        assert!(matches!(over, StoreError::MemoryExceeded { breaker: "parent", wanted: 101, limit: 100 }));
        first.refund(20);
        second.charge(20).unwrap();
        drop((first, second));
        assert_eq!(memory.held(), 0);
    }

    #[test]
    fn a_huge_charge_does_not_overflow() {
        let memory = RequestMemory::new(100);
        let budget = RequestBudget::new(&memory, usize::MAX, MINUTE);
        budget.charge(1).unwrap();
        assert!(budget.charge(usize::MAX).is_err());
        assert_eq!(memory.held(), 1);
        assert!(RequestBudget::unlimited(MINUTE).charge(usize::MAX / 2).is_ok());
    }

    #[test]
    fn a_thread_has_the_innermost_budget() {
        let memory = RequestMemory::new(100);
        assert!(current().is_none() && charge(1_000).is_ok() && check().is_ok());
        {
            let _outer = enter(RequestBudget::new(&memory, 100, MINUTE));
            charge(70).unwrap();
            {
                let _inner = enter(RequestBudget::new(&memory, 20, MINUTE));
                assert!(charge(21).is_err());
                charge(20).unwrap();
            }
            assert_eq!(memory.held(), 70);
            charge(30).unwrap();
        }
        assert_eq!(memory.held(), 0);
        assert!(current().is_none());
    }

    #[test]
    fn a_request_ends_at_its_deadline() {
        let memory = RequestMemory::new(100);
        let budget = RequestBudget::new(&memory, 100, MINUTE);
        budget.check().unwrap();
        budget.limit_time(2 * MINUTE);
        budget.check().unwrap();
        budget.limit_time(Duration::ZERO);
        assert!(matches!(budget.check(), Err(StoreError::TimedOut(0))));
    }

    #[test]
    fn a_request_whose_client_is_gone_is_given_up_soon() {
        let memory = RequestMemory::new(100);
        let budget = RequestBudget::new(&memory, 100, MINUTE).with_client(Box::new(|| true));
        budget.check().unwrap();
        let start = Instant::now();
        while budget.check().is_ok() {
            assert!(start.elapsed() < MINUTE);
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(matches!(budget.check(), Err(StoreError::ClientGone)));
        let present = RequestBudget::new(&memory, 100, MINUTE).with_client(Box::new(|| false));
        std::thread::sleep(2 * CLIENT_CHECK_INTERVAL);
        present.check().unwrap();
    }
}
