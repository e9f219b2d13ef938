//! Runs a test again in a process of its own, under conditions that one thread of a process cannot have: another user,
//! other mounts, limits or umask. Such a test has two runs. The first one prepares a directory and starts the same test
//! in another process. The second one, which finds the directory by [`stage`], makes the checks.
#![expect(clippy::unwrap_used, reason = "in tests a failure is a panic")]
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const STAGE: &str = "SESSILE_TEST_STAGE";
const NOBODY: u32 = 65534;
/// The time limit of a second run, more than ten times its usual time.
const LIMIT: Duration = Duration::from_secs(60);

/// In the second run, the directory that the first run has prepared; `None` in the first run.
pub(crate) fn stage() -> Option<PathBuf> {
    std::env::var_os(STAGE).map(Into::into)
}

/// Runs `test` (its path in this binary) in a second process, with `dir` as its directory. Fails if it fails.
#[track_caller]
pub(crate) fn again(test: &str, dir: &Path) {
    let exe = std::env::current_exe().unwrap();
    run(Command::new(exe), test, dir);
}

/// The same as [`again`], as an unprivileged user, who becomes the owner of the directory.
#[track_caller]
pub(crate) fn again_as_nobody(test: &str, dir: &Path) {
    let exe = std::env::current_exe().unwrap();
    if !rustix::process::geteuid().is_root() {
        return run(Command::new(exe), test, dir);
    }
    // The user may have no access to the build directory, so the program is copied. Another process makes the copy: a
    // program cannot be run while it is open for writing, and a child that another test starts meanwhile inherits every
    // descriptor of this process for a moment.
    let copy = dir.join("tests");
    assert!(Command::new("cp").arg(exe).arg(&copy).status().unwrap().success(), "cannot copy this program");
    fs::set_permissions(&copy, Permissions::from_mode(0o755)).unwrap();
    chown(dir, Some(NOBODY), Some(NOBODY)).unwrap();
    let mut command = Command::new(copy);
    command.uid(NOBODY).gid(NOBODY);
    run(command, test, dir);
}

/// The same as [`again`], with mounts of its own. A shell script makes them, with `dir` as `$DIR` and as its working
/// directory. They disappear with the process, however it ends. Of several scripts, the first that succeeds is used.
/// The test fails on a system that permits none of them.
#[track_caller]
pub(crate) fn again_in_mounts(test: &str, dir: &Path, stage: &str, scripts: &[&str]) {
    let mut refusals = String::new();
    for script in scripts {
        // The mounts are made with the permissions of this user, or else with those of root in a new user namespace.
        for rights in [&["--mount"][..], &["--mount", "--map-root-user"]] {
            let begin = || {
                let mut command = Command::new("unshare");
                let script = format!("{{ {script} ; }} >&2 && exec \"$0\" \"$@\"");
                command.args(rights).args(["sh", "-ec", &script]).current_dir(dir).env("DIR", dir);
                command
            };
            let tried = begin().arg("true").output().unwrap();
            if tried.status.success() {
                let mut command = begin();
                command.arg(std::env::current_exe().unwrap());
                return run(command, test, &dir.join(stage));
            }
            let said = String::from_utf8_lossy(&tried.stderr);
            refusals = format!("{refusals}{rights:?} {script}: {}\n", said.trim());
        }
    }
    panic!("this test needs one of these mounts, and none can be made here:\n{refusals}");
}

/// The command of the second run of `test`. The caller sets its standard streams. For tests that observe the second
/// run.
pub(crate) fn command(test: &str, stage: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(STAGE, stage);
    command
}

#[track_caller]
fn run(mut command: Command, test: &str, stage: &Path) {
    let output = tempfile::NamedTempFile::new().unwrap();
    let stream = || -> Stdio { File::options().append(true).open(output.path()).unwrap().into() };
    let mut child = command
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .current_dir(stage.parent().unwrap())
        .env(STAGE, stage)
        .stdin(Stdio::null())
        .stdout(stream())
        .stderr(stream())
        .spawn()
        .unwrap();
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status.to_string();
        }
        if began.elapsed() > LIMIT {
            child.kill().unwrap();
            child.wait().unwrap();
            break format!("still running after {LIMIT:?}");
        }
        thread::sleep(Duration::from_millis(2));
    };
    let output = fs::read_to_string(output.path()).unwrap();
    // If the name matched no test, the process would succeed, too.
    let passed = status == "exit status: 0" && output.contains("1 passed");
    assert!(passed, "the second run of {test} ended with {status}:\n{output}");
}
