//! Fault injection for unit tests and the fuzzer: counts the calls of this thread, and fails those that a plan names.
use crate::sync::step;
use rustix::io::Errno;
use std::cell::RefCell;

/// The look at the log of cut-offs, which a store without a cache takes at each operation. Only the plans that ask for
/// it see it, so that others need not name it between all other calls.
const LOOK: &str = "stat cut-offs";

struct Plan {
    sees_look: bool,
    calls: Vec<&'static str>,
    fail: Box<dyn FnMut(usize, &'static str) -> Option<i32>>,
}

thread_local! { static PLAN: RefCell<Option<Plan>> = const { RefCell::new(None) }; }

/// A plan may return this in place of an errno: the call succeeds, but transfers at most half of its bytes.
pub(in crate::file) const SHORT: i32 = -1;
/// A plan may return this in place of an errno: the call succeeds, but transfers at most one page.
pub(in crate::file) const PAGE: i32 = -2;

/// The error that the plan has for a call. Calls that the plan itself makes are neither failed nor counted.
fn planned(call: &'static str) -> Option<i32> {
    /// Puts the plan back, also if its function panics; a panic stands for the death of the process.
    struct Taken(Option<Plan>);
    impl Drop for Taken {
        fn drop(&mut self) {
            PLAN.set(self.0.take());
        }
    }
    let mut taken = Taken(PLAN.take());
    let plan = taken.0.as_mut().filter(|plan| plan.sees_look || call != LOOK)?;
    plan.calls.push(call);
    (plan.fail)(plan.calls.len() - 1, call)
}

pub(in crate::file) fn failpoint(call: &'static str) -> Result<(), Errno> {
    failpoint_len(call, 0).map(drop)
}

/// The failpoint of a call that transfers `bytes`. Returns the number of bytes that it may transfer.
pub(super) fn failpoint_len(call: &'static str, bytes: usize) -> Result<usize, Errno> {
    step();
    match planned(call) {
        None => Ok(bytes),
        Some(SHORT) => Ok(bytes.div_ceil(2)),
        Some(PAGE) => Ok(bytes.min(4096)),
        Some(errno) => Err(Errno::from_raw_os_error(errno)),
    }
}

/// Runs `operation` on this thread. `fail(n, call)` returns the error of the n-th call if that call is to fail (or
/// [`SHORT`] or [`PAGE`]). Returns the result and the names of the calls.
pub(in crate::file) fn during<R>(
    fail: impl FnMut(usize, &'static str) -> Option<i32> + 'static,
    operation: impl FnOnce() -> R,
) -> (R, Vec<&'static str>) {
    run(Plan { sees_look: false, calls: Vec::new(), fail: Box::new(fail) }, operation)
}

/// The same, and the plan also sees the looks at the log of cut-offs.
#[cfg(all(test, not(shuttle)))]
pub(in crate::file) fn during_with_looks<R>(
    fail: impl FnMut(usize, &'static str) -> Option<i32> + 'static,
    operation: impl FnOnce() -> R,
) -> (R, Vec<&'static str>) {
    run(Plan { sees_look: true, calls: Vec::new(), fail: Box::new(fail) }, operation)
}

fn run<R>(plan: Plan, operation: impl FnOnce() -> R) -> (R, Vec<&'static str>) {
    PLAN.set(Some(plan));
    let result = operation();
    let plan = PLAN.take().expect("set above");
    (result, plan.calls)
}
