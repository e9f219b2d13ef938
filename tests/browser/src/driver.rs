//! The driver of the browsers: `chromedriver`, which starts a browser for each of its sessions.
use crate::processes::Program;
use std::env;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where the programs are: Debian's packages `chromium` and `chromium-driver`.
pub(crate) struct Installed {
    browser: PathBuf,
    driver: PathBuf,
}

impl Installed {
    /// The programs in `PATH`; `None` if one of them is not there.
    pub(crate) fn find() -> Option<Self> {
        Some(Self { browser: in_path("chromium")?, driver: in_path("chromedriver")? })
    }
}

fn in_path(name: &str) -> Option<PathBuf> {
    let dirs = env::var_os("PATH")?;
    env::split_paths(&dirs).map(|dir| dir.join(name)).find(|path| path.is_file())
}

/// A running driver. Its browsers are in its process group, and are killed with it.
pub(crate) struct Driver {
    _program: Program,
    pub(crate) url: String,
    pub(crate) browser: PathBuf,
}

impl Driver {
    /// Starts a driver on a free port of the loopback interface. It and its browsers have `scratch` as their home.
    ///
    /// # Errors
    ///
    /// The driver cannot be started.
    pub(crate) fn start(installed: &Installed, scratch: &Path) -> io::Result<Self> {
        let mut command = Command::new(&installed.driver);
        command.args(["--port=0", "--log-level=SEVERE"]).env("HOME", scratch).env("TMPDIR", scratch);
        for variable in ["XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"] {
            command.env_remove(variable);
        }
        // The browsers complain there that they have no desktop.
        command.stderr(Stdio::null());
        let (program, port) = Program::start(&mut command, |line| {
            let port = line.strip_prefix("ChromeDriver was started successfully on port ")?;
            port.trim_end_matches('.').parse::<u16>().ok()
        })?;
        Ok(Self {
            _program: program,
            url: format!("http://127.0.0.1:{port}"),
            browser: installed.browser.clone(),
        })
    }
}
