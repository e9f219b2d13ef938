//! A store around another one. It records the calls, and runs a function of the test before each.
use sessile::{Change, Durability, Guarantees, Lookup, Record, Result, Rotation, Saved, Store, Token};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;
use tempfile::TempDir;

/// A directory for a store, in memory where possible, for tests that do not depend on the disk.
pub(crate) fn quick_directory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// A method of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Now,
    Load,
    Create,
    Update,
    Rotate,
    Delete,
}

type Hook = dyn Fn(Call) -> Result<()> + Send + Sync;

/// A store that passes its calls to `inner`, unless the hook returns an error.
pub(crate) struct Probe<S> {
    pub(crate) inner: S,
    calls: Mutex<Vec<Call>>,
    hook: Mutex<Option<Arc<Hook>>>,
}

impl<S> Probe<S> {
    pub(crate) fn new(inner: S) -> Arc<Self> {
        Arc::new(Self { inner, calls: Mutex::default(), hook: Mutex::default() })
    }

    /// Runs `hook` before every later call. If it returns an error, that is the result of the call (except for `now`).
    pub(crate) fn before(&self, hook: impl Fn(Call) -> Result<()> + Send + Sync + 'static) {
        *self.hook.lock().unwrap() = Some(Arc::new(hook));
    }

    pub(crate) fn leave_alone(&self) {
        *self.hook.lock().unwrap() = None;
    }

    /// The calls since the last call of this method; `now` is not recorded.
    pub(crate) fn calls(&self) -> Vec<Call> {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }

    fn enter(&self, call: Call) -> Result<()> {
        if call != Call::Now {
            self.calls.lock().unwrap().push(call);
        }
        // The hook does not run under the lock, because it may wait for the effect of another call.
        let hook = self.hook.lock().unwrap().clone();
        hook.map_or(Ok(()), |hook| hook(call))
    }
}

impl<S: Store> Store for Probe<S> {
    fn now(&self) -> SystemTime {
        let _ = self.enter(Call::Now);
        self.inner.now()
    }
    fn is_well_formed(&self, token: &Token) -> bool {
        self.inner.is_well_formed(token)
    }
    fn load(&self, token: &Token) -> Result<Lookup> {
        self.enter(Call::Load)?;
        self.inner.load(token)
    }
    fn create(&self, record: &Record, how: Durability) -> Result<Saved> {
        self.enter(Call::Create)?;
        self.inner.create(record, how)
    }
    fn update(&self, token: &Token, change: Change<'_>, how: Durability) -> Result<Option<Saved>> {
        self.enter(Call::Update)?;
        self.inner.update(token, change, how)
    }
    fn rotate(&self, token: &Token, change: Change<'_>, how: &Rotation<'_>) -> Result<Option<Saved>> {
        self.enter(Call::Rotate)?;
        self.inner.rotate(token, change, how)
    }
    fn delete(&self, token: &Token) -> Result<Option<sessile::store::Deleted>> {
        self.enter(Call::Delete)?;
        self.inner.delete(token)
    }
    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }
    fn durability(&self) -> Durability {
        self.inner.durability()
    }
    fn record_bytes_max(&self) -> Option<usize> {
        self.inner.record_bytes_max()
    }
}
