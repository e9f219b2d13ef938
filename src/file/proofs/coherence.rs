//! A load that begins after a save or an end has returned sees that or something newer, in every process.
use super::*;
use crate::sync::step;
use std::sync::atomic::AtomicU64;

/// What has been acknowledged of a session so far.
#[derive(Default)]
struct Acknowledged {
    version: AtomicU64,
    is_ended: AtomicBool,
}

impl Acknowledged {
    fn saved(&self, version: Option<u64>) {
        self.version.fetch_max(version.unwrap_or(0), SeqCst);
    }
    fn ended(&self) {
        self.is_ended.store(true, SeqCst);
    }
    /// A load, which is not to return what was older when it began.
    #[track_caller]
    fn check_load(&self, store: &FileStore, token: &Token) {
        let (floor, is_ended) = (self.version.load(SeqCst), self.is_ended.load(SeqCst));
        step();
        let seen = load(store, token);
        assert!(!(is_ended && seen.is_some()), "stale: an ended session is served");
        assert!(is_ended || seen.is_none_or(|seen| seen >= floor), "stale: {seen:?} after version {floor}");
    }
}

/// Who does something to the session.
type Act = fn(&FileStore, &Token, &Acknowledged);

const SAVE: Act = |store, token, acknowledged| acknowledged.saved(save(store, token));
const END: Act = |store, token, acknowledged| {
    store.delete(token).unwrap();
    acknowledged.ended();
};
const LOAD: Act = |store, token, acknowledged| acknowledged.check_load(store, token);

/// Acts at once, each in a store of its own or in one that it shares, by number; afterwards, what each store says.
fn model(preemptions_max: usize, waits: &'static [Duration], acts: &'static [(usize, Act)]) {
    let place = place();
    check(preemptions_max, move || {
        let place = place.get_or_init(Place::new);
        let stores: Vec<_> = waits.iter().map(|wait| place.open(*wait)).collect();
        let token = create(&stores[0]);
        // All have a copy.
        for store in &stores {
            assert_eq!(load(store, &token), Some(1));
        }
        let acknowledged = Arc::new(Acknowledged::default());
        let threads: Vec<_> = acts
            .iter()
            .map(|(store, act)| {
                let (store, token) = (Arc::clone(&stores[*store]), token.clone());
                let acknowledged = Arc::clone(&acknowledged);
                shuttle::thread::spawn(move || act(&store, &token, &acknowledged))
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        for store in &stores {
            acknowledged.check_load(store, &token);
        }
        stores[0].delete(&token).unwrap();
    });
}

#[test]
fn no_load_is_older_than_a_save_that_returned() {
    model(2, &[LONG], &[(0, SAVE), (0, LOAD)]);
    model(2, &[LONG, LONG], &[(0, SAVE), (1, LOAD)]);
}
