//! The command on a store in a database file: every verb that is not about files, moves to files and back, `doctor` and
//! `schema`.
use crate::support::command::{finish_with, run, sessile};
use crate::support::texts::{directory_in_memory, record};
use rusqlite::Connection;
use sessile::database::SqliteStore;
use sessile::{Admin, Durability, FileStore, Lookup, Record, Store};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::SystemTime;

#[test]
fn the_verbs_work_on_a_store_in_a_database() {
    let dir = directory_in_memory();
    let path = dir.path().join("sessions.db");
    let url = format!("sqlite:{}", path.display());
    for verb in ["count", "stat", "list", "sweep", "verify", "export", "doctor"] {
        let ran = run!(verb, url);
        assert!(ran.code == 1 && !path.exists(), "{verb} makes no file: {ran:?}");
    }
    let store = SqliteStore::open(&path).unwrap();
    let create = |record: &Record| store.create(record, Durability::Relaxed).unwrap();
    let ada = create(&record("x").with_user("ada").unwrap());
    let guest = create(&record("y"));
    let now = SystemTime::now();
    create(&Record::new(now, now));
    assert_eq!(run!("count", url).ends_well().out, "3\n");
    let stat = run!("stat", "--json", url).ends_well().json();
    assert_eq!((stat["live"].as_u64(), stat["expired"].as_u64()), (Some(2), Some(1)));
    assert_eq!(run!("sweep", "--json", url).ends_well().json()["removed"].as_u64(), Some(1));
    let listed = run!("list", "--json", "--user", "ada", url).ends_well().json();
    assert_eq!(listed["sessions"][0]["id"].as_str(), Some(&*ada.live.id.to_string()));
    run!("verify", url).ends_well();
    run!("delete", "--user", "ada", url).ends_well();
    let is_live = |token| matches!(store.load(token).unwrap(), Lookup::Live(_));
    assert_eq!([is_live(&ada.token), is_live(&guest.token)], [false, true]);
    let raw = Connection::open(&path).unwrap();
    raw.execute("UPDATE sessile_sessions SET tag = tag + 1 WHERE owner IS NULL", []).unwrap();
    let found = run!("verify", "--json", url).ends(3).json();
    assert_eq!(found["found"][0]["id"].as_str(), Some(&*guest.live.id.to_string()), "{found}");
}

#[test]
fn an_export_of_files_is_imported_into_a_database_and_back() {
    let dir = directory_in_memory();
    let (from, back) = (dir.path().join("from"), dir.path().join("back"));
    let url = format!("sqlite:{}", dir.path().join("sessions.db").display());
    let files = FileStore::open(&from).unwrap();
    let tokens: Vec<_> =
        (0..20).map(|n| files.create(&record(&n.to_string()), Durability::Relaxed).unwrap().token).collect();
    let exported = run!("export", from).ends(0).out;
    finish_with(&mut sessile(["import", &*url]), exported).ends(0);
    let exported = run!("export", url).ends(0).out;
    finish_with(&mut sessile(["import", back.to_str().unwrap()]), exported).ends(0);
    let back = FileStore::open(&back).unwrap();
    for token in &tokens {
        let [Lookup::Live(one), Lookup::Live(other)] =
            [&files, &back].map(|store| store.load(token).unwrap())
        else {
            panic!("it is live in both")
        };
        assert_eq!(one.record, other.record);
    }
    assert_eq!(back.count().unwrap(), 20);
}

#[test]
fn doctor_finds_what_is_wrong_with_a_database_file() {
    let dir = directory_in_memory();
    let path = dir.path().join("sessions.db");
    let url = format!("sqlite:{}", path.display());
    let store = SqliteStore::open(&path).unwrap();
    for n in 0..200 {
        store.create(&record(&n.to_string()), Durability::Relaxed).unwrap();
    }
    // In memory, the file system is a finding.
    let found = run!("doctor", "--json", url).ends(3).json();
    let checks = ["opening", "file system", "space", "integrity", "free pages", "log"];
    assert_eq!(found["checks"], serde_json::json!(checks));
    let findings = |json: &serde_json::Value| {
        let all = json["findings"].as_array().unwrap().iter();
        all.map(|finding| finding["check"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(findings(&found), ["file system"]);
    drop(store);
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    let found = run!("doctor", "--json", url).ends(3).json();
    assert_eq!(findings(&found), ["opening"]);
    assert!(found["findings"][0]["finding"].as_str().unwrap().contains("chmod go="), "{found}");
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes[4096 * 8..].fill(0x55);
    fs::write(&path, bytes).unwrap();
    let found = run!("doctor", "--json", url).ends(3).json();
    assert_eq!(findings(&found), ["file system", "integrity"]);
}

#[test]
fn schema_prints_the_statements_that_make_the_tables() {
    let printed = run!("schema", "sqlite", "--prefix", "shop_").ends_well().out;
    let raw = Connection::open_in_memory().unwrap();
    raw.execute_batch(&printed).unwrap();
    let tables: i64 = raw
        .query_row(
            "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name LIKE 'shop\\_%' ESCAPE '\\'",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(tables, 3);
    let json = run!("schema", "--json", "sqlite").ends_well().json();
    assert!(json["schema"].as_str().unwrap().contains("CREATE TABLE sessile_sessions"));
    run!("schema", "sqlite", "--prefix", "x; --").ends(1);
    run!("schema", "oracle").ends(2);
}
