//! The changes of a request. They are kept as changes, so that a save can merge them into the newest stored record.
//!
//! This module uses no store and no clock. An entry is changed as a whole (nested values are not merged). For each
//! entry the delta says "set", "remove" or "apply these functions"; besides, it may say "drop all other entries".
use crate::contained::contained;
use crate::error::Result;
use crate::record::{Edit, Entries, Record};
use crate::value::{Value, ValueRef};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Deref, DerefMut};

/// One function of `Session::update`: takes the stored value (or none) and returns the new one.
pub(super) type UpdateFn = Box<dyn Fn(Option<ValueRef<'_>>) -> Result<Value> + Send>;

/// The [`Delta`] of a session. It is allocated at the first change, because most requests change nothing.
#[derive(Default)]
pub(super) struct LazyDelta(Option<Box<Delta>>);

impl Deref for LazyDelta {
    type Target = Delta;
    fn deref(&self) -> &Delta {
        const EMPTY: &Delta = &Delta { dropped_but: None, entries: BTreeMap::new() };
        self.0.as_deref().unwrap_or(EMPTY)
    }
}

impl DerefMut for LazyDelta {
    fn deref_mut(&mut self) -> &mut Delta {
        self.0.get_or_insert_default()
    }
}

/// The unsaved changes of one request.
#[derive(Default)]
pub(super) struct Delta {
    /// If the request has dropped all entries: the names of those that `update_now` has stored since, which are kept.
    /// All others that exist at the merge are dropped.
    dropped_but: Option<BTreeSet<String>>,
    entries: BTreeMap<String, EntryDelta>,
}

enum EntryDelta {
    Set(Value),
    Remove,
    Update { preview: Value, functions: UpdateFns },
}

/// The value of an entry after a merge.
#[derive(Debug, PartialEq)]
pub(super) enum Merged<'a> {
    /// The stored value, or the one that the request has set.
    Same(ValueRef<'a>),
    /// The result of the functions that the request has given for the entry.
    New(Value),
}

impl Merged<'_> {
    pub(super) fn as_ref(&self) -> ValueRef<'_> {
        match self {
            Self::Same(value) => *value,
            Self::New(value) => value.into(),
        }
    }
}

/// The functions of one entry, in their order. They capture values of the program, so their destructors may panic. Such
/// a panic is contained, because a session may be dropped where nothing else contains the panic, and because the
/// functions are dropped after a successful save.
struct UpdateFns(Vec<UpdateFn>);

impl Drop for UpdateFns {
    fn drop(&mut self) {
        for function in self.0.drain(..) {
            let _ = contained(|| drop(function));
        }
    }
}

impl Delta {
    pub(super) fn is_empty(&self) -> bool {
        self.dropped_but.is_none() && self.entries.is_empty()
    }

    pub(super) fn insert(&mut self, name: &str, value: Value) {
        self.entries.insert(name.into(), EntryDelta::Set(value));
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.entries.insert(name.into(), EntryDelta::Remove);
    }

    /// Drops all changes so far, and all entries that exist at the merge.
    pub(super) fn clear(&mut self) {
        self.dropped_but = Some(BTreeSet::new());
        self.entries.clear();
    }

    /// Adds a function for an entry. `preview` is its result on the value that the handler has read.
    pub(super) fn update(&mut self, name: &str, preview: Value, function: UpdateFn) {
        match self.entries.get_mut(name) {
            // This request has set or removed the entry, so the function's result does not depend on the stored value.
            Some(change @ (EntryDelta::Set(_) | EntryDelta::Remove)) => *change = EntryDelta::Set(preview),
            Some(EntryDelta::Update { preview: last, functions }) => {
                *last = preview;
                functions.0.push(function);
            }
            None => {
                let functions = UpdateFns(vec![function]);
                self.entries.insert(name.into(), EntryDelta::Update { preview, functions });
            }
        }
    }

    /// Removes the changes of an entry, after `update_now` has stored them all.
    pub(super) fn committed(&mut self, name: &str) {
        self.entries.remove(name);
        if let Some(kept) = &mut self.dropped_but {
            kept.insert(name.into());
        }
    }

    /// The value of an entry as the handler sees it: with the changes of this request. `stored` is the value that was
    /// loaded.
    pub(super) fn view<'a>(&'a self, name: &str, stored: Option<ValueRef<'a>>) -> Option<ValueRef<'a>> {
        match self.entries.get(name) {
            Some(EntryDelta::Set(value) | EntryDelta::Update { preview: value, .. }) => Some(value.into()),
            Some(EntryDelta::Remove) => None,
            None => stored.filter(|_| !self.drops(name)),
        }
    }

    /// The names of all entries as the handler sees them: with the changes of this request. `stored` are the entries
    /// that were loaded.
    pub(super) fn names(&self, stored: Option<Entries<'_>>) -> BTreeSet<String> {
        let changed = self.entries.keys().filter(|name| self.view(name, None).is_some()).cloned();
        let stored = stored.into_iter().flat_map(Entries::iter);
        let stored = stored.filter(|(name, value)| self.view(name, Some(*value)).is_some());
        changed.chain(stored.map(|(name, _)| name.to_owned())).collect()
    }

    /// Whether this request has changed the entry.
    pub(super) fn touches(&self, name: &str) -> bool {
        self.entries.contains_key(name) || self.drops(name)
    }

    /// The value of an entry after the changes of this request are merged into `stored`.
    pub(super) fn merged<'a>(
        &'a self,
        name: &str,
        stored: Option<ValueRef<'a>>,
    ) -> Result<Option<Merged<'a>>> {
        let stored = stored.filter(|_| !self.drops(name));
        Ok(match self.entries.get(name) {
            None => stored.map(Merged::Same),
            Some(EntryDelta::Set(value)) => Some(Merged::Same(value.into())),
            Some(EntryDelta::Remove) => None,
            Some(EntryDelta::Update { functions, .. }) => {
                let mut value = stored.map(Merged::Same);
                for function in &functions.0 {
                    value = Some(Merged::New(function(value.as_ref().map(Merged::as_ref))?));
                }
                value
            }
        })
    }

    /// Merges the changes of this request into the stored entries. Returns whether that changed any entry.
    pub(super) fn apply(&self, record: &mut Record) -> Result<bool> {
        let before = record.clone();
        let stored = before.entries();
        let mut merged = Vec::with_capacity(self.entries.len());
        for name in self.entries.keys() {
            let value = self.merged(name, stored.get(name))?;
            merged.push((name.as_str(), value));
        }
        let mut edits: Vec<Edit<'_>> = merged
            .iter()
            .map(|(name, value)| (*name, value.as_ref().map(Merged::as_ref)))
            .filter(|(name, value)| *value != stored.get(name))
            .collect();
        if self.dropped_but.is_some() {
            let dropped = |name: &&str| !self.entries.contains_key(*name) && self.drops(name);
            edits.extend(stored.names().filter(dropped).map(|name| (name, None)));
            edits.sort_unstable_by_key(|(name, _)| *name);
        }
        if edits.is_empty() {
            return Ok(false);
        }
        record.edit(&edits)?;
        Ok(true)
    }

    fn drops(&self, name: &str) -> bool {
        self.dropped_but.as_ref().is_some_and(|kept| !kept.contains(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    fn value(n: u32) -> Value {
        Value::new(&n).unwrap()
    }
    fn stored(entries: &[(&str, u32)]) -> Record {
        let mut record = Record::new(UNIX_EPOCH, UNIX_EPOCH);
        for (name, n) in entries {
            record.insert(name, &value(*n)).unwrap();
        }
        record
    }
    fn plus_one() -> UpdateFn {
        Box::new(|old| Value::new(&(old.map(ValueRef::get::<u32>).transpose()?.unwrap_or_default() + 1)))
    }

    #[track_caller]
    fn check(delta: &Delta, before: &[(&str, u32)], after: &[(&str, u32)]) {
        let mut record = stored(before);
        let changed = delta.apply(&mut record).unwrap();
        assert_eq!(record, stored(after));
        assert_eq!(changed, before != after);
    }

    #[test]
    fn entries_merge_one_by_one_into_those_stored() {
        let mut delta = Delta::default();
        check(&delta, &[("a", 1)], &[("a", 1)]);
        delta.insert("a", value(5));
        delta.remove("b");
        check(&delta, &[("a", 1), ("b", 2), ("c", 3)], &[("a", 5), ("c", 3)]);
        check(&delta, &[], &[("a", 5)]);
    }

    #[test]
    fn update_counts_from_the_value_stored_at_the_merge() {
        let mut delta = Delta::default();
        delta.update("n", value(2), plus_one());
        delta.update("n", value(3), plus_one());
        check(&delta, &[("n", 40)], &[("n", 42)]);
        check(&delta, &[], &[("n", 2)]);
    }

    #[test]
    fn update_on_top_of_an_insert_or_a_remove_is_certain() {
        let mut delta = Delta::default();
        delta.insert("n", value(10));
        delta.update("n", value(11), plus_one());
        delta.remove("m");
        delta.update("m", value(1), plus_one());
        check(&delta, &[("n", 40), ("m", 7)], &[("n", 11), ("m", 1)]);
    }

    #[test]
    fn clear_drops_all_but_entries_committed_after_it() {
        let mut delta = Delta::default();
        delta.insert("early", value(1));
        delta.clear();
        delta.insert("late", value(2));
        delta.committed("counter");
        check(&delta, &[("x", 1), ("counter", 9)], &[("counter", 9), ("late", 2)]);
        assert_eq!(delta.view("x", Some((&value(1)).into())), None);
        assert_eq!(delta.view("counter", Some((&value(9)).into())), Some((&value(9)).into()));
    }

    #[test]
    fn the_handler_sees_its_own_changes() {
        let mut delta = Delta::default();
        delta.insert("new", value(1));
        delta.remove("old");
        let names = delta.names(Some(stored(&[("old", 1), ("kept", 2)]).entries()));
        assert_eq!(names.into_iter().collect::<Vec<_>>(), ["kept", "new"]);
    }
}
