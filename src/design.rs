//! How the file engine works and why: byte map, rules for crashes, rules for locks, and a list of whys. Documentation
//! only. Whoever changes `src/file/` changes this page in the same commit.
//!
//! # On disk
//!
//! ```text
//! root/                 0700, owned by the user the program runs as
//!   sessile.json        format and parameters; linked last when a store is made, never replaced
//!   ab/                 256 shard directories, 0700, all made when the store is
//!     cdef0123…         one session, 0600: 2 slots of S bytes, S a power of two from 2 KiB; nothing else
//!     .new-…            a file on its way to its name
//! ```
//!
//! The name of a session's file is its [`FileId`](crate::FileId), the digest of the secret id: a listing or a backup
//! gives nobody a session. The bytes of a slot are drawn in [`record`](crate::record); which slot is the newest is
//! decided in `file/slots.rs`:
//!
//! * The **newest** version is the valid slot with the higher sequence. A save writes the *other* slot, in place.
//! * An **all-zero** slot was never written. A slot that says `GONE` ends the session, whatever the other slot says. One
//!   that says `VOID` is left of a failed write: not zero, or a reader might take it for one that was never written.
//! * A slot's **state byte** lies outside its checksum and is raised in place after a sync: data synced (1), name synced
//!   (2), retiring (4), a sync failed (8). New slots of a file inherit what is true of the inode, "name synced" and "a
//!   sync failed", and nothing else.
//!
//! # What each call does
//!
//! System calls of one operation on a small session, as `strace` shows them:
//!
//! | operation | calls | which |
//! |---|--:|---|
//! | load | 3 | `openat2`, `pread`, `close` |
//! | load of an unknown id | 3 | `openat2` (fails), `openat` of the shard, `close` |
//! | update, relaxed | 7 | `getpid`, `openat2`, `flock`, `pread`, `pwrite`, `flock`, `close` |
//! | update, power-safe | 9 | the same, and `fdatasync`, `pwrite` of the state byte |
//! | create, relaxed | 9 | `getrandom`, `getpid`, `openat2`, `flock`, `fstat`, `fstatat`, `pwrite`, `flock`, `close` |
//! | create, power-safe | 14 | the same, and shard `openat`, `fdatasync`, shard `fsync`, `pwrite` of the state, `close` |
//! | delete | 11 | shard `openat`, `getpid`, `openat2`, `flock`, `pread`, `pwrite`, `unlinkat`, `flock`, `close`, `fsync`, `close` |
//! | grow, relaxed | 20 | see below |
//! | grow, power-safe | 22 | the same, and shard `fsync`, `pwrite` of the state |
//! | rotate | 26 | a power-safe create inside a delete |
//!
//! A save that held its lock for a millisecond or more adds `fstat` and `fstatat` (see the rules for locks). A visitor who
//! stores nothing causes no call.
//!
//! Beside the floor of the same system calls, 512 bytes, 50,000 sessions, page cache warm (`cargo bench`; ratios of
//! medians, several runs on a shared two-core machine with ext4): load 1.3 to 1.8 times `openat`, `pread`, `close`;
//! relaxed update 1.8 to 2.1 times `openat`, `pwrite`, `close`, and 1.5 times the same with a `pread`; power-safe update
//! 1.02 to 1.05 times `openat`, `pwrite`, `fdatasync`, `close`. Of an update's own instructions BLAKE3 is 37 % (it verifies
//! the old version and seals the new one) and the allocator 14 %; the kernel's part above the floor is the `flock` pair and
//! the `pread`. Tried without gain: short values without an allocation; one hashing call over a copy of the slot.
//!
//! # Rules for crashes
//!
//! A *kill* ends the process at any instant; what it handed to the kernel stays. A *power cut* also loses whatever the
//! kernel had not written.
//!
//! 1. **Create**: exclusive open at the final path, lock, look whether the path still leads here, write both slots at
//!    once (no later save changes the size), and, power-safe, sync file and shard. A kill leaves a file without a
//!    version, or a session whose id nobody was told.
//! 2. **Update** writes the older slot. A torn write leaves the newest version as it was; a failed one is voided.
//! 3. **Overwrite rule.** A power-safe save never writes over a slot while the newest one is not known to be synced: a
//!    relaxed save, or a writer killed before its sync, may have left it so, and the slot about to be overwritten may be
//!    the only one on the disk. It syncs first, and acknowledges when data and name are synced. Without this rule,
//!    simulated power cuts lost acknowledged saves.
//! 4. **A failed sync is final for its inode.** Linux marks the pages clean after a failed `fsync`, so that a second one
//!    succeeds without writing anything. The new slot is voided and the session written anew to another inode; if that
//!    fails too, the error is [`DurabilityUnknown`](crate::ErrorKind::DurabilityUnknown), and the file is marked: later
//!    power-safe saves, by whomever, do not sync it either but write it anew. (A directory has no second inode to go to:
//!    its failed sync is reported to the call that met it, and the next call tries again.)
//! 5. **Grow**: a larger file under a temporary name in the same shard, locked, written, *always* synced; the old file
//!    marked retiring; then the two names are *exchanged* in one step, the temporary one removed, and, power-safe, the
//!    shard synced. A kill leaves a temporary file at worst.
//! 6. **Delete**: lock, write the tombstone, unlink, sync the shard. The shard is synced also when there was no file:
//!    another deleter may have been killed between its unlink and its sync.
//! 7. **Rotate**, under the old session's lock: apply the change, create the successor power-safe *at every durability*
//!    (else a power cut may lose both), mark the old file retiring, unlink it, write the tombstone, sync its shard. A
//!    kill before the unlink leaves the old session alive, one after it leaves neither to the visitor; the successor's
//!    id was told to nobody.
//! 8. Whatever descriptor will be needed is opened before anything is changed. The one exception is the new file after
//!    a failed sync, where a refusal becomes `DurabilityUnknown`.
//!
//! From the moment a relaxed save of a session begins, a power cut may take that session back to an older version or
//! away altogether, until its next power-safe save. It never tears it and never brings it back after its end.
//!
//! # Rules for locks
//!
//! 1. Writers of a session wait in a fair queue in their process, then for `flock` on the session's file. Readers take
//!    no lock.
//! 2. A lock is on an inode, and a name may change its inode while one waits. Whoever gets the lock reads the file: a
//!    slot that is *retiring*, or a file without a version, says "look whether the path still leads here"; if not, start
//!    again by the path. The mark is set before the name changes, under the lock that the waiter waits for, so a waiter
//!    that sees no mark holds the file its path leads to. (Files replaced by hand are not marked: a save that waits
//!    while somebody restores a backup over it may go to the replaced file.) This spares two `stat` calls a save.
//! 3. Every wait ends at the lock limit with [`Busy`](crate::ErrorKind::Busy), but a logout does not hang on a writer
//!    that was stopped: after the limit, `delete` unlinks without the lock, and writes the tombstone into the file
//!    that has lost its name. So it does with a session that cannot be read. What the writer does when it goes on cannot
//!    bring the session back: an in-place write goes to a file without a name, and is answered "gone" (a save that held
//!    the lock for longer than the shortest limit looks whether its path still leads there); a grow *exchanges* names,
//!    which fails when the old one is gone; a rotation that finds the old name gone removes its successor. (On a file
//!    system that cannot exchange names, a writer stopped in the instant between its look and its rename can.)
//! 4. No lock is held when a call returns, and none while a response is sent.
//! 5. Unlocking is explicit: a child forked meanwhile has a copy of the descriptor, and closing ours would not unlock.
//!
//! # Readers without a lock
//!
//! A reader copies the file while saves may pass. It trusts what it copied if the newest slot verifies and the other is
//! empty or claims exactly the sequence before (`file/slots.rs` has the argument). Otherwise it reads again, by path,
//! until two readings agree, eight times at most, and then once under a shared lock. A slot torn by a killed writer
//! costs each load one more reading until the next save.
//!
//! A load is linearized where it opens the file, if the file was replaced meanwhile, else within its `pread`.
//!
//! # Whys
//!
//! * **Why not a temporary file and a rename for every save?** ext4 allocates blocks at every overwriting rename: 86 µs,
//!   and over a millisecond under load, where an in-place write takes 6.
//! * **Why a keyed checksum, and why no signature?** Keyed with the `FileId`, so that a file copied over another does not
//!   verify. Whoever knows an id knows its `FileId`: it detects damage, not forgery by somebody who can write to the
//!   directory, and who needs no forgery.
//! * **Why `openat2`?** `O_NOFOLLOW` guards the last component only; `RESOLVE_NO_SYMLINKS` guards the shard as well, in
//!   the same call. Where it is missing, shard and file are opened one after the other.
//! * **Why `O_NOATIME`?** With `relatime`, the first read after every write updates the inode, which costs more than the
//!   read. Nobody asks when a session was last read.
//! * **Why does `unlink` not need the overwrite rule?** It removes; what it must survive is a power cut, hence the sync.
//! * **Why are values decoded when they are asked for?** A request reads one or two entries; a record is checked as a
//!   whole by its checksum when it is loaded.
//! * **Why does `touched` not move at every save?** See [`lifetime`](crate::lifetime): the stored deadline is the one the
//!   browser was last told.
//! * **Why `flock` and not `fcntl`?** `fcntl` locks vanish when any descriptor of the file is closed, by any library in
//!   the process.
//! * **Why is a file never made smaller?** It would cost a rename to save bytes that the next save may need.
//! * **Why two syncs for a new session?** Without the directory's, simulated power cuts lost four of five acknowledged
//!   sessions.
//! * **Why `.new-` files and not the `tempfile` crate?** The crate works with paths; these files are made relative to the
//!   shard's descriptor. (The parameters file, made once, is its work.)
