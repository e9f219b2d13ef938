//! The machine and the day of a run, for captions: figures mean nothing without them.
use crate::Args;
use rustix::system::uname;
use std::fs::read_to_string;
use std::path::Path;
use std::thread::available_parallelism;

/// One sentence without a full stop, such as "2 cores (Intel Xeon), Linux 6.18, ext4, 30 November 2026".
pub(crate) fn machine(dir: &Path) -> String {
    let cores = available_parallelism().map_or(1, usize::from);
    let s = if cores == 1 { "" } else { "s" };
    let processors = read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or_else(String::new, |(_, model)| format!(" ({})", model.trim()));
    let kernel = uname();
    let release = kernel.release().to_string_lossy();
    let version: Vec<_> = release.split('.').take(2).collect();
    let mounts = read_to_string("/proc/self/mounts").unwrap_or_default();
    let file_system = file_system(&mounts, dir).unwrap_or("an unknown file system");
    let day = jiff::Timestamp::now().strftime("%-d %B %Y");
    let system = kernel.sysname().to_string_lossy();
    format!("{cores} core{s}{model}, {system} {}, {file_system}, {day}", version.join("."))
}

/// The sessions and turns of a run, in the same form.
pub(crate) fn run(args: &Args) -> String {
    let thousands = |number: u32| match (number / 1000, number % 1000) {
        (0, rest) => rest.to_string(),
        (thousands, rest) => format!("{thousands},{rest:03}"),
    };
    let bytes = args.bytes.iter().min().copied().unwrap_or(0);
    let (sessions, rounds) = (thousands(args.sessions), args.rounds);
    let s = if rounds == 1 { "" } else { "s" };
    format!(
        "{sessions} sessions of {bytes} bytes; medians of {rounds} turn{s} of {} s",
        args.seconds.as_secs_f64()
    )
}

/// The type of the file system that holds a directory: of the deepest mount above it.
fn file_system<'a>(mounts: &'a str, dir: &Path) -> Option<&'a str> {
    let mount = |line: &'a str| {
        let mut words = line.split(' ').skip(1);
        Some((words.next()?, words.next()?))
    };
    let above = mounts.lines().filter_map(mount).filter(|(at, _)| dir.starts_with(at));
    above.max_by_key(|(at, _)| at.len()).map(|(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_system_is_that_of_the_deepest_mount() {
        let mounts = "/dev/a / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/b /tmp/b xfs rw 0 0\n";
        for (dir, kind) in [("/home", "ext4"), ("/tmp/a", "tmpfs"), ("/tmp/b/c", "xfs"), ("/tmp/bc", "tmpfs")]
        {
            assert_eq!(file_system(mounts, Path::new(dir)), Some(kind), "{dir}");
        }
    }

    #[test]
    fn a_caption_names_the_machine_and_the_day() {
        let text = machine(Path::new("/"));
        assert!(text.contains("core") && text.contains(", Linux ") && text.contains(" 20"), "{text}");
    }
}
