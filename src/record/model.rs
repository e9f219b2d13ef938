//! Makes random changes to a record and to a map, and compares the two.
use super::{Edit, Record};
use crate::value::{Value, ValueRef};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::UNIX_EPOCH;

/// A name of an entry. There are so few that changes often have the same one, and they are of all relevant lengths.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        proptest::sample::select(vec!["", "a", "aa", "ab", "b", "ß", "🦀"]).prop_map(str::to_owned),
        "[a-c]{0,3}",
    ]
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof!["[x-z]{0,3}", "[x-z]{0,40}"].prop_map(|text| Value::new(&text).unwrap())
}

#[derive(Clone, Debug)]
enum Step {
    /// Several changes at once, as a save makes them.
    Edit(BTreeMap<String, Option<Value>>),
    Extend(Vec<(String, Value)>),
    Insert(String, Value),
    Remove(String),
    User(String),
    Note(String),
    Clear,
}

fn step() -> impl Strategy<Value = Step> {
    let edits = proptest::collection::btree_map(name(), proptest::option::of(value()), 0..6);
    prop_oneof![
        4 => edits.prop_map(Step::Edit),
        2 => proptest::collection::vec((name(), value()), 0..6).prop_map(Step::Extend),
        2 => (name(), value()).prop_map(|(name, value)| Step::Insert(name, value)),
        2 => name().prop_map(Step::Remove),
        1 => name().prop_map(Step::User),
        1 => name().prop_map(Step::Note),
        1 => Just(Step::Clear),
    ]
}

/// The expected contents of the record.
#[derive(Default)]
struct Model {
    entries: BTreeMap<String, Value>,
    user: String,
    note: String,
}

impl Model {
    fn take(&mut self, step: Step, record: &mut Record) {
        match step {
            Step::Edit(edits) => {
                let edits_by_ref: Vec<Edit<'_>> = edits
                    .iter()
                    .map(|(name, value)| (name.as_str(), value.as_ref().map(ValueRef::from)))
                    .collect();
                record.edit(&edits_by_ref).unwrap();
                for (name, value) in edits {
                    match value {
                        Some(value) => drop(self.entries.insert(name, value)),
                        None => drop(self.entries.remove(&name)),
                    }
                }
            }
            Step::Extend(entries) => {
                record.extend(entries.iter().map(|(name, value)| (name.as_str(), value))).unwrap();
                self.entries.extend(entries);
            }
            Step::Insert(name, value) => {
                record.insert(&name, &value).unwrap();
                self.entries.insert(name, value);
            }
            Step::Remove(name) => {
                assert_eq!(record.remove(&name), self.entries.remove(&name).is_some());
            }
            Step::User(user) => {
                record.set_user(&user).unwrap();
                self.user = user;
            }
            Step::Note(note) => {
                record.set_device_note(&note).unwrap();
                self.note = note;
            }
            Step::Clear => {
                record.clear();
                self.entries.clear();
            }
        }
    }

    fn check(&self, record: &Record) {
        let there = record.entries().iter().map(|(name, value)| (name.to_owned(), value.to_value()));
        assert_eq!(there.collect::<Vec<_>>(), self.entries.clone().into_iter().collect::<Vec<_>>());
        let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        assert_eq!(record.user().map(str::to_owned), text(&self.user));
        assert_eq!(record.device_note().map(str::to_owned), text(&self.note));
        assert_eq!(&Record::from_bytes(record.as_bytes()).unwrap(), record, "equal content, equal bytes");
        for (name, value) in &self.entries {
            assert_eq!(record.entries().get(name), Some(value.into()));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn a_record_holds_what_a_map_under_the_same_changes_holds(steps in proptest::collection::vec(step(), 0..20)) {
        let (mut record, mut model) = (Record::new(UNIX_EPOCH, UNIX_EPOCH), Model::default());
        for step in steps {
            model.take(step, &mut record);
            model.check(&record);
        }
        // A record that is built at once, with the same contents, has the same bytes.
        let mut other = Record::new(UNIX_EPOCH, UNIX_EPOCH);
        other.extend(model.entries.iter().map(|(name, value)| (name.as_str(), value))).unwrap();
        other.set_device_note(&model.note).unwrap();
        other.set_user(&model.user).unwrap();
        prop_assert_eq!(other.as_bytes(), record.as_bytes());
    }
}
