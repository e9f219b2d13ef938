//! Stores on network file systems and on file systems of processes, as far as a local file system can imitate them.
use super::*;
use crate::admin::Admin;
use crate::file_system::pretending;

const FUSE: u32 = 0x6573_5546;
const ELSEWHERE: [(u32, &str); 4] =
    [(0x6969, "NFS"), (0xfe53_4d42, "SMB"), (0x0102_1997, "9p"), (FUSE, "FUSE")];

fn open_on(magic: u32, dir: &Path, options: FileStoreOptions) -> FileStore {
    pretending(magic, || options.watch(false).open(dir.join("store")).unwrap())
}

#[test]
fn where_memory_is_not_shared_a_store_opens_and_keeps_no_copies() {
    for (magic, name) in ELSEWHERE {
        let dir = directory();
        let stores = [0, 1].map(|_| open_on(magic, dir.path(), FileStoreOptions::new()));
        let saved = stores[0].create(&record("0"), Durability::Relaxed).unwrap();
        for (n, writer) in stores.iter().cycle().take(6).enumerate() {
            let mut change = |record: &mut Record| {
                record.insert("text", &Value::new(&n.to_string())?).unwrap();
                Ok(Verdict::Write)
            };
            writer.update(&saved.token, &mut change, Durability::Relaxed).unwrap().unwrap();
            for reader in &stores {
                let Lookup::Live(live) = reader.load(&saved.token).unwrap() else {
                    panic!("{name}: it is gone")
                };
                assert_eq!(text_of(&live.record), n.to_string(), "{name}");
            }
        }
        assert!(stores[1].delete(&saved.token).unwrap().is_some());
        for store in &stores {
            assert!(
                matches!(store.load(&saved.token).unwrap(), Lookup::Absent(Absent::NotFound(_))),
                "{name}"
            );
            assert_eq!(store.uncached_file_system(), Some(name));
            let stats = store.stats();
            assert_eq!((stats.hits, stats.files.copies, stats.files.misses), (0, 0, 7), "{name}");
        }
        drop(stores);
        // The store names the file system only if that is the reason for having no cache. Here the option is the
        // reason.
        let bare = open_on(magic, dir.path(), FileStoreOptions::new().cache_bytes(0));
        assert_eq!(bare.uncached_file_system(), None, "{name}");
    }
    let dir = directory();
    let store = FileStore::open(dir.path()).unwrap();
    store.create(&record("x"), Durability::Relaxed).unwrap();
    assert_eq!((store.uncached_file_system(), store.stats().files.copies), (None, 1));
}

/// A file server may accept the flags of a rename, and report success although it has lost a file.
#[test]
fn on_fuse_no_rename_relies_on_flags() {
    for (magic, relies) in [(FUSE, false), (0xef53, true)] {
        let dir = directory();
        let store = open_on(magic, dir.path(), FileStoreOptions::new());
        let session = SessionId::random().unwrap();
        store.create_file(SessionRef::Id(&session), record("x"), true).unwrap();
        let (grown, calls) = during(|_, _| None, || put(&store, &session, &big("new"), false));
        grown.unwrap().unwrap();
        assert_eq!(calls.contains(&"exchange"), relies, "{calls:?}");
        assert_eq!(calls.contains(&"rename"), !relies, "{calls:?}");
        let id = session.public_id();
        let path = dir.path().join("store").join(SessionPath::of(&id).as_str());
        let mut damaged = fs::read(&path).unwrap();
        for byte in &mut damaged {
            *byte = !*byte;
        }
        fs::write(&path, damaged).unwrap();
        let (aside, calls) = during(|_, _| None, || store.quarantine(&id));
        assert!(aside.unwrap().unwrap().exists() && !path.exists());
        assert_eq!(calls.contains(&"move file"), relies, "{calls:?}");
    }
}

#[test]
fn a_store_is_made_where_renames_take_no_flags() {
    for refusal in [Errno::INVAL, Errno::NOSYS, Errno::OPNOTSUPP, Errno::PERM] {
        let dir = directory();
        let root = dir.path().join("store");
        let refuse = move |_, call: &'static str| (call == "move file").then(|| refusal.raw_os_error());
        let (opened, calls) = during(refuse, || FileStore::open(&root));
        opened.unwrap_or_else(|error| panic!("{refusal}: {error:?}"));
        assert!(calls.windows(2).any(|calls| calls == ["stat in directory", "rename"]), "{calls:?}");
        assert!(root.join("sessile.json").exists());
        let names = fs::read_dir(&root).unwrap().map(|name| name.unwrap().path());
        assert_eq!(names.filter(|path| is_temporary(path)).count(), 0);
    }
}
