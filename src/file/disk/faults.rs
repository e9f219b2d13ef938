//! Fault injection for unit tests and the fuzzer. A plan is installed for one thread; it records the thread's system
//! calls by the names of their failpoints, and decides which of them fail.
use crate::sync::step;
use rustix::io::Errno;
use std::cell::RefCell;

/// The failpoint at which a store without a cache looks for changes of the log of cut-offs, in each operation. Only
/// plans with `sees_look` see this call, so that most tests need not list it between all other calls.
const LOOK: &str = "stat cut-offs";

struct Plan {
    sees_look: bool,
    calls: Vec<&'static str>,
    fail: Box<dyn FnMut(usize, &'static str) -> Option<i32>>,
}

thread_local! { static PLAN: RefCell<Option<Plan>> = const { RefCell::new(None) }; }

/// A plan returns this in place of an errno to let the call succeed, but transfer only half of its bytes.
pub(in crate::file) const SHORT: i32 = -1;
/// A plan returns this in place of an errno to let the call succeed, but transfer one page (4 KiB) at most.
pub(in crate::file) const PAGE: i32 = -2;

/// The errno with which the plan lets this call fail; `None` if the call is to succeed. While the plan's function runs,
/// no plan is installed, so system calls of that function are neither failed nor counted.
fn planned(call: &'static str) -> Option<i32> {
    /// Installs the plan again when dropped, also if the plan's function panics. Tests use such a panic as the death of
    /// the process.
    struct RestoredPlan(Option<Plan>);
    impl Drop for RestoredPlan {
        fn drop(&mut self) {
            PLAN.set(self.0.take());
        }
    }
    let mut restored = RestoredPlan(PLAN.take());
    let plan = restored.0.as_mut().filter(|plan| plan.sees_look || call != LOOK)?;
    plan.calls.push(call);
    (plan.fail)(plan.calls.len() - 1, call)
}

pub(in crate::file) fn failpoint(call: &'static str) -> Result<(), Errno> {
    failpoint_len(call, 0).map(drop)
}

/// The failpoint of a system call that transfers `bytes` bytes. Returns the number of bytes that the call may transfer.
pub(super) fn failpoint_len(call: &'static str, bytes: usize) -> Result<usize, Errno> {
    step();
    match planned(call) {
        None => Ok(bytes),
        Some(SHORT) => Ok(bytes.div_ceil(2)),
        Some(PAGE) => Ok(bytes.min(4096)),
        Some(errno) => Err(Errno::from_raw_os_error(errno)),
    }
}

/// Runs `operation` on this thread under a plan. `fail(n, call)` is called before the n-th system call, counted from 0,
/// with the name of its failpoint; it returns the errno with which the call is to fail, or [`SHORT`] or [`PAGE`], or
/// `None`. Returns the result of `operation` and the names of all calls.
pub(in crate::file) fn during<R>(
    fail: impl FnMut(usize, &'static str) -> Option<i32> + 'static,
    operation: impl FnOnce() -> R,
) -> (R, Vec<&'static str>) {
    run(Plan { sees_look: false, calls: Vec::new(), fail: Box::new(fail) }, operation)
}

/// The same as [`during`], but the plan also sees the calls that look for changes of the log of cut-offs.
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
