//! How the file engine works and why: byte map, rules for crashes, for locks and for the coherence of copies in memory,
//! and a list of whys. Documentation only. Whoever changes `src/file/` changes this page in the same commit.
//!
//! # On disk
//!
//! ```text
//! root/                 0700, owned by the user the program runs as (2770, and files 0660, in a group's store)
//!   sessile.json        format and parameters; put there last when a store is made, never replaced while it can be read
//!   run/                0700: what running processes need and a backup does not; made again where it is missing
//!     CACHEDIR.TAG      tells programs that make backups to leave the directory out
//!     generations       2 MiB: counters that say which copies in memory are old; no sessions
//!     due/              0700: the expiry index
//!       495124          the sessions to look at in hour 495,124 since 1970: 32 bytes each, appended
//!       sweep           locked by whoever sweeps; the hour of the last walk
//!   damaged/            damaged session files, and what was no file in a session's place, that an operator had moved aside
//!   ab/                 256 shard directories, 0700, all made when the store is
//!     cdef0123…         one session, 0600: 2 slots of S bytes, S a power of two from 2 KiB; nothing else
//!     .new-…            a file on its way to its name
//!     .end-cdef0123…    a session that was ended without its lock, until that is announced and on the disk
//! ```
//!
//! The name of a session's file is its [`PublicId`](crate::PublicId), the digest of the secret id: a listing or a backup
//! gives nobody a session. The bytes of a slot are drawn in [`slot`](crate::file::slot); which slot is the newest is
//! decided in `file/slots.rs`:
//!
//! * The **newest** version is the valid slot with the higher sequence. A save writes the *other* slot, in place.
//! * An **all-zero** slot was never written. A slot that says `GONE` ends the session, whatever the other slot says. One
//!   that says `VOID` is left of a failed write: not zero, or a reader might take it for one that was never written.
//! * A slot's **state byte** lies outside its checksum and is raised in place after a sync: data synced (1), name synced
//!   (2), retiring (4), a sync failed (8), replaces another file (16). New slots of a file inherit what is true of the inode,
//!   "name synced", "a sync failed" and "replaces another file", and nothing else.
//!
//! **Limits** are asked of what grows. A file is read up to the largest size that any session has, whatever `record_bytes_max`
//! is now; a record beyond `record_bytes_max` or `entries_max` is written if its entries take no more bytes, and are no more,
//! than those of the version before it. So lowering a limit locks no visitor out: what a visitor has can be read, renewed, rotated,
//! logged in, made smaller and ended. The user does not count, or a login would be refused for the size of a cart.
//!
//! A `sessile.json` that is lost is made anew, by opening or by [`FileStore::repair`](crate::FileStore::repair), only after every
//! session was read and none is of a newer format: each slot says its own. The expiry index is left as it is then: its note
//! of the last walk must not skip hours.
//!
//! [`FileStoreOptions::read_only`](crate::FileStoreOptions::read_only) opens a store that may belong to another user. It makes
//! nothing and changes no mode; it reads files without the shared counters, which are opened for writing; a dry run takes the
//! sweepers' lock on a descriptor for reading. Every act that writes passes one check first.
//!
//! A store is made in an order that several processes may follow at once: shards, index, sync, and last the parameters. So it
//! can be **made again while it is open** (`file/emptied.rs`), when an act meets a missing shard and the parameters and all other
//! shards are gone too (or what is left has been as much for 5 seconds: `rm` could not remove it): under the shared lock that each process has on the root and an exclusive one on `run`, through the root's descriptor, which is the directory that was
//! opened. The process whose parameters got the name tells the event. For a minute the process also makes again what is
//! missing beside parameters, for the removal may still be under way. No session comes back: the new shards are other
//! directories, and a save that began before holds a file to which no path leads, which it finds when it looks (rules for locks,
//! 2 and 3), or was done before the removal. Copies in memory go with the counters, by rule 6 of coherence; if those
//! were left, all cells are announced. A single missing shard is made again at opening only.
//!
//! # What each call does
//!
//! System calls of one operation on a small session, as `strace` shows them:
//!
//! | operation | calls | which |
//! |---|--:|---|
//! | load of a session that is in memory | 0 | |
//! | load | 3 | `openat2`, `pread`, `close` |
//! | load of an unknown id | 4 | `openat2` (fails), `openat` of the shard, `openat` in it (fails), `close` |
//! | update, relaxed | 8 | `openat2`, `flock`, `pread`, `pwrite`, `pwrite` of a counter, `fstat` of the counters, `flock`, `close` |
//! | update, power-safe | 10 | the same, and `fdatasync`, `pwrite` of the state byte |
//! | create, relaxed | 10 | `getrandom`, `write` to the index, `fstat`, `openat2`, `flock`, `fstat`, `fstatat`, `pwrite`, `flock`, `close` |
//! | create, power-safe | 15 | the same, and shard `openat`, `fdatasync`, shard `fsync`, `pwrite` of the state, `close` |
//! | delete | 14 | shard `openat`, `openat` in it, `flock`, `pread`, `pwrite` of the tombstone, `fdatasync`, `pwrite` and `fstat` of the counters, `fstat`, `fstatat`, `unlinkat`, `flock`, `close`, `close` |
//! | delete of an unknown id | 4 | shard `openat`, `openat` in it (fails), `openat` of `.end-…` (fails), `close` |
//! | grow, relaxed | 23 | see below |
//! | grow, power-safe | 25 | the same, and shard `fsync`, `pwrite` of the state |
//! | rotate | 31 | a power-safe create inside a delete, and `fstat`, `fstatat` before the old session is marked |
//! | removal by a sweep | 11 | `openat`, `flock`, `pread`, `pwrite` of the mark, `pwrite` and `fstat` of the counters, `fstat`, `fstatat`, `unlinkat`, `flock`, `close`; and a part of a `pwrite` to the index |
//!
//! Once a second, a load or a save also looks whether the counters still have their name: `openat`, `fstatat`, `close`.
//!
//! A save that held its lock for a millisecond or more adds `fstat` and `fstatat` (see the rules for locks). A visitor who
//! stores nothing causes no call. The end of a session whose file was replaced by a larger one, and that no power-safe save has
//! seen since, adds an `fsync` of the shard.
//!
//! Beside the floor of the same system calls, 512 bytes, 50,000 sessions, page cache warm (`cargo bench`; ratios of
//! medians, several runs on a shared two-core machine with ext4): load 1.3 to 1.8 times `openat`, `pread`, `close`, and no
//! more while the directory is watched; relaxed update 1.8 to 2.1 times `openat`, `pwrite`, `close`, and 1.6 to 1.8 times the
//! same with a `pread`; power-safe update about as long as `openat`, `pwrite`, `fdatasync`, `close`. Of an update's own
//! instructions BLAKE3 is 37 % (it verifies the old version and seals the new one) and the allocator 14 %; the kernel's part
//! above the floor is the `flock` pair, the `pread`, and the announcement (0.9 µs where the floor is 8.6). Tried without
//! gain: short values without an allocation; one hashing call over a copy of the slot.
//!
//! A power-safe update waits for the disk once. With a journal, ext4 then writes what an append to a preallocated log
//! would: one block, and a flush. Without one, `fdatasync` also writes the block of the file's inode, whose times the save
//! has moved (a log's move once a tick of the clock): 3 writes of the device instead of 2, 295 µs instead of 190, as counted
//! in `/sys/block/…/stat`. `O_DSYNC`, `O_DIRECT` and the mount option `lazytime` do not change that.
//!
//! A deletion's own calls, without their thinking, take 1.6 times `unlinkat` alone, on ext4 with a journal; a creation's, 1.4
//! times `openat` and `pwrite`. What could go, goes only with a promise: the lock and the tombstone (which tell whoever
//! waits, and the disk, that the session is ended), the looks (which know whether one was alive, and leave alone what is not ours), the entry
//! in the index (without which an expired session is found days later).
//!
//! A load from memory, same sessions, same run: 1.6 to 2.5 times a bare look-up in an LRU map of the same shape, in an order
//! where each session is as likely as any other and in one where few are visited often; 64 hot sessions, 75 ns. All of it
//! is waiting for memory: the node of the map, the record's count of owners, the counters. Tried without gain: a quarter
//! of the counters; fetching the record while the counters are on their way. With gain: the clock's last tick instead of
//! its time (20 ns and two conversions), not moving a copy that was moved a moment ago.
//!
//! A million sessions instead of ten thousand make a load from a file 1.3 to 1.5 times as long (4.8 µs, 6.3; its floor 2.4,
//! 4.5: it is the kernel's own maps that no longer fit into the processor's caches), and one from memory 7 to 10 times (as web
//! visitors come 80 ns, 590; evenly 110, 1,110): ten thousand fit into those caches, a million do not. (On another
//! processor 3 times: 0.3 µs, 0.9.)
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
//!    succeeds without writing anything. So the file is marked at once, before anything else is tried: later power-safe
//!    saves, by whomever, do not sync it either but write it anew. The new slot is voided and the session written to another
//!    inode; if that fails too, the error is [`DurabilityUnknown`](crate::ErrorKind::DurabilityUnknown). (A directory has no
//!    second inode to go to: its failed sync is reported to the call that met it, and the next call tries again.)
//! 5. **Grow**: a larger file under a temporary name in the same shard, locked, written, *always* synced; the old file
//!    marked retiring; then the two names are *exchanged* in one step, the temporary one removed, and, power-safe, the
//!    shard synced. A kill leaves a temporary file at worst.
//! 6. **Delete: the name goes last.** Lock, write the tombstone into the file, sync *the file*, announce, unlink. So a name that
//!    is absent proves that its session's end was announced and is on the disk, and the end of an absent id is a look. A
//!    deleter that is killed before the unlink leaves a tombstone under the name; the next deleter that finds it writes it once
//!    more (a page that a failed sync has marked clean is written again), syncs, announces and unlinks, and so does a sweep an
//!    hour later. A power cut that brings the name back brings the tombstone back with it, if the name cannot lead anywhere
//!    else: an inode that took another one's place says so in its state until its name is synced, and its shard is synced
//!    before the tombstone is written. (A name that was never synced falls back to nothing. Where a tombstone is found, its
//!    slot's state is lost, and the shard is synced in any case. A file that was replaced outside the library is not ours to
//!    sync: a power cut may bring back the one that was there before.)
//!
//!    If the tombstone cannot be written or synced, or a sync of the inode had failed before, the session ends by its name: the
//!    file is *moved* to `.end-` and the session's name, the end announced, the shard synced, and `.end-…` removed last. If that
//!    sync fails too, the error is [`DurabilityUnknown`](crate::ErrorKind::DurabilityUnknown), and `.end-…` stays. A deleter
//!    that finds a name absent looks for `.end-…` too, and finishes what it finds; so does a sweep an hour later. If only the
//!    unlink fails, the session is ended, and a sweep removes the file.
//! 7. **Rotate**, under the old session's lock: apply the change, create the successor power-safe *at every durability*
//!    (else a power cut may lose both), then end the old session as a delete does. A kill before the tombstone is written
//!    leaves the old session alive, one after it leaves neither to the visitor; no visitor was told the successor's id. If the
//!    old session cannot be ended, or has lost its name to a `delete` without the lock, the successor is ended.
//! 8. **Making a store**: directory, shards, sync of the root and of its parent, and last the parameters under their name, synced.
//!    Where the parent cannot be read or synced, the whole file system is (`syncfs`), which has the root's name unless the root is
//!    where a file system is mounted.
//! 9. Whatever descriptor will be needed is opened before anything is changed. The one exception is the new file after
//!    a failed sync, where a refusal becomes `DurabilityUnknown`.
//!
//! A store that is told not to sync ends ([`sync_security_events`](crate::FileStoreOptions::sync_security_events)) leaves names
//! absent whose ends are not on the disk; another one on the same directory that does sync them takes these ends as they are.
//!
//! **Expired sessions** lose their names without a sync, because what a power cut brings back has expired as well: a save that
//! moves a deadline to an *earlier* time is power-safe at every durability (unless ends are not synced), so that no older
//! version on the disk lives longer than the newest. A logout that finds such a session swept does not sync that either: its
//! file may be back after a power cut, expired.
//!
//! On btrfs (Linux 6.18) the sync of a shard was seen not to bring to the disk that a name is gone from it: an engine that relied
//! on it brought ended sessions back in 21 of 360 simulated power cuts (`tests/powercut/`). A tombstone in a file that was synced
//! needs no such sync. A file that is moved to `.end-…` is synced itself after that, which brings its change of names to
//! the disk there.
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
//!    that was stopped: after the limit, `delete` moves the file to `.end-…` without the lock, writes the tombstone into it
//!    there, announces, syncs, and removes it. So it does with a session that cannot be read. Here the announcement must come
//!    after the name is gone: the writer may be about to put a larger file in place, without a tombstone. The name `.end-…`
//!    says to the next deleter that there may be something to be announced, whenever this one was killed; it goes last. What the
//!    writer does when it goes on cannot bring the session back: an in-place write goes to a file that has lost the session's
//!    name, and is answered "gone" (a save that held the lock for longer than the shortest limit looks whether its path still
//!    leads there; `delete` waits twice as long for a writer that got the lock while it passed, and read the file before the
//!    tombstone was there); a grow *exchanges* names, which fails when the old one is gone; a rotation that finds the old name
//!    gone removes its successor. All look first whether the name is still their session's, as do deleters under the lock and
//!    sweeps: another may have been brought in under it. (Stopped between that look and its act, and passed by a logout
//!    and by a `import` of the same id, a writer takes what was brought in. On a file system that cannot exchange names, and
//!    on FUSE, where one may claim to and lose a file, a writer stopped in that instant can bring the session back.)
//!    A thread that would wait for itself, because a function it runs under the lock changes the same session through
//!    another handle, is refused at once with [`Reentrant`](crate::ErrorKind::Reentrant): a queue knows the thread at its head.
//!    (Two stores of one process on one directory have two queues: there it waits.)
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
//! A call may return a part of a file, for instance the page before one that cannot be read. So a reading whose first slot
//! does not claim the size it has is held against the file's size, and gone on with: trouble is an error, never the end of
//! a session.
//!
//! A load is linearized where it opens the file, if the file was replaced meanwhile, else within its `pread`.
//!
//! # Coherence of copies in memory
//!
//! Each open store keeps copies of sessions it has read or saved (`file/read_cache.rs`). A copy is never the authority:
//! what follows is why, as long as two counters in memory say so, a load may return it without asking the file.
//!
//! **The counters.** `run/generations` has 131,072 cells of two counters, and a session has one cell by its `PublicId`. Every
//! process maps the file read-only and writes to it with `pwrite`, always a value that was never written before: *saves*
//! when there may be a new version, both when the session may have ended. (`file/generations.rs`.)
//!
//! **The rules.**
//!
//! 1. Whoever reads a session notes its cell *before* opening its file. The copy is dated with what was noted.
//! 2. Whoever has the lock of a session announces (writes to the cell) after the last look at the file and before the
//!    lock is given back, *whatever came of the act*: written, unchanged, gone, refused. Nothing is returned before. Somebody
//!    else may have been killed after changing the session and before announcing it, and whoever learns the new state
//!    first spreads it. A save that finds nothing announces that too: it may have been removed by hand. So does a
//!    `delete`, if its store has a copy; one of an id that was made up has nothing to tell (rule 4).
//! 3. A writer's own copy is dated with the *saves* it has just written, and with the *ends* it noted before it opened
//!    the session's path.
//! 4. An end is announced when nothing can be read of the session any more: a tombstone is in the file, under its lock, or,
//!    without the lock, the name is gone. The name, or the one it was changed to, goes after that. So a `delete` that finds
//!    neither has nothing to tell. (A file that was removed by hand is one that was not announced, unless the directory is
//!    watched: a store that has no copy of it cannot know, and copies elsewhere are trusted for a minute.)
//! 5. A load may return a copy whose date is what the cell says now, that is not older than a minute, and whose record is
//!    not expired.
//!
//! **A hit is never stale.** Let W be a save or an end of the session that had returned before a load L began, and C the
//! copy that L returns. W announced before it returned, so L read the cell after that, and found C's date in it.
//!
//! * *C was read from the file* (rule 1). If its date was noted after W's announcement, the file was opened after W
//!   wrote, so C is W's version or a newer one, or, W being an end, there was nothing to read. If it was noted before,
//!   the cell has changed since, and never changes back: L did not find C's date in it.
//! * *C was saved by U, and W is a save* (rule 3). Both had the session's lock. If W had it first, U read what W wrote and
//!   C is newer. If U had it first, W's announcement came after U's, and *saves* is not C's any more.
//! * *C was saved by U, and W ended the session*, with its lock or without. If W announced before U noted *ends*, a tombstone
//!   or nothing was there when U opened the path (rule 4), and there was no U. If it announced after, *ends* is not C's any more. U's own
//!   announcement cannot hide W's, for it does not touch *ends*. (With one counter it could: a writer stopped between its
//!   last look and its announcement, passed by a logout, would announce over the logout and serve its copy for ever.)
//!
//! So a load from memory takes effect when it reads the cell. While a save is under way, and only then, two processes may
//! differ about which of the two versions is the newest: one has read the file, the other has a copy and has not yet been
//! told. Inside one process an older version does not replace a newer copy that is trusted.
//!
//! **Late inserts are harmless**: a copy carries its date wherever it goes. Filed an hour later, it does not match. Two acts that
//! end a session at once both announce when nothing can be read any more, and it does not matter whose value stays.
//!
//! **Orderings.** An announcement is a system call after the system call that wrote the session. A reader's loads of the
//! cell are followed by an acquire fence, then by the system calls that read the file. Between processes nothing else is
//! needed: one kernel, one page cache, and memory that the processor keeps coherent. What "returned before L began" means
//! is up to the two callers; whatever lets one know of the other orders their memory. A `pwrite` of eight bytes may be
//! seen half done; such a mixture is no value that was ever written, or ever will be, so it matches no date, and the call
//! that is writing it has not returned.
//!
//! **Killed writers.** Killed after writing and before announcing, a writer has acknowledged nothing. Whoever reads the file
//! sees its save, whoever has a copy does not, until anybody saves or ends that session (rule 2), or for a minute (rule 5).
//!
//! **Trouble.** If the announcement fails (a broken disk), the error is [`InvalidationFailed`](crate::ErrorKind::InvalidationFailed): the
//! change was made, and was not acknowledged; for a minute others may not see it. On a full disk it does not fail, for the
//! file has all its blocks (unless the file system never writes in place, as ZFS, or btrfs below a snapshot). Nothing is
//! written through a mapping, which would kill the process there. What remains is a disk that cannot read back a page of the
//! counters that memory was short of: a load that needs the page then ends the process, as it does with any mapped file.
//!
//! **The file that has the name.** All of this takes for granted that processes that announce and processes that listen have the
//! same file. A restored backup may put another one in its place (`rsync` renames, `tar` and `cp --remove-destination` unlink and
//! create), the directory may be removed, and an opening replaces a file of a wrong size. So:
//!
//! 6. *Each process looks*, while it loads or saves and a second has gone by since it last looked, whether the name leads to
//!    its file, with the same size, and not written before it was last seen to be. (A copy of `rsync` or `cp -a` that is
//!    written over the file sets its time back.) If not, it takes up the file that has the name, and makes one if there is
//!    none or one of another size: under a temporary name, then renamed, so that one making wins and none is seen half done.
//! 7. *An announcement counts if its file has a name afterwards* (`fstat`, 0.2 µs), and is made again, into the file that has
//!    the name, if not. Nothing returns before.
//! 8. *Each file has a number* in each process, which is part of the dates of copies. So whatever the new file says, which may
//!    be a copy of the old one, no older copy agrees with it, nor does one that is filed later.
//!
//! Let R be the instant at which the old file lost its name. *An announcement that returned after R was made into a file that
//! had a name after R*, by rule 7, unless its last look was before R; then it was written before R. So a process that
//! noted its cell in the new file, which is after R, hears of each announcement of the first kind, and has read its file
//! after each one of the second kind. It is as if there had been one file. *A process that still has the old one in memory*
//! is told of nothing after R until it looks, which its loads do within a second; from then on it trusts none of its
//! copies. It serves what is a second old at worst. Between its threads the new file is taken up at once: copies are held
//! against counters that are kept under the lock of each part of the cache, and all parts are given the new ones while no
//! thread can announce. A load from memory costs one more load, of the instant of the last look.
//!
//! Where the old file keeps a name (it was moved aside, or has a hard link), rule 7 sees nothing, and processes come
//! together by rule 6: between R and the last one's look, a change may not be heard, and rule 5 bounds what is served to a
//! minute. If no file can be had (a full disk), nothing is trusted and each load reads its file; announcements go on into the
//! old file, for others may still listen there. If there is one that cannot be opened, they fail
//! ([`InvalidationFailed`](crate::ErrorKind::InvalidationFailed)).
//!
//! What the file says is worth nothing once all processes are gone, so it is neither synced nor backed up. An earlier version
//! had it in the root; an opening that finds it there waits until the store is unused, and removes it.
//!
//! **A file that is cut short** (`cp` and `rsync --inplace` over it do that first) kills the process that reads a counter beyond
//! the cut (SIGBUS). It cannot be excluded without a system call for each hit. Tried: pages that are locked, populated or
//! private are taken away as well; a lease is refused while a descriptor for writing is open; seals exist for files without a name only; a
//! file that is immutable or append-only refuses our own writing; mode 0400 keeps its owner from opening it, but not root, and root
//! restores most backups. Nothing of this makes the file shorter, and `run` need not be in a backup.
//!
//! **Verify and Off.** [`Coherence::Verify`](crate::Coherence::Verify) reads the file at every load and spares verifying
//! and decoding what it knows, by sequence and checksum; times of files are no version, for they stand still between two
//! saves of one clock tick. It announces like everybody else. [`Coherence::Off`](crate::Coherence::Off) holds the root's
//! lock exclusively and has counters of its own. (A lock is one host's: on NFS it keeps no other host away.)
//!
//! **Without shared memory** (NFS, SMB, 9p, FUSE) the default keeps no copies: every load reads the file. It announces like
//! everybody else, which costs a `pwrite` a save: on the host of a virtual machine, others may have the counters in memory.
//!
//! **Sessions in one cell** cost each other rereads, nothing else: w saves on the host between two loads of a session
//! doubt its copy w times in 131,072. A doubted copy of the version that the file still has is not decoded again.
//!
//! # Rules for owners and modes
//!
//! A private store is its user's alone: directories 0700, files 0600. A store with
//! [`group_access`](crate::FileStoreOptions::group_access) is for all users of the root's group: 2770 and 0660, under any umask,
//! owned by any of them. `flock`, writing in place and removing names need no more than that. The process that makes a file sets
//! its mode; a process of another user could not.
//!
//! 1. An opening looks at the root and the directories in it, and at files only in directories that were wrong. What opens a
//!    store to others (`fsGroup`, `chmod -R`, `setfacl -R`) sets directories too, and a file in a private directory cannot be
//!    reached by another user. So it costs some 260 `fstatat`, whatever the number of sessions, and 5 µs of processor time a
//!    session when it mends; no other call looks at a mode, but for files that it has made.
//! 2. What is this user's and wrong is mended, through descriptors opened without following a link: the root first if it is
//!    made private, then files, and each directory after its files, so that a killed opening is gone on with. What is another
//!    user's, or refuses, is counted, and is one error.
//! 3. A directory that holds no store, a sticky one, and one of another user that all may write to are not changed, whatever
//!    they hold.
//! 4. A tool beside the programs ([`keep_modes`](crate::FileStoreOptions::keep_modes), as the command opens every store) knows
//!    from the root's mode alone which users the store is for. It changes no mode, and refuses a store that does not agree.
//!
//! A mode mended does not undo what was done before. Others may have put back an old version of a session, or forged one (the
//! checksum's key is the file's name), and keep files open that they had opened. The event
//! [`MadePrivate`](crate::Event::MadePrivate) says that.
//!
//! An access control list shows its mask as the group's bits, so that `chmod` to 0700 or 0600 leaves its entries without
//! effect; a default list of a directory gives new files nothing, for they are made with 0600. In a group's store the
//! entries have the group's rights.
//!
//! # Removing what is expired
//!
//! Expiry is decided when a session is loaded; a sweep gives back the disk's space, and nothing else depends on it. The
//! index says which sessions may have expired by now. It is a hint: **the record is the truth**, and everything about the
//! index may be lost, doubled, torn or late.
//!
//! **Filing.** Before a session is made, 32 bytes (its `PublicId`, its deadline, a check) are appended to the bucket of the
//! hour in which it expires, with one `write` to a file opened with `O_APPEND`; so again when a save moves its deadline to
//! an earlier hour. A save that moves it to a later one, as renewals do, costs nothing. What cannot be filed is counted in
//! [`Stats::index_failures`](crate::Stats) and found by a walk.
//!
//! **What is due.** A sweep reads the buckets of this hour and of those before. Of this hour's, it looks at the sessions whose
//! deadline, as it was filed, is reached, and strikes their entries out when they are done with; of earlier ones, it looks at
//! all, and removes the bucket when all are done with. Gone (`openat` fails): nothing to do. Expired: removed. Renewed: filed anew in the
//! hour it expires in now. Locked by somebody, or not to be read: left for the next sweep, and filed for it if the bucket goes.
//!
//! **A bucket that goes.** A process may have a bucket open, and append to it at any time: it may have been stopped after it
//! chose the bucket, or its clock may be behind. So the sweep removes the *name* first, and then reads on to the end, and
//! whoever appends looks afterwards whether the file still has a name, and if not, files once more. One of them sees it:
//! an entry is appended before the sweep's last read, and is read; or after it, and so after the name was removed.
//! Nobody has to wait for a guard time.
//!
//! **The walk** looks at every file of some shards: at one shard for each hour since the last walk, which is written down in
//! `run/due/sweep`. So each file is looked at once in 256 hours, whether somebody sweeps each minute or each night. (A shard
//! chosen by the hour alone needs nothing written down, but a sweep each night at the same hour would then see 32 shards of
//! 256, for ever.) It removes what is expired, files live sessions that the index does not have, clears leftovers, and
//! counts the rest. If `run/due/sweep` says nothing, the index is new to this store or was lost: all shards are walked at once.
//! To know what is filed, the walk reads the whole index, 32 bytes a session.
//!
//! **Removal.** Under the session's lock, after another look at the record: mark the file as retiring, announce, `unlink`,
//! unlock. The mark is for who waits for this lock: it makes him start again by the path. That the session is expired would
//! not do, for the clock may be set back before he looks. The name goes last, as at every end; a reader before that finds the
//! session expired. No sync: what a power cut brings back is expired. Sweeps do not
//! wait for locks: who holds one is saving the session.
//!
//! **Leftovers**: files without a version (a creation or an end that was cut short) and files under temporary names are
//! removed an hour after they were last written, by the file system's clock, if nobody has them locked; those that may be an
//! end that was cut short are synced and announced before, and a file `.end-…` is finished as a deleter does. A file that is shorter
//! than its only version claims, which was never synced, is a creation that was cut short: nobody was told of it. A damaged file is
//! kept for somebody to look at, two weeks by default. What is not ours is counted and left alone.
//!
//! **Clocks.** A session is never filed in an hour that is over, nor further ahead than 30 days, so buckets are few whatever
//! the ages; one that lives longer is filed anew when its bucket's hour comes. If the clock is set back, buckets wait; if it is
//! set forward and back, live sessions were filed anew on the way. What had expired by a clock that was wrong is gone.
//!
//! **Stopped sweeps** write down how far they came: what is done is struck out, and the walk, which goes through its shards in
//! the order of their hours, is noted as if it had ended in an earlier one. So a program that never runs for as long as a
//! sweep takes is swept all the same.
//!
//! **Several threads** (`cpu_percent` above 100) are handed shards one by one. One thread opens, locks, reads and marks
//! each file that it removes. Of files that are on the disk it removes 0.7 to 0.9 as many as bare `unlinkat` does on an ext4
//! without a journal, where the disk decides, and 0.54 as many with one; two threads remove 1.45 times as many without. The
//! thread that began the sweep does work of its own, tells how far all have come, and asks whether to stop, also while it
//! waits for the others.
//!
//! **Killed sweeps** leave entries that are looked at again and found done. **Two sweeps** at once exclude each other by the lock
//! on `run/due/sweep`; if somebody deletes that file, they do not, and do no harm: each removal is under its session's lock.
//!
//! # Whys
//!
//! * **Why not a deadline in the file's times?** Setting them would cost each save another system call.
//! * **Why does the sweep open each file that is due?** The index knows when a session was to expire when it was filed; renewals
//!   tell it nothing, so that they cost nothing.
//! * **Why a minute?** It bounds what counters cannot: killed writers, removals by hand that nobody watches. A look at the
//!   file costs 3 µs, and each copy needs at most one a minute.
//! * **Why are absent sessions not remembered?** An attacker with made-up ids would fill the memory. They cost a failing
//!   `openat2`.
//! * **Why does the watcher rest for 10 ms after an event?** Being woken for each made a creation dearer by two thirds.
//! * **Why is a removal by hand announced by a watcher, and a write by hand is not?** Being told of writes means being
//!   told of our own, at every save.
//! * **Why not a temporary file and a rename for every save?** ext4 allocates blocks at every overwriting rename: 86 µs,
//!   and over a millisecond under load, where an in-place write takes 6.
//! * **Why a keyed checksum, and why no signature?** Keyed with the `PublicId`, so that a file copied over another does not
//!   verify. Whoever knows an id knows its `PublicId`: it detects damage, not forgery by somebody who can write to the
//!   directory, and who needs no forgery. A visitor can store the likeness of a slot within his own session: so slots are
//!   found by their position only, and a file whose first slot says that it is larger than half of the file is damaged.
//! * **Why `openat2`?** `O_NOFOLLOW` guards the last component only; `RESOLVE_NO_SYMLINKS` guards the shard as well, in
//!   the same call. Where it is missing, shard and file are opened one after the other.
//! * **Why `O_NOATIME`?** With `relatime`, the first read after every write updates the inode, which costs more than the
//!   read. Nobody asks when a session was last read.
//! * **Why does `unlink` not need the overwrite rule?** It removes, and what it removes says on the disk that it is ended.
//! * **Why is the file synced at the end of a session, and not its directory?** An absent name cannot say whether its removal was
//!   synced: each logout with a made-up id would have to sync the directory again.
//! * **Why do short names and small values lie in the map of the entries itself?** A record of eight entries takes 8 blocks
//!   of the heap and not 20, and fewer instructions: a load from the file 7 % less, an update in memory 11 %. What that is in
//!   time drowns in what other work does to a clock.
//! * **Why are values decoded when they are asked for?** A request reads one or two entries; a record is checked as a
//!   whole by its checksum when it is loaded.
//! * **Why does `touched` not move at every save?** See [`lifetime`](crate::lifetime): the stored deadline is the one the
//!   browser was last told.
//! * **Why `flock` and not `fcntl`?** `fcntl` locks vanish when any descriptor of the file is closed, by any library in
//!   the process.
//! * **Why is a file never made smaller?** It would cost a rename to save bytes that the next save may need.
//! * **Why two syncs for a new session?** Without the directory's, simulated power cuts lost four of five acknowledged
//!   sessions.
//! * **Why `.new-` files and not the `tempfile` crate?** The crate works with paths; these files are made relative to a
//!   directory's descriptor.
//! * **Why does a load look for the counters once a second, and not with each load?** A look costs 1 µs, ten times a load from
//!   memory; and once a second bounds what is stale after a restoration far below the minute that is promised.
