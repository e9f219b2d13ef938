//! Faults for unit tests: counts this thread's calls, and fails the one that is due.
use std::cell::RefCell;
use std::io;

struct Plan {
    calls: Vec<&'static str>,
    fail: Box<dyn FnMut(usize, &'static str) -> Option<i32>>,
}

thread_local! { static PLAN: RefCell<Option<Plan>> = const { RefCell::new(None) }; }

pub(super) fn gate(call: &'static str) -> io::Result<()> {
    PLAN.with_borrow_mut(|plan| {
        let Some(plan) = plan else { return Ok(()) };
        plan.calls.push(call);
        match (plan.fail)(plan.calls.len() - 1, call) {
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
            None => Ok(()),
        }
    })
}

/// Runs `act` on this thread while `fail(n, call)` names the error of the n-th call, if it is to fail. The calls
/// that were made come back with the result.
pub(in crate::file) fn during<R>(
    fail: impl FnMut(usize, &'static str) -> Option<i32> + 'static,
    act: impl FnOnce() -> R,
) -> (R, Vec<&'static str>) {
    PLAN.set(Some(Plan { calls: Vec::new(), fail: Box::new(fail) }));
    let result = act();
    let plan = PLAN.take().expect("set above");
    (result, plan.calls)
}
